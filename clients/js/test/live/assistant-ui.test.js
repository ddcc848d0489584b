/** The assistant-ui adapters against a running Blotter. Their types are checked in test/types. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { loadMessages } from "../../ai-sdk.js";
import { historyAdapter, threadListAdapter } from "../../assistant-ui.js";
import { createBlotter } from "../../blotter.js";
import { need, newChat, read } from "../support.js";

const open = () => createBlotter({ baseUrl: need("BASE_URL"), token: need("TOKEN") });

/** As @assistant-ui/react-ai-sdk has it. */
const aiSdkFormat = {
  format: "ai-sdk/v6",
  encode: ({ message: { id, parts, ...rest } }) => ({ ...rest, parts: parts.filter((part) => part.type !== "data-local") }),
  decode: (stored) => ({ parentId: stored.parent_id, message: { id: stored.id, ...stored.content } }),
  getId: (message) => message.id,
};
const message = (id, role, text, more = {}) => ({ id, role, parts: [{ type: "text", text }], ...more });

test("history: what was appended and updated is loaded; branches, metadata and unknown fields too", async () => {
  const blotter = open();
  const thread = newChat();
  const history = historyAdapter(blotter, () => thread).withFormat(aiSdkFormat);
  assert.deepEqual(await history.load(), { headId: null, messages: [] });
  const user = { parentId: null, message: message("u", "user", "Hi", { metadata: { a: 1 } }) };
  const one = { parentId: "u", message: message("a1", "assistant", "One", { extra: { kept: true } }) };
  const two = { parentId: "u", message: message("a2", "assistant", "Two") };
  await history.append(user);
  await history.append(one);
  await history.append(two);
  await history.update({ parentId: "u", message: message("a1", "assistant", "One, better", { extra: { kept: true } }) }, "a1");
  const other = open();
  const loaded = await historyAdapter(other, thread).withFormat(aiSdkFormat).load();
  assert.deepEqual(loaded, { headId: "a2", messages: [user, { ...one, message: { ...one.message, parts: [{ type: "text", text: "One, better" }] } }, two] });
  assert.deepEqual((await loadMessages(blotter, thread)).map(({ id }) => id), ["u", "a2"], "every other reader understands them");
  await other.dispose();
  await blotter.dispose();
});

test("history: an update is an upsert, deleting what was never there succeeds", async () => {
  const blotter = open();
  const thread = newChat();
  const history = historyAdapter(blotter, thread).withFormat(aiSdkFormat);
  await history.update({ parentId: null, message: message("new", "user", "never appended") }, "new");
  await history.delete([{ parentId: null, message: message("missing", "user", "") }]);
  await history.append({ parentId: "new", message: message("gone", "assistant", "x") });
  await history.delete([{ parentId: "new", message: message("gone", "assistant", "x") }]);
  assert.deepEqual((await history.load()).messages.map((item) => item.message.id), ["new"]);
  await blotter.dispose();
});

test("history: assistant-ui's own messages keep their dates", async () => {
  const blotter = open();
  const thread = newChat();
  const history = historyAdapter(blotter, thread);
  const item = { parentId: null, message: { id: "m", role: "user", createdAt: new Date(1_700_000_000_000), content: [{ type: "text", text: "Hi" }], attachments: [], metadata: { custom: {} } } };
  await history.append(item);
  assert.deepEqual(await history.load(), { headId: "m", messages: [item] });
  assert.equal((await read(thread)).messages[0].content, "Hi", "readable for those who know no assistant-ui");
  await assert.rejects(historyAdapter(blotter, () => undefined).append(item));
  await blotter.dispose();
});

test("history: a long thread is loaded from its first message on", async () => {
  const blotter = open();
  const thread = newChat();
  const all = Array.from({ length: 230 }, (_, at) => ({ id: `m${at}`, role: "user", parts: [], parentId: at ? `m${at - 1}` : null }));
  await blotter.syncConversationState(thread, { messages: all });
  const { messages } = await historyAdapter(blotter, thread).withFormat(aiSdkFormat).load();
  assert.deepEqual([messages.length, messages[0].parentId], [230, null]);
  await blotter.dispose();
});

test("thread list: made, named, archived, described, deleted, listed in pages", async () => {
  const blotter = open();
  const list = threadListAdapter(blotter);
  const { remoteId } = await list.initialize(newChat());
  await historyAdapter(blotter, remoteId).append({ parentId: null, message: { id: "m", role: "user", createdAt: new Date(), content: [{ type: "text", text: "How do I bake bread?" }] } });
  const title = list.generateTitle(remoteId, [{ role: "user", content: [{ type: "text", text: "How do I bake bread?" }] }]);
  const chunks = [];
  for await (const chunk of await title) chunks.push(chunk.textDelta ?? "");
  assert.equal(chunks.join(""), "How do I bake bread?");
  const long = list.generateTitle(remoteId, [{ role: "user", content: [{ type: "text", text: "😀".repeat(40) }] }]);
  for await (const chunk of await long) assert.ok((chunk.textDelta ?? "").isWellFormed(), "a title is never cut within a character");
  await list.rename(remoteId, "How do I bake bread?");
  await list.updateCustom(remoteId, { pinned: true });
  const found = await list.fetch(remoteId);
  assert.deepEqual([found.status, found.title, found.custom, found.lastMessageAt instanceof Date], ["regular", "How do I bake bread?", { pinned: true }, true]);
  await list.archive(remoteId);
  const all = [];
  for (let after; ; ) {
    const page = await list.list({ after });
    all.push(...page.threads);
    after = page.nextCursor;
    if (!after) break;
  }
  assert.equal(all.filter((thread) => thread.remoteId === remoteId).length, 1);
  assert.equal(all.find((thread) => thread.remoteId === remoteId).status, "archived");
  await list.unarchive(remoteId);
  await list.rename(remoteId, "Bread");
  assert.equal((await list.fetch(remoteId)).title, "Bread");
  await list.delete(remoteId);
  await assert.rejects(list.fetch(remoteId), { status: 410 });
  await blotter.dispose();
});
