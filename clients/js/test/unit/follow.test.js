/** What is heard of other pages: live events, from a server that says them at once. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createBlotter } from "../../blotter.js";
import { yesServer } from "../support.js";

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
