/** The demo chat's own decisions: branches, names, what is shown after the server's version took over. */

import assert from "node:assert/strict";
import { register } from "node:module";
import { test } from "node:test";

// As web serves them: modules, and the client at /static/blotter.js.
const client = new URL("../../blotter.js", import.meta.url).href;
register(`data:text/javascript,${encodeURIComponent(`
  export async function resolve(name, context, next) {
    if (name === "/static/blotter.js") return { url: ${JSON.stringify(client)}, shortCircuit: true };
    const found = await next(name, context);
    return found.url.includes("/web/static/") ? { ...found, format: "module" } : found;
  }
`)}`);
const demo = new URL("../../../../web/static/demo/", import.meta.url);
const { Chat, titleOf } = await import(new URL("chat.js", demo).href);
const { isThreaded, leafBelow, pathTo, shown, siblings } = await import(new URL("tree.js", demo).href);

const ids = (messages) => messages.map((message) => message.id);
/** q ─ a1 ─ q2 ─ b, and beside a1 a2 */
const TREE = [
  { id: "q", role: "user", parentId: null, position: "a" },
  { id: "a1", role: "assistant", parentId: "q", position: "b" },
  { id: "q2", role: "user", parentId: "a1", position: "c" },
  { id: "b", role: "assistant", parentId: "q2", position: "d" },
  { id: "a2", role: "assistant", parentId: "q", position: "e" },
];

test("the path to the head is shown; all of it where the head is none or unknown", () => {
  assert.deepEqual(ids(shown(TREE, "b")), ["q", "a1", "q2", "b"]);
  assert.deepEqual(ids(shown(TREE, "a2")), ["q", "a2"]);
  for (const head of [null, undefined, "gone"]) assert.deepEqual(ids(shown(TREE, head)), ids(TREE));
});

test("siblings stand in the order of their making, another branch is shown to its newest leaf", () => {
  assert.deepEqual(ids(siblings(TREE, TREE[4])), ["a1", "a2"]);
  assert.deepEqual(ids(siblings([...TREE].reverse(), TREE[1])), ["a1", "a2"]);
  assert.equal(leafBelow(TREE, "a1"), "b");
  assert.equal(leafBelow(TREE, "q"), "a2");
  assert.equal(leafBelow(TREE, "b"), "b");
});

test("parents that go in circles end", () => {
  const circle = [{ id: "x", parentId: "y", role: "user" }, { id: "y", parentId: "x", role: "user" }];
  assert.deepEqual(ids(pathTo(circle, "x")), ["y", "x"]);
  assert.equal(leafBelow(circle, "x"), "y");
});

test("messages without parents have no branches", () => {
  const flat = TREE.map((message) => ({ ...message, parentId: null }));
  assert.equal(isThreaded(flat, null), false);
  assert.equal(isThreaded(TREE.slice(0, 4), null), true);
  assert.equal(isThreaded([], null), true);
});

test("a title is the first line, cut at a word and never within a character", () => {
  assert.equal(titleOf("  Hello\nworld"), "Hello");
  assert.equal(titleOf("   "), "New chat");
  const long = titleOf("word ".repeat(40));
  assert.ok(long.endsWith("word…") && [...long].length <= 61, long);
  assert.ok(titleOf("😀".repeat(100)).isWellFormed());
});

/** A chat on a client that does nothing, with one message in view. */
function chatWith(t, message) {
  t.mock.timers.enable({ apis: ["setInterval"] }); // the chat's own would keep this process
  const blotter = Object.assign(new EventTarget(), { stateOf: () => undefined });
  const chat = new Chat(blotter, () => {});
  chat.id = "c";
  chat.view.messages = [message];
  const supersede = (current, conversationId = "c") =>
    blotter.dispatchEvent(new CustomEvent("superseded", { detail: { conversationId, kind: "message", id: "r", current } }));
  return { chat, supersede };
}

test("where what was done here gave way, the page shows what the server has", (t) => {
  const { chat, supersede } = chatWith(t, { id: "r", role: "assistant", status: "interrupted", statusReason: "stopped", version: 5, position: "a" });
  let changes = 0;
  chat.addEventListener("change", () => changes++);
  supersede({ id: "r", role: "assistant", status: "complete", statusReason: null, version: 6, position: "a" });
  assert.deepEqual([chat.view.messages[0].status, chat.view.messages.length, changes], ["complete", 1, 1]);
});

test("an older version, or one of another conversation, changes nothing on the page", (t) => {
  const { chat, supersede } = chatWith(t, { id: "r", role: "assistant", status: "complete", version: 7, position: "a" });
  supersede({ id: "r", role: "assistant", status: "streaming", version: 6, position: "a" });
  supersede({ id: "r", role: "assistant", status: "streaming", version: 9, position: "a" }, "other");
  assert.equal(chat.view.messages[0].status, "complete");
});

test("a message goes typing, buffered, stored; what the client says of waiting and failing stands first", (t) => {
  const { chat } = chatWith(t, { id: "r", role: "assistant", status: "streaming", version: 1 });
  assert.equal(chat.progress(chat.view.messages[0]), "typing");
  assert.equal(chat.progress({ id: "r", role: "assistant", status: "complete", stored: false }), "buffered");
  assert.equal(chat.progress({ id: "r", role: "assistant", status: "complete", stored: true }), "stored");
  assert.equal(chat.progress({ id: "u", role: "user", status: "complete", unsaved: true }), "waiting");
});

test("where live events cannot go on from, the conversation is read anew: it is deleted only where it says so itself", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const refused = (status) => Object.assign(new Error(`Status ${status}`), { status });
  const offsets = [];
  let deleted = false;
  const blotter = Object.assign(new EventTarget(), {
    stateOf: () => undefined,
    mintId: () => "new",
    loadConversation: async () => {
      if (deleted) throw refused(410);
      return { conversation: { id: "c" }, messages: [{ id: "r", role: "assistant", status: "complete" }], toolResults: [], artifacts: [], version: 7 + offsets.length };
    },
    follow: (id, { offset }) => {
      offsets.push(offset);
      // A buffer that was set back, deletions that were purged: the first offset is none any more.
      const done = offsets.length === 1 ? Promise.reject(refused(410)) : new Promise(() => {});
      return { close() {}, done };
    },
  });
  const pass = async (ms) => {
    await new Promise((next) => setImmediate(next));
    t.mock.timers.tick(ms);
    await new Promise((next) => setImmediate(next));
  };
  const chat = new Chat(blotter, () => {});
  chat.open("c");
  await pass(1000);
  assert.deepEqual([chat.state, offsets, ids(chat.view.messages)], ["open", [7, 8], ["r"]]);
  deleted = true;
  chat.begin();
  chat.open("c");
  await pass(1000);
  assert.deepEqual([chat.state, offsets.length, chat.view.messages], ["deleted", 2, []]);
});
