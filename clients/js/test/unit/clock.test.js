/** When things are sent: time is passed by hand, the server says yes to everything unless told otherwise. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { IDBFactory } from "fake-indexeddb";

import { createBlotter, Outbox } from "../../blotter.js";
import { Clock, Locks, Page, settle, yesServer } from "../support.js";

function world(options = {}) {
  const clock = new Clock();
  const server = options.server ?? yesServer();
  const page = options.page ?? new Page({ fetch: server.fetch, indexedDB: options.indexedDB ?? null, locks: options.locks ?? null });
  const states = [];
  const blotter = createBlotter({
    token: "t",
    onState: ({ kind, id, state }) => states.push(`${kind} ${id} ${state}`),
    ...options.blotter,
    env: { ...page.env, now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout, random: () => 0.5, ...options.env },
  });
  return { clock, server, page, blotter, states, log: server.log };
}

const texts = (log) => log.filter((entry) => entry.method === "PATCH" && entry.body.append).map((entry) => entry.body.append.text);

test("text goes out every hundred characters, and after a quarter of a second at the latest", async () => {
  const { clock, blotter, log } = world();
  const reply = blotter.startReply("c", { id: "r" });
  await clock.pass(0);
  assert.equal(log.length, 1, "the stub");
  reply.append("x".repeat(99));
  await clock.pass(200);
  assert.equal(log.length, 1);
  reply.append("y");
  await clock.pass(0);
  assert.deepEqual(texts(log), ["x".repeat(99) + "y"]);
  reply.append("z");
  await clock.pass(240);
  assert.equal(texts(log).length, 1);
  await clock.pass(10);
  assert.deepEqual(texts(log).at(-1), "z");
  await blotter.dispose();
});

test("a surrogate pair is never split between two appends, nor at the end", async () => {
  const { clock, blotter, log } = world();
  const reply = blotter.startReply("c", { id: "r" });
  reply.append("a\ud83d");
  await clock.pass(300);
  reply.append("\ude00b\ud83d");
  await clock.pass(300);
  reply.complete();
  await clock.pass(0);
  assert.deepEqual(texts(log), ["a", "😀b", "\ufffd"]);
  assert.equal(log.at(-1).body.status, "complete");
  await blotter.dispose();
});

test("the stub waits until its id is sure; nothing written before is lost", async () => {
  const { clock, blotter, log } = world();
  let name;
  const reply = blotter.startReply("c", { id: new Promise((sure) => (name = sure)) });
  reply.append("early ").append("words");
  await clock.pass(1000);
  assert.equal(log.length, 0);
  name("late-id");
  await clock.pass(300);
  assert.deepEqual([log[0].body.id, log[0].body.status], ["late-id", "streaming"]);
  assert.equal((log[0].body.content ?? "") + texts(log).join(""), "early words");
  await blotter.dispose();
});

test("an open reply shows every twenty seconds that it lives; a finished one is quiet", async () => {
  const { clock, blotter, log } = world();
  const reply = blotter.startReply("c", { id: "r" });
  await clock.pass(61_000);
  assert.deepEqual(texts(log), ["", "", ""]);
  reply.complete();
  await clock.pass(0);
  const count = log.length;
  await clock.pass(100_000);
  assert.equal(log.length, count);
  await blotter.dispose();
});

test("one save of an item is under way at a time; what comes meanwhile goes together", async () => {
  const server = yesServer();
  let release;
  server.state.answer = (entry) => (entry.path.endsWith("/messages") ? new Promise((next) => (release = next)) : null);
  const { clock, blotter, log } = world({ server });
  for (const content of ["1", "2", "3", "4"]) {
    blotter.saveUserMessage("c", { id: "u", content });
    await clock.pass(0);
  }
  assert.equal(log.length, 1);
  release(null);
  await clock.pass(0);
  release?.(null);
  await clock.pass(0);
  assert.deepEqual(log.map((entry) => [entry.body.content, entry.body.revision]), [["1", 1], ["4", 2]]);
  await blotter.dispose();
});

test("watched state is compared every thirty seconds, and only what changed is saved", async () => {
  const { clock, blotter, log } = world();
  const messages = [{ id: "a", role: "user", content: "one" }];
  const end = blotter.watch("c", () => ({ messages }));
  await clock.pass(30_000);
  assert.equal(log.length, 1);
  messages.push({ id: "b", role: "user", content: "two" });
  await clock.pass(29_000);
  assert.equal(log.length, 1);
  await clock.pass(2_000);
  assert.deepEqual(log.map((entry) => entry.body.id), ["a", "b"]);
  await clock.pass(120_000);
  assert.equal(log.length, 2);
  end();
  messages.push({ id: "c", role: "user", content: "three" });
  await clock.pass(60_000);
  assert.equal(log.length, 2);
  await blotter.dispose();
});

test("a full sync sends everything, a plain one what changed", async () => {
  const { clock, blotter, log } = world();
  const state = { messages: [{ id: "a", role: "user", content: "1" }, { id: "b", role: "user", content: "2" }] };
  blotter.syncConversationState("c", state);
  await clock.pass(0);
  assert.deepEqual(log[0].body.messages.map((one) => one.id), ["a", "b"]);
  blotter.syncConversationState("c", state);
  await clock.pass(0);
  assert.equal(log.length, 1);
  blotter.syncConversationState("c", state, { full: true });
  await clock.pass(0);
  assert.deepEqual(log[1].body.messages.map((one) => one.id), ["a", "b"]);
  await blotter.dispose();
});

test("429 and 503 hold everything back as long as they ask; then it goes on", async () => {
  const server = yesServer();
  let calls = 0;
  server.state.answer = () => (++calls === 1 ? server.problem(429, "rate-limited", { "Retry-After": "7" }) : calls === 2 ? server.problem(503, "buffer-full", { "Retry-After": "5" }) : null);
  const { clock, blotter, log, states } = world({ server });
  blotter.saveUserMessage("c", { id: "a", content: "1" });
  await clock.pass(6_900);
  blotter.saveUserMessage("c", { id: "b", content: "2" });
  assert.equal(log.length, 1);
  await clock.pass(200);
  assert.equal(log.length, 2);
  await clock.pass(4_800);
  assert.equal(log.length, 2);
  await clock.pass(400);
  assert.equal(blotter.unsaved, 0);
  assert.ok(states.includes("message a waiting"));
  assert.equal(states.at(-1).split(" ").at(-1), "stored");
  await blotter.dispose();
});

test("401 takes a fresh token once; a second 401 waits, says so, and loses nothing", async () => {
  const server = yesServer();
  server.state.answer = (entry) => (entry.headers.Authorization === "Bearer good" ? null : server.problem(401, "unauthenticated"));
  const given = ["old", "good"];
  const asked = [];
  const first = world({ server, blotter: { token: async (how) => (asked.push(how.fresh), given.shift()) } });
  first.blotter.saveUserMessage("c", { id: "a", content: "1" });
  await first.clock.pass(0);
  assert.deepEqual([asked, first.blotter.unsaved], [[false, true], 0]);
  await first.blotter.dispose();

  const second = world({ server, blotter: { token: "expired" } });
  let told = 0;
  second.blotter.addEventListener("unauthorized", () => told++);
  second.blotter.saveUserMessage("c", { id: "b", content: "2" });
  await second.clock.pass(0);
  assert.deepEqual([told, second.blotter.unsaved], [1, 1]);
  second.blotter.setToken("good");
  await second.clock.pass(0);
  assert.equal(second.blotter.unsaved, 0);
  await second.blotter.dispose();
});

test("what is refused for good is failed, with its reason, and does not hold up the rest", async () => {
  const server = yesServer();
  server.state.answer = (entry) => (JSON.stringify(entry.body).includes("bad") ? server.problem(422, "invalid") : null);
  const { clock, blotter, states } = world({ server });
  const refused = blotter.saveUserMessage("c", { id: "a", content: "bad" });
  blotter.saveUserMessage("c", { id: "b", content: "good" });
  blotter.saveUserMessage("c", { id: "d", content: "good too" });
  await clock.pass(0);
  await assert.rejects(refused, { status: 422 });
  assert.deepEqual(blotter.failures().map(({ id, error }) => [id, error.kind]), [["a", "invalid"]]);
  assert.deepEqual([blotter.stateOf("c", "message", "b"), blotter.stateOf("c", "message", "d")], ["stored", "stored"]);
  blotter.saveUserMessage("c", { id: "a", content: "mended" });
  await clock.pass(0);
  assert.equal(blotter.stateOf("c", "message", "a"), "stored");
  assert.ok(states.includes("message a failed"));
  await blotter.dispose();
});

test("what was refused is not out of the world with its page: the next one tells it, and can say it better", async () => {
  const server = yesServer();
  server.state.answer = ({ body }) => body?.content === "bad" && server.problem(422, "invalid");
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const first = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }) });
  await assert.rejects(first.blotter.saveUserMessage("c", { id: "u", content: "bad" }), { status: 422 });
  const view = { conversation: { id: "c", version: 2000 }, messages: [{ id: "u", role: "user", content: "older", version: 2000, stored: true }], toolResults: [], artifacts: [], version: 2000 };
  const { answer } = server.state;
  server.state.answer = (entry) => (entry.method === "GET" ? Response.json(view) : answer(entry));
  await first.blotter.loadConversation("c");
  assert.equal(first.blotter.failures()[0].fields.content, "bad");
  await first.clock.pass(100);
  first.page.die();
  const next = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }) });
  await next.blotter.replay();
  const [failure, ...others] = next.blotter.failures();
  assert.deepEqual([failure.id, failure.fields.content, failure.error.kind, others.length], ["u", "bad", "invalid", 0]);
  assert.deepEqual(next.states, ["message u failed"]);
  assert.equal(next.blotter.unsaved, 0);
  next.blotter.saveUserMessage("c", { id: "u", content: "good" });
  await next.clock.pass(100);
  assert.equal(next.blotter.failures().length, 0);
  await next.blotter.dispose();
  const last = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }) });
  await last.blotter.replay();
  assert.equal(last.blotter.failures().length, 0);
  await last.blotter.dispose();
});

test("of a message that was refused on one page and said better on the next, the better words go out", async () => {
  const server = yesServer();
  server.state.answer = ({ body }) => (body?.content === "bad" ? server.problem(422, "invalid") : Promise.reject(new TypeError("fetch failed")));
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  for (const content of ["bad", "good"]) {
    const page = new Page({ fetch: server.fetch, indexedDB, locks });
    const { blotter, clock } = world({ server, page });
    blotter.saveUserMessage("c", { id: "u", content });
    await clock.pass(100);
    page.die();
  }
  server.state.answer = null;
  const next = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }) });
  await next.blotter.replay();
  await next.clock.pass(100);
  assert.deepEqual([server.log.at(-1).body.content, next.blotter.failures().length, next.blotter.unsaved], ["good", 0, 0]);
  await next.blotter.dispose();
});

test("new messages are created in their order, together where several wait", async () => {
  const server = yesServer();
  server.state.answer = (_, init) => new Promise((next) => setImmediate(next, null));
  const { clock, blotter, log } = world({ server });
  for (let index = 0; index < 5; index++) blotter.saveUserMessage("c", { id: `m${index}`, content: "x" });
  await clock.pass(0);
  await clock.pass(0);
  const order = log.flatMap((entry) => entry.body.messages?.map((one) => one.id) ?? [entry.body.id]);
  assert.deepEqual(order, ["m0", "m1", "m2", "m3", "m4"]);
  assert.equal(log.length, 2, "the first alone, the rest in one sync");
  await blotter.dispose();
});

test("a buffered item is asked after until it is stored; a new epoch makes it go out again", async () => {
  const server = yesServer();
  server.state.stored = false;
  const { clock, blotter, log } = world({ server });
  blotter.saveUserMessage("c", { id: "a", content: "1" });
  await clock.pass(0);
  assert.equal(blotter.stateOf("c", "message", "a"), "buffered");
  await clock.pass(1_000);
  const question = log.at(-1);
  assert.deepEqual([question.body, question.headers.Prefer], [{ append: { offset: 0, text: "" } }, "wait=5"]);
  server.state.epoch = "e2";
  blotter.saveUserMessage("c", { id: "b", content: "2" });
  await clock.pass(0);
  const whole = log.filter((entry) => entry.body.id === "a");
  assert.deepEqual(whole.map((entry) => entry.body.revision), [1, 1], "the same words under the same revision");
  server.state.stored = true;
  await clock.pass(60_000);
  assert.equal(blotter.unstored, 0);
  await blotter.dispose();
});

test("an append that finds nothing, or a gap, is mended by what is missing", async () => {
  const server = yesServer();
  let gap = 0;
  server.state.answer = (entry) => {
    if (entry.method !== "PATCH" || !entry.body.append?.text) return null;
    if (++gap === 1) return server.problem(404, "not-found");
    if (gap === 2) {
      const current = { id: "r", role: "assistant", status: "streaming", content: "he", revision: null, version: 5, stored: false };
      return Response.json({ type: "/problems/append-gap", status: 409, length: 2, current }, { status: 409, headers: { "Content-Type": "application/problem+json" } });
    }
    return null;
  };
  const { clock, blotter, log } = world({ server });
  const reply = blotter.startReply("c", { id: "r" });
  await clock.pass(0);
  reply.append("hello");
  await clock.pass(300);
  assert.equal(log.at(-1).body.content, "hello", "the whole, after 404");
  reply.append(" world");
  await clock.pass(300);
  assert.deepEqual(log.at(-1).body.append, { offset: 2, text: "llo world" });
  await blotter.dispose();
});

test("leaving: what fits goes out with keepalive, below 60 KB in total; what does not waits in the outbox", async () => {
  const server = yesServer();
  let away = false;
  server.state.answer = () => (away ? null : new Promise(() => {}));
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const page = new Page({ fetch: server.fetch, indexedDB, locks });
  const { blotter, clock, log } = world({ server, page });
  await clock.pass(0);
  blotter.saveUserMessage("one", { id: "small", content: "s".repeat(20_000) });
  blotter.saveUserMessage("two", { id: "large", content: "€".repeat(70_000) });
  blotter.saveUserMessage("three", { id: "other", content: "o".repeat(20_000) });
  await clock.pass(0);
  away = true;
  log.length = 0;
  page.leave();
  page.die();
  await settle(60);
  const sent = log.filter((entry) => entry.keepalive);
  assert.deepEqual(sent.map((entry) => entry.body.id), ["small", "other"]);
  assert.ok(sent.reduce((sum, entry) => sum + Buffer.byteLength(JSON.stringify(entry.body)), 0) < 60_000);

  const next = new Page({ fetch: server.fetch, indexedDB, locks });
  log.length = 0;
  const again = world({ server, page: next });
  await settle(60);
  await again.clock.pass(1000);
  await again.clock.pass(0);
  assert.ok(log.some((entry) => entry.body?.id === "large" && entry.body.content.length === 70_000));
  await again.blotter.dispose();
});

/** A page that dies offline after `live`; resolves to the ids the next page creates, in order. */
async function createdAfterDeath(live) {
  const server = yesServer();
  const offline = () => Promise.reject(new TypeError("fetch failed"));
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const first = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }) });
  await first.clock.pass(100);
  await live(first, () => (server.state.answer = offline));
  first.page.die();
  const up = yesServer();
  const next = world({ server: up, page: new Page({ fetch: up.fetch, indexedDB, locks }) });
  await next.blotter.replay();
  await next.clock.pass(0);
  await next.blotter.dispose();
  return up.log.flatMap((entry) => entry.body?.messages?.map((one) => one.id) ?? [entry.body?.id]);
}

