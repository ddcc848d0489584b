/** What lies between page and server: tokens that hang, other people's answers, connections that are dead, clocks set back. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { IDBFactory } from "fake-indexeddb";

import { createBlotter } from "../../blotter.js";
import { Clock, Locks, Page, settle, yesServer } from "../support.js";

function world({ server = yesServer(), page = new Page({ fetch: server.fetch, indexedDB: null, locks: null }), clock = new Clock(), env, ...options } = {}) {
  const blotter = createBlotter({
    token: "t",
    ...options,
    env: { ...page.env, now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout, random: () => 0.5, ...env },
  });
  return { clock, server, page, blotter, log: server.log };
}

const unauthorized = (server, refused) => {
  server.state.answer = ({ headers }) => (refused.has(headers.Authorization) ? server.problem(401, "unauthenticated") : null);
};

test("a token function that never answers is given up like a request, and asked again", async () => {
  let asked = 0;
  const { clock, blotter, log } = world({ token: () => (++asked < 3 ? new Promise(() => {}) : "good") });
  const saved = blotter.saveUserMessage("c", { id: "u", content: "hello" });
  await clock.pass(29_000);
  assert.deepEqual([asked, blotter.unsaved], [1, 1]);
  await clock.pass(100_000);
  assert.equal((await saved).state, "stored");
  assert.equal(log[0].headers.Authorization, "Bearer good");
  assert.equal(blotter.stateOf("c", "message", "u"), "stored");
  await blotter.dispose();
});

test("a fresh token that never comes holds up nothing for ever", async () => {
  const server = yesServer();
  unauthorized(server, new Set(["Bearer old"]));
  let hangs = 2;
  const { clock, blotter } = world({ server, token: ({ fresh }) => (!fresh ? "old" : hangs-- > 0 ? new Promise(() => {}) : "new") });
  const saved = blotter.saveUserMessage("c", { id: "u", content: "hello" });
  await clock.pass(120_000);
  assert.equal((await saved).state, "stored");
  await blotter.dispose();
});

const tokenOf = (sub, serial = 0) => `x.${Buffer.from(JSON.stringify({ sub, serial })).toString("base64url")}.y`;

test("what one person said never goes out under another's token, whoever is signed in by now", async () => {
  const server = yesServer();
  unauthorized(server, new Set([`Bearer ${tokenOf("ann")}`])); // it ran out
  let signedIn = "bob";
  const { clock, blotter, log } = world({ server, token: async ({ fresh }) => (fresh ? tokenOf(signedIn, 1) : tokenOf("ann")) });
  const told = [];
  blotter.addEventListener("unauthorized", ({ detail }) => told.push(detail.error.status));
  const saved = blotter.saveUserMessage("c", { id: "u", content: "hers" });
  await clock.pass(60_000);
  await assert.rejects(blotter.follow("c", {}).done, { status: 401 });
  await assert.rejects(blotter.listConversations(), { status: 401 });
  assert.deepEqual(log.filter(({ headers }) => headers.Authorization === `Bearer ${tokenOf("bob", 1)}`), []);
  assert.deepEqual([blotter.unsaved, told[0]], [1, 401]);
  signedIn = "ann";
  await clock.pass(60_000);
  await saved;
  assert.equal(log.at(-1).headers.Authorization, `Bearer ${tokenOf("ann", 1)}`);
  await blotter.dispose();
});

test("setToken takes a fresh token of the same person, and nobody else's", async () => {
  const { clock, blotter, log } = world({ token: tokenOf("ann") });
  assert.throws(() => blotter.setToken(tokenOf("bob")), { status: 401 });
  blotter.saveUserMessage("c", { id: "u", content: "hers" });
  await clock.pass(0);
  blotter.setToken(tokenOf("ann", 1));
  blotter.saveUserMessage("c", { id: "v", content: "hers too" });
  await clock.pass(0);
  assert.deepEqual(log.map(({ headers }) => headers.Authorization), [`Bearer ${tokenOf("ann")}`, `Bearer ${tokenOf("ann", 1)}`]);
  await blotter.dispose();
});

test("a backend that acts for an owner may change its own token", async () => {
  const { clock, blotter, log } = world({ token: tokenOf("service"), owner: "ann" });
  blotter.setToken(tokenOf("service-2"));
  blotter.saveUserMessage("c", { id: "u", content: "hers" });
  await clock.pass(0);
  assert.equal(log[0].headers.Authorization, `Bearer ${tokenOf("service-2")}`);
  await blotter.dispose();
});

test("however many requests are refused at once, one fresh token is asked for", async () => {
  const server = yesServer();
  unauthorized(server, new Set(["Bearer 0"]));
  let asked = 0;
  const { clock, blotter } = world({ server, token: async ({ fresh }) => (fresh ? String(++asked) : "0") });
  for (const conversation of ["a", "b", "c", "d"]) blotter.saveUserMessage(conversation, { id: "u", content: "hello" });
  await clock.pass(1000);
  assert.deepEqual([blotter.unsaved, asked], [0, 1]);
  await blotter.dispose();
});

for (const [what, answer] of [
  ["a proxy's page", () => new Response("<h1>Sign in</h1>", { headers: { "Content-Type": "text/html" } })],
  ["a proxy that knows no such place", () => new Response("404 page not found", { status: 404, headers: { "Content-Type": "text/plain" } })],
  ["a gateway's JSON", () => Response.json({ message: "no Route matched with those values" }, { status: 404 })],
  ["an empty 200", () => new Response("")],
  ["half an answer", () => new Response('{"version": 10', { headers: { "Content-Type": "application/json" } })],
]) {
  test(`${what} acknowledges nothing: it is said again`, async () => {
    const server = yesServer();
    let between = true;
    server.state.answer = () => (between ? answer() : null);
    const { clock, blotter, log } = world({ server });
    const states = [];
    blotter.addEventListener("state", ({ detail }) => states.push(detail.state));
    const saved = blotter.saveUserMessage("c", { id: "u", content: "hello" });
    const gone = blotter.deleteMessage("c", "old");
    await clock.pass(5_000);
    assert.deepEqual([blotter.unsaved, states.includes("buffered"), states.includes("stored")], [2, false, false]);
    between = false;
    await clock.pass(60_000);
    await Promise.all([saved, gone]);
    assert.ok(log.some(({ method }) => method === "DELETE"));
    await blotter.dispose();
  });
}

for (const [header, least, most] of [
  ["7", 6_900, 9_000],
  [new Date(1_750_000_000_000 + 20_000).toUTCString(), 19_000, 22_000],
  ["soon", 0, 1_000],
  ["-5", 0, 1_000],
  ["99999999999", 299_000, 302_000],
  ["Fri, 31 Dec 9999 23:59:59 GMT", 299_000, 302_000],
]) {
  test(`Retry-After: ${header}`, async () => {
    const server = yesServer();
    let busy = true;
    server.state.answer = () => busy && server.problem(503, "buffer-full", { "Retry-After": header });
    const { clock, blotter, log } = world({ server });
    const saved = blotter.saveUserMessage("c", { id: "u", content: "hello" });
    await clock.pass(0);
    busy = false;
    if (least) await clock.pass(least);
    assert.equal(log.length, 1);
    await clock.pass(most - least);
    assert.equal((await saved).state, "stored");
    await blotter.dispose();
  });
}

test("a clock set back holds nothing up, and what is said then still comes after what was said before", async () => {
  const server = yesServer();
  server.state.answer = () => server.problem(503, "buffer-unavailable");
  let back = 0;
  const clock = new Clock();
  const { blotter: page, log } = world({ server, clock, env: { now: () => clock.now() - back, ticks: clock.now } });
  page.saveUserMessage("c", { id: "first", content: "1" });
  const reply = page.startReply("d", { id: "r" });
  reply.append("some");
  await clock.pass(1000);
  back = 3_600_000;
  page.saveUserMessage("c", { id: "second", content: "2" });
  server.state.answer = null;
  await clock.pass(60_000);
  assert.equal(page.unsaved, 0);
  const created = log.flatMap(({ body }) => body.messages ?? (body.role ? [body] : [])).map(({ id }) => id);
  assert.deepEqual(created.filter((id) => id !== "r").slice(-2), ["first", "second"]);
  await page.dispose();
});

test("a reply that is complete before its id is sure is kept under that id", async () => {
  const { clock, blotter, log } = world();
  let name;
  const reply = blotter.startReply("c", { id: new Promise((sure) => (name = sure)) });
  reply.append("all of it \ud83d");
  const done = reply.complete({ metadata: { n: 1 } });
  await clock.pass(5_000);
  assert.equal(log.length, 0);
  name("late");
  await clock.pass(1_000);
  assert.equal((await done).id, "late");
  const end = log.at(-1).body;
  assert.deepEqual([log[0].body.id, end.content, end.status, end.metadata], ["late", "all of it \ufffd", "complete", { n: 1 }]);
  await blotter.dispose();
});

test("a reply whose id is refused is kept all the same", async () => {
  for (const ended of [false, true]) {
    const { clock, blotter, log } = world();
    let refuse;
    const reply = blotter.startReply("c", { id: new Promise((_, no) => (refuse = no)) });
    reply.append("words");
    if (ended) reply.complete();
    refuse(new Error("no id"));
    await clock.pass(1_000);
    const end = log.at(-1).body;
    assert.deepEqual([end.append?.text ?? end.content, end.status], ["words", ended ? "complete" : "error"]);
    assert.equal(blotter.unsaved, 0);
    await blotter.dispose();
  }
});

test("events go on after a token ran out while the server was away", async () => {
  const server = yesServer();
  let token = 1;
  let valid = 1;
  const sent = [];
  const down = [];
  server.state.answer = (entry) => {
    if (!entry.path.endsWith("/events")) return null;
    sent.push(entry.headers.Authorization);
    if (down.length) return down.shift();
    if (entry.headers.Authorization !== `Bearer ${valid}`) return server.problem(401, "unauthenticated");
    const text = 'event: control\ndata: {"streamNextOffset":"1","upToDate":true}\n\n';
    return new Response(text, { headers: { "Content-Type": "text/event-stream" } });
  };
  const { clock, blotter } = world({ server, token: async ({ fresh }) => String(fresh ? (token = valid) : token) });
  let reached = 0;
  const following = blotter.follow("c", { onUpToDate: () => reached++ });
  await clock.pass(100);
  assert.ok(reached > 0);
  for (let round = 0; round < 3; round++) {
    valid++;
    down.push(server.problem(503, "buffer-unavailable"), server.problem(503, "buffer-unavailable"));
    reached = 0;
    await clock.pass(20_000);
    assert.ok(reached > 0, `round ${round}: ${sent.slice(-5)}`);
  }
  following.close();
  await clock.pass(60_000);
  await following.done;
  await blotter.dispose();
});

test("a token that is refused, and a fresh one as well, ends following with its reason", async () => {
  const server = yesServer();
  server.state.answer = (entry) => (entry.path.endsWith("/events") ? server.problem(401, "unauthenticated") : null);
  const { blotter, log } = world({ server, token: async () => "bad" });
  await assert.rejects(blotter.follow("c", {}).done, { status: 401 });
  assert.equal(log.length, 2);
  await blotter.dispose();
});

test("a listener that throws ends following with what it threw, instead of hearing the same again and again", async () => {
  const server = yesServer();
  server.state.answer = (entry) => {
    if (!entry.path.endsWith("/events")) return null;
    const text = 'event: data\ndata: [{"type":"stored","kind":"message","id":"m","version":1}]\n\nevent: control\ndata: {"streamNextOffset":"1","upToDate":true}\n\n';
    return new Response(text, { headers: { "Content-Type": "text/event-stream" } });
  };
  for (const name of ["onEvent", "onUpToDate"]) {
    const { clock, blotter, log } = world({ server });
    const before = log.length;
    const { done } = blotter.follow("c", { [name]: () => assert.fail("my own fault") });
    await clock.pass(60_000);
    await assert.rejects(done, { message: "my own fault" });
    assert.equal(log.length - before, 1);
    await blotter.dispose();
  }
});

test("events of a connection that died without a word are asked for anew", async () => {
  const server = yesServer();
  let streams = 0;
  let beat;
  server.state.answer = (entry) => {
    if (!entry.path.endsWith("/events")) return null;
    streams++;
    const body = new ReadableStream({ start: (stream) => void (beat = () => stream.enqueue(new TextEncoder().encode(":\n\n"))) });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
  const { clock, blotter } = world({ server });
  const following = blotter.follow("c", {});
  await clock.pass(0);
  beat();
  for (let at = 0; at < 8; at++) {
    await clock.pass(15_000);
    beat();
  }
  await settle();
  assert.equal(streams, 1, "the server said that it lives");
  await clock.pass(60_000);
  assert.equal(streams, 2);
  following.close();
  await following.done;
  await blotter.dispose();
});

test("an outbox that another page deletes, or the browser drops, is opened anew", async () => {
  const server = yesServer();
  server.state.answer = () => server.problem(503, "buffer-unavailable");
  const factory = new IDBFactory();
  const locks = new Locks();
  const page = new Page({ fetch: server.fetch, indexedDB: factory, locks });
  const blotter = createBlotter({ token: "t", env: page.env });
  await blotter.replay();
  await new Promise((done, fail) => Object.assign(factory.deleteDatabase("blotter"), { onsuccess: done, onerror: fail }));
  blotter.saveUserMessage("c", { id: "u", content: "said after that" });
  await new Promise((next) => setTimeout(next, 50));
  page.die();
  server.state.answer = null;
  const next = new Page({ fetch: server.fetch, indexedDB: factory, locks });
  const other = createBlotter({ token: "t", env: next.env });
  await other.replay();
  assert.ok(await other.flush({ timeoutMs: 2000 }));
  assert.equal(server.log.at(-1).body?.content, "said after that");
  await other.dispose();
});

test("events that a proxy holds back to their end come by long polls; where those fail, a stream is tried again", async () => {
  const server = yesServer();
  const asked = [];
  const answers = [];
  server.state.answer = ({ path }, { signal }) => {
    if (!path.endsWith("/events")) return null;
    const answer = asked.at(-1).live === "sse" ? undefined : answers.shift();
    return answer ?? new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
  };
  const fetch = (url, init) => {
    const query = new URL(url, "http://x").searchParams;
    if (query.has("live")) asked.push({ live: query.get("live"), offset: query.get("offset") });
    return server.fetch(url, init);
  };
  const { clock, blotter } = world({ server, env: { fetch } });
  const heard = [];
  const at = (offset) => ({ "Stream-Next-Offset": offset, "Stream-Up-To-Date": "true" });
  answers.push(
    Response.json([{ type: "stored", kind: "message", id: "m", version: 1 }], { headers: at("1_0") }),
    new Response(null, { status: 204, headers: at("1_0") }),
  );
  const following = blotter.follow("c", { onEvent: ({ id }) => heard.push(id), onUpToDate: (offset) => heard.push(offset) });
  await clock.pass(12_000);
  assert.deepEqual(heard, ["m", "1_0", "1_0"]);
  assert.deepEqual(asked, [{ live: "sse", offset: "-1" }, ...["-1", "1_0", "1_0"].map((offset) => ({ live: "long-poll", offset }))]);
  await clock.pass(51_000);
  assert.deepEqual(asked.at(-1), { live: "sse", offset: "1_0" });
  await clock.pass(11_000);
  answers.push(new Response("[]", { headers: { ...at("2_0"), "Stream-Closed": "true" } }));
  await clock.pass(70_000);
  await following.done;
  assert.equal(following.offset, "2_0");
  await blotter.dispose();
});
