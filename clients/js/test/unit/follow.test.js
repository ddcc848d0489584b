/** What is heard of other pages: live events, from a server that says them at once. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createBlotter } from "../../blotter.js";
import { settle, yesServer } from "../support.js";

/** A yesServer whose events are `events`, once, on a stream that then stays open. */
function tellingServer(events) {
  const server = yesServer();
  server.state.answer = (entry) => {
    if (!entry.path.endsWith("/events")) return null;
    const text = `event: data\ndata: ${JSON.stringify(events)}\n\nevent: control\ndata: {"streamNextOffset":"2000_0","upToDate":true}\n\n`;
    const body = new ReadableStream({ start: (stream) => stream.enqueue(new TextEncoder().encode(text)) });
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
    if (entry.method !== "PATCH") return answer(entry);
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