test("a stream that went on after a later message was said still stands before it on the next page", async () => {
  const ids = await createdAfterDeath(async ({ blotter, clock }, goOffline) => {
    const reply = blotter.startReply("c", { id: "reply" });
    await clock.pass(1_000); // its stub is acknowledged
    goOffline();
    blotter.saveUserMessage("c", { id: "later", content: "meanwhile" });
    await clock.pass(1_000);
    reply.append("more");
    await clock.pass(1_000);
  });
  assert.deepEqual(ids, ["reply", "later"]);
});

test("of two messages said in the same moment, the first stays the first though it was changed last", async () => {
  const ids = await createdAfterDeath(async ({ blotter, clock }, goOffline) => {
    goOffline();
    blotter.saveUserMessage("c", { id: "first", content: "1" });
    blotter.saveUserMessage("c", { id: "second", content: "2" });
    await clock.pass(1_000);
    blotter.saveUserMessage("c", { id: "first", content: "1, edited" });
    await clock.pass(1_000);
  });
  assert.deepEqual(ids, ["first", "second"]);
});

/** An outbox where something happens right after it was read, or right before rows are taken over: once. */
class Interrupted extends Outbox {
  async rows(account) {
    const rows = await super.rows(account);
    await this.#once("afterRows");
    return rows;
  }

