/** The client against a running Blotter: the eight methods, replies, two tabs, reading. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createBlotter, toolResultId } from "../../blotter.js";
import { need, newChat, read, soon } from "../support.js";

const open = (options = {}) =>
  createBlotter({ baseUrl: need("BASE_URL"), eventsUrl: process.env.EVENTS_URL || undefined, token: need("TOKEN"), limits: { confirmMs: 100 }, ...options });

test("the eight methods save what they are given", async () => {
  const blotter = open();
  const chat = newChat();
  await blotter.saveUserMessage(chat, { id: "u", content: "Hi", metadata: { z: 1, a: [null, "é"] } });
  await blotter.saveAssistantMessage(chat, { id: "a", parts: [{ type: "text", text: "Yes", state: "done" }] });
  await blotter.saveOrUpdateMessage(chat, { id: "a", metadata: { seen: true } });
  await blotter.saveToolResult(chat, { messageId: "a", toolCallId: "t", toolName: "find", input: { q: 1 }, state: "input-available" });
  await blotter.updateToolResult(chat, { messageId: "a", toolCallId: "t", output: [1, 2], state: "output-available" });
  await blotter.saveArtifact(chat, { id: "x", messageId: "a", kind: "code", title: "T", content: "1" });
  await blotter.updateArtifact(chat, { id: "x", content: "2" });
  await blotter.syncConversationState(chat, { conversation: { title: "All" }, messages: [{ id: "u2", role: "user", content: "Bye" }] });
  const view = await read(chat);
  assert.deepEqual(view.messages.map(({ id, role, content, parts, metadata, toolResultIds, artifactIds, status }) => ({ id, role, content, parts, metadata, toolResultIds, artifactIds, status })), [
    { id: "u", role: "user", content: "Hi", parts: null, metadata: { z: 1, a: [null, "é"] }, toolResultIds: [], artifactIds: [], status: "complete" },
    { id: "a", role: "assistant", content: null, parts: [{ type: "text", text: "Yes", state: "done" }], metadata: { seen: true }, toolResultIds: ["a.t"], artifactIds: ["x"], status: "complete" },
    { id: "u2", role: "user", content: "Bye", parts: null, metadata: null, toolResultIds: [], artifactIds: [], status: "complete" },
  ]);
  const [result] = view.toolResults;
  assert.deepEqual([result.id, result.toolName, result.state, result.input, result.output, result.status], [toolResultId("a", "t"), "find", "output-available", { q: 1 }, [1, 2], "complete"]);
  assert.deepEqual([view.artifacts[0].content, view.artifacts[0].versionNumber, view.conversation.title], ["2", 2, "All"]);
  assert.deepEqual((await blotter.artifactVersions(chat, "x")).versions.map(({ content }) => content), ["1", "2"]);
  assert.ok(await blotter.flush({ until: "stored", timeoutMs: 10_000 }));
  await blotter.dispose();
});

test("saving the same again asks nothing of the server; saving until stored waits for it", async () => {
  let calls = 0;
  const blotter = open({ env: { fetch: (...args) => (calls++, fetch(...args)) } });
  const chat = newChat();
  const saved = await blotter.saveUserMessage(chat, { id: "u", content: "Hi" }, { until: "stored" });
  assert.equal(saved.state, "stored");
  const before = calls;
  await blotter.saveUserMessage(chat, { id: "u", content: "Hi" });
  await blotter.syncConversationState(chat, { messages: [{ id: "u", role: "user", content: "Hi" }] });
  assert.equal(calls, before);
  await blotter.dispose();
});

test("two tabs edit one message: the later edit stands, neither is stuck, other fields survive", async () => {
  const [one, two] = [open(), open()];
  const chat = newChat();
  await one.saveUserMessage(chat, { id: "u", content: "first", metadata: { by: "one" } });
  await two.loadConversation(chat);
  await one.saveOrUpdateMessage(chat, { id: "u", metadata: { by: "one again" } });
  await two.saveOrUpdateMessage(chat, { id: "u", content: "second" });
  await one.saveOrUpdateMessage(chat, { id: "u", content: "third" });
  const [message] = (await read(chat)).messages;
  assert.deepEqual([message.content, message.metadata], ["third", { by: "one again" }]);
  await Promise.all([one.renameConversation(chat, "A"), two.renameConversation(chat, "B")]);
  assert.ok(["A", "B"].includes((await read(chat)).conversation.title));
  assert.deepEqual([one.unsaved, two.unsaved, one.failures(), two.failures()], [0, 0, [], []]);
  await one.dispose();
  await two.dispose();
});

test("a reply stopped in another tab stays stopped: this one's older snapshot gives way", async () => {
  const [writer, other] = [open(), open()];
  const chat = newChat();
  let told = null;
  writer.addEventListener("superseded", ({ detail }) => (told = detail.current.status));
  const reply = writer.startReply(chat, { id: "r" });
  reply.append("some words");
  await writer.flush();
  await other.loadConversation(chat);
  await other.saveOrUpdateMessage(chat, { id: "r", status: "interrupted", statusReason: "stopped elsewhere" });
  reply.append(" that come too late");
  await writer.flush({ timeoutMs: 5000 });
  assert.equal(told, "interrupted");
  assert.equal(reply.ended, true);
  const [message] = (await read(chat)).messages;
  assert.deepEqual([message.status, message.content], ["interrupted", "some words"]);
  await writer.dispose();
  await other.dispose();
});

test("deleted stays deleted: for late saves, and for the page that did not know", async () => {
  const [one, two] = [open(), open()];
  const chat = newChat();
  await one.saveUserMessage(chat, { id: "u", content: "x" });
  await one.saveUserMessage(chat, { id: "v", content: "y" });
  await two.loadConversation(chat);
  await one.deleteMessage(chat, "u");
  await one.deleteMessage(chat, "never-was");
  await assert.rejects(two.saveOrUpdateMessage(chat, { id: "u", content: "late" }), { status: 410 });
  assert.deepEqual((await read(chat)).messages.map(({ id }) => id), ["v"]);
  await one.deleteConversation(chat);
  await assert.rejects(two.saveUserMessage(chat, { id: "w", content: "late" }), { status: 410 });
  assert.equal((await read(chat)).status, 410);
  await one.dispose();
  await two.dispose();
});

test("lists, names, archives and heads", async () => {
  const blotter = open();
  const chat = newChat();
  await blotter.createConversation({ id: chat, title: "New" });
  await blotter.saveUserMessage(chat, { id: "u", content: "x" });
  await blotter.saveAssistantMessage(chat, { id: "a", parentId: "u", content: "one" });
  await blotter.saveAssistantMessage(chat, { id: "b", parentId: "u", content: "two" });
  await blotter.setHead(chat, "b");
  assert.deepEqual((await blotter.loadConversation(chat)).messages.map(({ id }) => id), ["u", "b"]);
  assert.ok((await blotter.listConversations({ limit: 200 })).conversations.some(({ id }) => id === chat));
  await blotter.archiveConversation(chat);
  assert.ok((await blotter.listConversations({ archived: true, limit: 200 })).conversations.some(({ id }) => id === chat));
  await assert.rejects(blotter.loadConversation(newChat()), { status: 404 });
  await blotter.dispose();
});

test("what cannot be kept is refused with its reason; odd ids and characters are made fit", async () => {
  const blotter = open();
  const chat = newChat();
  await assert.rejects(blotter.saveUserMessage(chat, { id: "bad id", content: "x" }), { status: 422 });
  await blotter.saveToolResult(chat, { messageId: "m", toolCallId: "functions.find:0 / 漢", output: "a\ud800\0b", state: "output-available" });
  const { toolResults } = await read(chat);
  assert.deepEqual([toolResults[0].toolCallId, toolResults[0].output], ["functions.find:0 / 漢", "a\ufffd\ufffdb"]);
  await blotter.dispose();
});

test("a long reply costs its length, not its square", async () => {
  let bytes = 0;
  const blotter = open({ env: { fetch: (url, init) => ((bytes += init.body?.length ?? 0), fetch(url, init)) } });
  const chat = newChat();
  const reply = blotter.startReply(chat, { id: "r" });
  let text = "";
  for (let word = 0; word < 3000; word++) {
    const next = `word${word} `;
    text += next;
    reply.append(next);
    if (word % 50 === 0) await soon(1);
  }
  await reply.complete();
  assert.equal((await read(chat)).messages[0].content, text);
  assert.ok(bytes < text.length * 2.5, `${bytes} for ${text.length}`);
  await blotter.dispose();
});

test("a reader follows a reply that somebody else writes, to its end", { skip: !process.env.EVENTS_URL && "no events server" }, async () => {
  const [writer, reader] = [open(), open()];
  const chat = newChat();
  await writer.saveUserMessage(chat, { id: "u", content: "Hi" });
  const reply = writer.startReply(chat, { id: "r", parentId: "u" });
  reply.append("The beginning. ");
  await writer.flush();
  const seen = [];
  const done = (async () => {
    for await (const message of reader.followMessage(chat, "r")) seen.push([message.content, message.status]);
  })();
  for (let word = 0; word < 30; word++) {
    reply.append(`word ${word} 😀 `);
    await soon(15);
  }
  await reply.complete();
  await done;
  const text = reply.text;
  assert.deepEqual(seen.at(-1), [text, "complete"]);
  assert.ok(seen.length > 3, `${seen.length} steps`);
  assert.ok(seen.every(([content]) => text.startsWith(content ?? "")), "never anything but the text's beginning");
  await writer.dispose();
  await reader.dispose();
});

test("stored comes by event where the conversation is followed", { skip: !process.env.EVENTS_URL && "no events server" }, async () => {
  const blotter = open({ limits: { confirmMs: 60_000, autosaveMs: 60_000 } });
  const chat = newChat();
  await blotter.saveUserMessage(chat, { id: "u", content: "Hi" });
  const following = blotter.follow(chat);
  for (let tries = 0; tries < 200 && blotter.unstored > 0; tries++) await soon(50);
  assert.equal(blotter.stateOf(chat, "message", "u"), "stored");
  following.close();
  await blotter.dispose();
});
