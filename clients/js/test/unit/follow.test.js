/** What is heard of other pages: live events, from a server that says them at once. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createBlotter } from "../../blotter.js";
import { settle, yesServer } from "../support.js";

/** A yesServer whose events are `events`, once, on a stream that then stays open; `closed`: that is over with them. */
function tellingServer(events, { closed = false } = {}) {
  const server = yesServer();
  server.state.answer = (entry, { signal }) => {
    if (!entry.path.endsWith("/events")) return null;
    const control = { streamNextOffset: "2000_0", upToDate: true, ...(closed ? { streamClosed: true } : {}) };
    const text = `event: data\ndata: ${JSON.stringify(events)}\n\nevent: control\ndata: ${JSON.stringify(control)}\n\n`;
    const body = new ReadableStream({
      start: (stream) => {
        stream.enqueue(new TextEncoder().encode(text));
        signal.addEventListener("abort", () => stream.error(signal.reason));
        if (closed) stream.close();
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
  return server;
}

test("a field that another page changed can be set back", async () => {
  const theirs = { id: "c", title: null, metadata: null, archived: false, headId: "theirs", revision: 2, version: 1500, stored: true };
  const server = tellingServer([{ type: "item", kind: "conversation", version: 1500, item: theirs }]);
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  await blotter.setHead("c", "mine");
  await new Promise((told) => blotter.follow("c", { onUpToDate: told }));
  await blotter.setHead("c", "mine");
  const saves = server.log.filter((entry) => entry.method === "PATCH").map((entry) => entry.body);
  assert.deepEqual(saves, [
    { headId: "mine", revision: 1 },
    { headId: "mine", revision: 3 },
  ]);
  await blotter.dispose();
});

test("an answer that was asked for before something newer was heard takes nothing for lost", async () => {
  const theirs = { id: "m", role: "assistant", content: "grown", parts: null, metadata: null, parentId: null, status: "streaming", statusReason: null, toolResultIds: [], artifactIds: [], revision: null, version: 1500, stored: false };
  const server = tellingServer([{ type: "item", kind: "message", version: 1500, item: theirs }]);
  const { answer } = server.state;
  let release;
  let asked;
  const question = new Promise((seen) => (asked = seen));
  server.state.stored = false;
  server.state.answer = (entry, { signal }) => {
    if (entry.method !== "PATCH") return answer(entry, { signal });
    asked();
    const body = { id: "m", outcome: "accepted", revision: null, version: 1400, state: "stored", length: 0, bufferEpoch: "e1" };
    return new Promise((next, fail) => {
      release = () => next(Response.json(body));
      signal.addEventListener("abort", () => fail(signal.reason));
    });
  };
  const blotter = createBlotter({ token: "t", limits: { confirmMs: 10 }, env: { fetch: server.fetch, indexedDB: null } });
  await blotter.saveAssistantMessage("c", { id: "m", status: "pending", content: "" });
  await question;
  await new Promise((told) => blotter.follow("c", { onUpToDate: told }));
  const before = server.log.length;
  release();
  await settle();
  assert.deepEqual(server.log.slice(before).filter((entry) => entry.method !== "PATCH"), []);
  await blotter.dispose();
});

test("whoever disposes of it ends what is under way", { timeout: 5000 }, async () => {
  const server = yesServer();
  let aborted;
  const ended = new Promise((next) => (aborted = next));
  server.state.answer = (entry, { signal }) => new Promise((_, fail) => signal.addEventListener("abort", () => (aborted(), fail(signal.reason))));
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  const reading = blotter.loadConversation("c");
  await settle();
  await blotter.dispose();
  await ended;
  await assert.rejects(reading);
});

const WRITTEN = { id: "r", role: "assistant", content: "so far", parts: null, status: "streaming", version: 1000, stored: false };

/** The same, where a reply is being written; `state.reading` counts the streams that are open. */
function writingServer(events, options) {
  const server = tellingServer(events, options);
  const { answer } = server.state;
  server.state.reading = 0;
  server.state.answer = (entry, init) => {
    const view = { conversation: { id: "c", title: null, version: 1000 }, messages: [WRITTEN], toolResults: [], artifacts: [], version: 1000, inFlight: true };
    if (entry.method === "GET" && entry.path.endsWith("/c")) return Response.json(view);
    if (entry.path.endsWith("/events")) {
      server.state.reading++;
      init.signal.addEventListener("abort", () => server.state.reading--);
    }
    return answer(entry, init);
  };
  return server;
}

async function all(values) {
  const list = [];
  for await (const value of values) list.push(value);
  return list;
}

test("a reply whose conversation is deleted comes to an end: it is not waited for", { timeout: 5000 }, async () => {
  const gone = { type: "item", kind: "conversation", version: 1500, item: { id: "c", version: 1500, deletedAt: "2026-01-01T00:00:00Z" } };
  const server = writingServer([gone], { closed: true });
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  const seen = [];
  await assert.rejects(
    async () => {
      for await (const message of blotter.followMessage("c", "r")) seen.push(message.content);
    },
    { status: 410 },
  );
  assert.deepEqual(seen, ["so far"]);
  assert.equal(server.log.filter((entry) => entry.path.endsWith("/events")).length, 1);
  await blotter.dispose();
});

test("whoever disposes of it hears no more: streams are closed, and who waits for a reply waits no longer", { timeout: 5000 }, async () => {
  const server = writingServer([]);
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  const reading = all(blotter.followMessage("c", "r"));
  const live = blotter.follow("c");
  await settle();
  assert.equal(server.state.reading, 2);
  await blotter.dispose();
  await live.done;
  assert.deepEqual((await reading).map((message) => message.content), ["so far"]);
  assert.equal(server.state.reading, 0);
});

test("a token that is refused ends following, and waiting for a reply, with that", { timeout: 5000 }, async () => {
  const server = writingServer([]);
  const { answer } = server.state;
  let asked = 0;
  server.state.answer = (entry, init) => {
    if (!entry.path.endsWith("/events") && !entry.path.endsWith("/r")) return answer(entry, init);
    asked++;
    return server.problem(401, "unauthenticated");
  };
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  await assert.rejects(blotter.follow("c").done, { status: 401 });
  assert.equal(asked, 1);
  await assert.rejects(all(blotter.followMessage("c", "r", { pollMs: 1 })), { status: 401 });
  assert.equal(asked, 3);
  await blotter.dispose();
});

test("where an app passes no live events on, a reply is asked for instead", { timeout: 5000 }, async () => {
  const server = writingServer([]);
  const { answer } = server.state;
  server.state.answer = (entry, init) => {
    if (entry.path.endsWith("/events")) return Response.json({}, { status: 404 });
    if (entry.path.endsWith("/r")) return Response.json({ ...WRITTEN, content: "so far, so good", status: "complete", version: 1500 });
    return answer(entry, init);
  };
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  await assert.rejects(blotter.follow("c").done, { status: 404 });
  const seen = await all(blotter.followMessage("c", "r", { pollMs: 1 }));
  assert.deepEqual(seen.map((message) => message.content), ["so far", "so far, so good"]);
  await blotter.dispose();
});

test("where there were live events, a proxy that knows of none for a while ends nothing", { timeout: 5000 }, async () => {
  const server = tellingServer([], { closed: true });
  const { answer } = server.state;
  const answers = [
    () => new Response("", { headers: { "Content-Type": "text/event-stream" } }),
    () => new Response("404 page not found", { status: 404 }),
  ];
  server.state.answer = (entry, init) => (entry.path.endsWith("/events") && answers.length ? answers.shift()() : answer(entry, init));
  const limits = { backoffMs: 1, backoffMaxMs: 1 };
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null }, limits });
  await blotter.follow("c").done;
  assert.equal(server.log.filter((entry) => entry.path.endsWith("/events")).length, 3);
  await blotter.dispose();
});