  async claim(keys, tabs, tab) {
    await this.#once("beforeClaim");
    return super.claim(keys, tabs, tab);
  }

  async #once(name) {
    const run = this[name];
    this[name] = null;
    await run?.();
  }
}

/** Pages of one browser; the first has no line to the server, and said something that waits in the outbox. */
async function waiting() {
  const browser = { indexedDB: new IDBFactory(), locks: new Locks() };
  const down = yesServer();
  down.state.answer = () => Promise.reject(new TypeError("fetch failed"));
  const offline = () => world({ server: down, page: new Page({ fetch: down.fetch, ...browser }) });
  const first = offline();
  first.blotter.saveUserMessage("c", { id: "a", content: "1" });
  await first.clock.pass(100);
  const up = yesServer();
  const outbox = new Interrupted(browser.indexedDB);
  const next = () => world({ server: up, page: new Page({ fetch: up.fetch, ...browser }), blotter: { outbox } });
  return { first, offline, next, outbox, log: up.log };
}

test("what a page writes between being looked at and being gone is taken over together with the rest", async () => {
  const { first, next, outbox, log } = await waiting();
  outbox.afterRows = async () => {
    first.blotter.saveUserMessage("c", { id: "b", content: "2" });
    await first.clock.pass(100);
    first.page.die();
  };
  const second = next();
  await second.blotter.replay();
  await second.clock.pass(0);
  assert.deepEqual(log[0].body.messages?.map((one) => one.id), ["a", "b"]);
  await second.blotter.dispose();
});

