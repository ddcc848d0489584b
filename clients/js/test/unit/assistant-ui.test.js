/** The assistant-ui adapters: what only the order of answers decides. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { historyAdapter } from "../../assistant-ui.js";
import { createBlotter } from "../../blotter.js";
import { settle, yesServer } from "../support.js";

test("a message is appended when it is kept and the conversation's head is", { timeout: 5000 }, async (t) => {
  const server = yesServer();
  let release = null;
  server.state.answer = (entry) => entry.body?.headId && new Promise((next) => (release = () => next(null)));
  const blotter = createBlotter({ token: "t", env: { fetch: server.fetch, indexedDB: null } });
  t.after(() => (release(), blotter.dispose()));
  let appended = false;
  const appending = historyAdapter(blotter, "c")
    .append({ parentId: null, message: { id: "m", role: "user", createdAt: new Date(0), content: [{ type: "text", text: "Hi" }] } })
    .then(() => (appended = true));
  while (release === null) await settle();
  await settle();
  assert.equal(appended, false);
  release();
  await appending;
});