test("what another tab takes over and leaves, dying at once, is not left for half a minute", async () => {
  const { first, offline, next, outbox, log } = await waiting();
  first.page.die();
  outbox.beforeClaim = async () => {
    const faster = offline();
    await faster.blotter.replay();
    faster.page.die();
  };
  const second = next();
  await second.blotter.replay();
  await second.clock.pass(0);
  assert.deepEqual(log.map((entry) => entry.body.content), ["1"]);
  await second.blotter.dispose();
});

test("beforeunload is listened to only while something is unacknowledged", async () => {
  const { blotter, page, clock } = world();
  const seen = [];
  const { addEventListener, removeEventListener } = page.window;
  page.window.addEventListener = (name, ...rest) => (seen.push(`+${name}`), addEventListener.call(page.window, name, ...rest));
  page.window.removeEventListener = (name, ...rest) => (seen.push(`-${name}`), removeEventListener.call(page.window, name, ...rest));
  blotter.saveUserMessage("c", { id: "a", content: "1" });
  await clock.pass(0);
  assert.deepEqual(seen, ["+beforeunload", "-beforeunload"]);
  await blotter.dispose();
});

test("without Web Locks a lease tells who lives: a living tab keeps its rows, a dead one's are taken over", async () => {
  const server = yesServer();
  server.state.answer = () => Promise.reject(new TypeError("fetch failed"));
  const indexedDB = new IDBFactory();
  const first = world({ server, indexedDB });
  first.blotter.saveUserMessage("c", { id: "a", content: "kept" });
  await first.clock.pass(100);
  first.page.die();

  const up = yesServer();
  const clock = new Clock();
  const page = new Page({ fetch: up.fetch, indexedDB, locks: null });
  const second = createBlotter({ token: "t", env: { ...page.env, now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout } });
  await clock.pass(60_000);
  assert.equal(up.log.length, 0, "the lease runs");
  await clock.pass(150_000);
  assert.deepEqual(up.log.map((entry) => entry.body.content), ["kept"]);
  await second.dispose();
});

test("another person's outbox stays closed", async () => {
  const server = yesServer();
  server.state.answer = () => Promise.reject(new TypeError("fetch failed"));
  const token = (sub) => `x.${Buffer.from(JSON.stringify({ sub })).toString("base64url")}.y`;
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const first = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }), blotter: { token: token("ann") } });
  first.blotter.saveUserMessage("c", { id: "a", content: "hers" });
  await first.clock.pass(100);
  await first.blotter.dispose();
  const up = yesServer();
  const bob = world({ server: up, page: new Page({ fetch: up.fetch, indexedDB, locks }), blotter: { token: token("bob") } });
  await bob.clock.pass(61_000);
  assert.equal(up.log.length, 0);
  await bob.blotter.dispose();
  const ann = world({ server: up, page: new Page({ fetch: up.fetch, indexedDB, locks }), blotter: { token: token("ann") } });
  await ann.clock.pass(1000);
  assert.equal(up.log.length, 1);
  await ann.blotter.dispose();
});

test("long offline: memory stays bounded, the outbox holds the rest, and all of it arrives in order", async () => {
  const server = yesServer();
  let online = false;
  server.state.answer = () => (online ? null : Promise.reject(new TypeError("fetch failed")));
  const { blotter, clock, log, page } = world({ server, page: new Page({ fetch: server.fetch, indexedDB: new IDBFactory(), locks: new Locks() }), blotter: { limits: { memoryChars: 40_000 } } });
  for (let index = 0; index < 100; index++) {
    blotter.saveUserMessage("c", { id: `m${String(index).padStart(3, "0")}`, content: "x".repeat(2_000) });
    await clock.pass(1_000);
  }
  await clock.pass(60_000);
  assert.ok(blotter.unsaved < 40, `${blotter.unsaved} in memory`);
  online = true;
  log.length = 0;
  page.window.dispatchEvent(new Event("online"));
  for (let turn = 0; turn < 40; turn++) await clock.pass(5_000);
  const ids = log.flatMap((entry) => entry.body?.messages?.map((one) => one.id) ?? (entry.body?.id ? [entry.body.id] : []));
  assert.deepEqual([...new Set(ids)], [...ids].sort().filter((id, at, all) => all.indexOf(id) === at));
  assert.equal(new Set(ids).size, 100);
  assert.equal(blotter.unsaved, 0);
  await blotter.dispose();
});

test("more than memory may hold was left behind: what the next page says comes after it, in conversations it has not opened too", async () => {
  const server = yesServer();
  let online = false;
  server.state.answer = () => (online ? null : Promise.reject(new TypeError("fetch failed")));
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const limits = { memoryChars: 8_000 };
  const first = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }), blotter: { limits } });
  for (const conversation of ["a", "b"]) {
    for (let index = 0; index < 3; index++) {
      first.blotter.saveUserMessage(conversation, { id: `${conversation}${index}`, content: "x".repeat(2_000) });
      await first.clock.pass(1_000);
    }
  }
  await first.blotter.dispose();
  const next = world({ server, page: new Page({ fetch: server.fetch, indexedDB, locks }), blotter: { limits } });
  await next.clock.pass(100);
  online = true;
  next.blotter.retry();
  next.blotter.saveUserMessage("b", { id: "b3", content: "said last" });
  for (let turn = 0; turn < 40; turn++) await next.clock.pass(5_000);
  assert.equal(next.blotter.unsaved, 0);
  const made = server.log.slice(-20).flatMap(({ path, body }) => (path.includes("/b/") ? (body?.messages?.map((one) => one.id) ?? [body?.id]) : []));
  assert.deepEqual([...new Set(made.filter((id) => id))].slice(-4), ["b0", "b1", "b2", "b3"]);
  await next.blotter.dispose();
});

test("acting for an owner: the header carries any name, as UTF-8", async () => {
  const { blotter, clock, log } = world({ blotter: { owner: "zoë 漢" } });
  blotter.saveUserMessage("c", { id: "a", content: "1" });
  await clock.pass(0);
  assert.equal(Buffer.from(log[0].headers["Blotter-Owner"], "latin1").toString(), "zoë 漢");
  await blotter.dispose();
});
