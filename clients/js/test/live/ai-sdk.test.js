/** The real `ai` and `@ai-sdk/react`, driven through Chat: what is stored equals the SDK's own final messages. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Chat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithToolCalls, readUIMessageStream } from "ai";

import { chunksBetween, loadMessages, saveMessages, watchChat, withBlotter } from "../../ai-sdk.js";
import { createBlotter } from "../../blotter.js";
import { badNetwork, dice, need, newChat, randomChunks, randomText, read, soon } from "../support.js";

const open = (env) => createBlotter({ baseUrl: need("BASE_URL"), eventsUrl: process.env.EVENTS_URL || undefined, token: async () => need("TOKEN"), env, limits: { confirmMs: 100, backoffMs: 15, backoffMaxMs: 100 } });
const json = (value) => JSON.parse(JSON.stringify(value));

/** A transport that plays chunks, one list a request. */
function player(...runs) {
  const requests = [];
  return {
    requests,
    async sendMessages(options) {
      requests.push(options);
      const run = runs.shift() ?? [];
      if (run instanceof Error) throw run;
      return new ReadableStream({
        async start(controller) {
          for (const chunk of run) {
            if (options.abortSignal?.aborted) return controller.error(new DOMException("aborted", "AbortError"));
            if (chunk === "break") return controller.error(new TypeError("fetch failed: network"));
            if (typeof chunk === "number") await soon(chunk);
            else controller.enqueue(structuredClone(chunk));
          }
          controller.close();
        },
      });
    },
    reconnectToStream: async () => null,
  };
}

const words = (id, text) => [{ type: "text-start", id }, ...text.match(/.{1,9}/gsu).map((delta) => ({ type: "text-delta", id, delta })), { type: "text-end", id }];
const provider = { acme: { note: 1 } };

/** One of every kind of chunk that leaves something in a message. */
const EVERYTHING = [
  { type: "start", messageId: "answer", messageMetadata: { model: "m", nested: { a: 1 } } },
  { type: "start-step" },
  { type: "reasoning-start", id: "r1", providerMetadata: provider },
  { type: "reasoning-delta", id: "r1", delta: "Thinking 😀 " },
  { type: "reasoning-delta", id: "r1", delta: "hard." },
  { type: "reasoning-end", id: "r1", providerMetadata: { acme: { signature: "s" } } },
  ...words("t1", "Let me look. "),
  { type: "tool-input-start", toolCallId: "c1", toolName: "search", title: "Search" },
  { type: "tool-input-delta", toolCallId: "c1", inputTextDelta: '{"query": "we' },
  { type: "tool-input-delta", toolCallId: "c1", inputTextDelta: 'ather", "n": 3}' },
  { type: "tool-input-available", toolCallId: "c1", toolName: "search", title: "Search", input: { query: "weather", n: 3 }, providerMetadata: provider },
  { type: "tool-output-available", toolCallId: "c1", output: { found: ["half"] }, preliminary: true },
  { type: "tool-output-available", toolCallId: "c1", output: { found: ["a", { b: null }] }, providerMetadata: provider },
  { type: "tool-input-available", toolCallId: "c2", toolName: "mcp", input: [1], dynamic: true, providerExecuted: true },
  { type: "tool-output-error", toolCallId: "c2", errorText: "It broke.", dynamic: true, providerExecuted: true },
  { type: "tool-input-available", toolCallId: "c3", toolName: "remove", input: { path: "/" } },
  { type: "tool-approval-request", approvalId: "ok1", toolCallId: "c3" },
  { type: "tool-approval-response", approvalId: "ok1", approved: false, reason: "No!" },
  { type: "tool-output-denied", toolCallId: "c3" },
  { type: "tool-input-error", toolCallId: "c4", toolName: "odd", input: "not { json", errorText: "Bad input." },
  { type: "finish-step" },
  { type: "start-step" },
  { type: "source-url", sourceId: "s1", url: "https://example.test/a", title: "A", providerMetadata: provider },
  { type: "source-document", sourceId: "s2", mediaType: "application/pdf", title: "B", filename: "b.pdf" },
  { type: "file", mediaType: "image/png", url: "data:image/png;base64,iVBORw0KGgo=" },
  { type: "data-progress", id: "p", data: { done: 0.5 } },
  { type: "data-progress", id: "p", data: { done: 1 } },
  { type: "data-note", data: "no id" },
  { type: "data-gone", data: "never kept", transient: true },
  ...words("t2", "The answer: 42 👩‍👩‍👧 漢字. ".repeat(12)),
  { type: "finish-step" },
  { type: "finish", finishReason: "stop", messageMetadata: { usage: { total: 7 }, nested: { b: 2 } } },
];

async function assertStored(chat, more = {}) {
  const reader = open();
  assert.deepEqual(await loadMessages(reader, chat.id), json(chat.messages));
  const view = await read(chat.id);
  for (const [id, status] of Object.entries(more)) assert.equal(view.messages.find((message) => message.id === id)?.status, status, `status of ${id}`);
  await reader.dispose();
}

test("every kind of part comes back verbatim", async () => {
  const blotter = open();
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(EVERYTHING), blotter) });
  await chat.sendMessage({ text: "What is it?", metadata: { from: "me" }, files: [{ type: "file", mediaType: "text/plain", url: "data:,x", filename: "x.txt" }] });
  assert.equal(chat.status, "ready", chat.error?.message);
  assert.ok(chat.messages[1].parts.length >= 12);
  assert.ok(await blotter.flush({ until: "stored", timeoutMs: 10_000 }));
  await assertStored(chat, { answer: "complete" });
  await blotter.dispose();
});

test("steps, not whole messages: a long reply costs its length", async () => {
  let bytes = 0;
  const blotter = open({ fetch: (url, init) => ((bytes += init.body?.length ?? 0), fetch(url, init)) });
  const text = "word ".repeat(6000);
  const chunks = [{ type: "start" }, ...words("t", text).flatMap((chunk, index) => (index % 40 ? [chunk] : [1, chunk])), { type: "finish" }];
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(chunks), blotter) });
  await chat.sendMessage({ text: "Go" });
  await blotter.flush();
  await assertStored(chat);
  assert.ok(bytes < text.length * 4, `${bytes} for ${text.length}`);
  await blotter.dispose();
});

test("a stream that names no message: page and server know it by one id all the same", async () => {
  const blotter = open();
  const runs = [[{ type: "start" }, ...words("t", "one"), { type: "finish" }], [...words("t", "two")], [{ type: "data-hint", data: 1, transient: true }, { type: "start", messageId: "named" }, ...words("t", "three")]];
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(...runs), blotter) });
  for (const text of ["1", "2", "3"]) await chat.sendMessage({ text });
  await blotter.flush();
  assert.equal(chat.messages.length, 6);
  assert.equal(chat.messages[5].id, "named");
  await assertStored(chat);
  await blotter.dispose();
});

test("a tool run by the page: its output is saved, and the same message goes on", async () => {
  const blotter = open();
  const first = [{ type: "start", messageId: "a" }, { type: "start-step" }, { type: "tool-input-available", toolCallId: "c", toolName: "where", input: {} }, { type: "finish-step" }, { type: "finish" }];
  const second = [{ type: "start" }, { type: "start-step" }, ...words("t", "You are in Paris."), { type: "finish-step" }, { type: "finish" }];
  const transport = player(first, second);
  const chat = new Chat({ id: newChat(), transport: withBlotter(transport, blotter), sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls });
  await chat.sendMessage({ text: "Where am I?" });
  await blotter.flush();
  await assertStored(chat, { a: "complete" });
  chat.addToolOutput({ tool: "where", toolCallId: "c", output: "Paris" });
  for (let tries = 0; tries < 200 && (transport.requests.length < 2 || chat.status !== "ready"); tries++) await soon(10);
  assert.equal(chat.messages.length, 2);
  assert.ok(await blotter.flush({ until: "stored", timeoutMs: 10_000 }));
  await assertStored(chat, { a: "complete" });
  await blotter.dispose();
});

test("an output that no request follows is saved by watching the chat", async () => {
  const blotter = createBlotter({ baseUrl: need("BASE_URL"), token: need("TOKEN"), limits: { autosaveMs: 150 } });
  const run = [{ type: "start", messageId: "a" }, { type: "tool-input-available", toolCallId: "c", toolName: "where", input: {} }];
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(run), blotter) });
  const end = watchChat(blotter, chat);
  await chat.sendMessage({ text: "Where?" });
  chat.addToolOutput({ tool: "where", toolCallId: "c", output: "Rome" });
  await soon(400);
  await blotter.flush();
  await assertStored(chat);
  end();
  await blotter.dispose();
});

test("stop, an error in the stream, a broken connection, a refused request", async () => {
  const blotter = open();
  const runs = [
    [{ type: "start", messageId: "stopped" }, { type: "text-start", id: "t" }, { type: "text-delta", id: "t", delta: "half a sen" }, 2_000],
    [{ type: "start", messageId: "failed" }, ...words("t", "some"), { type: "error", errorText: "Too hot." }],
    [{ type: "start", messageId: "broken" }, ...words("t", "torn"), 20, "break"],
    new Error("503"),
    [{ type: "start", messageId: "aborted" }, ...words("t", "server"), { type: "abort", reason: "quota" }],
  ];
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(...runs), blotter), onError: () => {} });
  const sending = chat.sendMessage({ text: "1" });
  await soon(100);
  await chat.stop();
  await sending;
  for (const text of ["2", "3", "4", "5"]) await chat.sendMessage({ text });
  assert.ok(await blotter.flush({ timeoutMs: 5000 }));
  await assertStored(chat, { stopped: "interrupted", failed: "error", broken: "error", aborted: "interrupted" });
  const view = await read(chat.id);
  assert.deepEqual(view.messages.filter(({ role }) => role === "assistant").map(({ statusReason }) => statusReason), ["stopped", "Too hot.", "fetch failed: network", "quota"]);
  await blotter.dispose();
});

test("regenerating and editing make branches; loading follows the path that was shown", async () => {
  const blotter = open();
  const answer = (id) => [{ type: "start", messageId: id }, ...words("t", `answer ${id}`), { type: "finish" }];
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(answer("a1"), answer("a2"), answer("b1"), answer("c1")), blotter) });
  await chat.sendMessage({ text: "first" });
  await chat.regenerate();
  await chat.sendMessage({ text: "second" });
  await blotter.flush();
  await assertStored(chat);
  assert.deepEqual(chat.messages.map(({ id }) => id).slice(-1), ["b1"]);
  await chat.sendMessage({ text: "second, better", messageId: chat.messages[2].id });
  await blotter.flush();
  await assertStored(chat);
  const all = (await read(chat.id)).messages;
  assert.ok(["a1", "a2", "b1", "c1"].every((id) => all.some((message) => message.id === id)), "nothing was deleted");
  await blotter.dispose();
});

test("a chat of many messages comes back whole; a page that holds its end alone forgets nothing of the rest", async () => {
  const blotter = open();
  const id = newChat();
  const all = Array.from({ length: 260 }, (_, at) => ({ id: `m${at}`, role: at % 2 ? "assistant" : "user", parts: [{ type: "text", text: `words ${at}` }] }));
  await saveMessages(blotter, id, all);
  await blotter.setHead(id, "m259");
  assert.deepEqual(await loadMessages(blotter, id), all);
  const run = [{ type: "start", messageId: "answer" }, ...words("t", "Yes."), { type: "finish" }];
  // As a page does that sends the model no more than the last of it.
  const chat = new Chat({ id, messages: all.slice(-10), transport: withBlotter(player(run), blotter) });
  await chat.sendMessage({ text: "Still there?" });
  await blotter.flush();
  const reader = open();
  const ids = (await loadMessages(reader, id)).map((message) => message.id);
  assert.deepEqual([ids.length, ids.slice(0, 3), ids.at(-1)], [262, ["m0", "m1", "m2"], "answer"]);
  await reader.dispose();
  await blotter.dispose();
});

test("of a reply that came to nothing, the steps are stored as the SDK shows them", async () => {
  const blotter = open();
  const empty = [{ type: "start-step" }, { type: "finish-step" }];
  const [said, nothing] = [["r1", [{ type: "start-step" }, ...words("t", "Something."), { type: "finish-step" }]], ["r2", []]].map(
    ([messageId, chunks]) => [{ type: "start", messageId }, ...chunks, ...empty, { type: "finish" }],
  );
  const chat = new Chat({ id: newChat(), transport: withBlotter(player(said, nothing), blotter) });
  await chat.sendMessage({ text: "first" });
  await chat.sendMessage({ text: "second" });
  await blotter.flush();
  assert.deepEqual(chat.messages.at(-1).parts, [{ type: "step-start" }]);
  await assertStored(chat);
  await blotter.dispose();
});

for (let seed = 1; seed <= 8; seed++) {
  test(`random chunks over a bad network are stored as the SDK has them (seed ${seed})`, async () => {
    const random = dice(seed);
    const network = badNetwork(random, 0.25);
    const blotter = open({ fetch: network.fetch, random: random.random });
    const ends = ["finish", random.pick(["error", "abort", "nothing"]), "finish"];
    const runs = ends.map((end) => randomChunks(random, { ends: end }).flatMap((chunk) => (random.chance(0.1) ? [random.below(15), chunk] : [chunk])));
    const chat = new Chat({ id: newChat(), transport: withBlotter(player(...runs), blotter), onError: () => {} });
    for (const text of ["1", "2", "3"]) await chat.sendMessage({ text: text + randomText(random, 9) });
    assert.equal(chat.status, "ready", chat.error?.message);
    await network.calm();
    assert.ok(await blotter.flush({ timeoutMs: 15_000 }), `${blotter.unsaved} unsaved`);
    await network.calm();
    await assertStored(chat);
    await blotter.dispose();
  });
}

for (let seed = 1; seed <= 6; seed++) {
  test(`whatever arrives once more, however late, changes nothing (seed ${seed})`, async () => {
    const random = dice(seed);
    const sent = [];
    const recorder = (url, init) => {
      if (init.method !== "GET") sent.push([url, { ...init, signal: undefined }]);
      return fetch(url, init);
    };
    const blotter = open({ fetch: recorder });
    const slowly = (chunks) => chunks.flatMap((chunk) => (random.chance(0.3) ? [random.below(12), chunk] : [chunk]));
    const runs = [randomChunks(random), randomChunks(random, { ends: random.pick(["error", "abort", "nothing"]) })];
    const chat = new Chat({ id: newChat(), transport: withBlotter(player(...runs.map(slowly)), blotter), onError: () => {} });
    const late = async () => {
      for (const [url, init] of [...sent].sort(() => random.random() - 0.5)) await (await fetch(url, init)).arrayBuffer();
    };
    const sending = chat.sendMessage({ text: "1" });
    await soon(random.below(60));
    await late();
    await sending;
    await chat.sendMessage({ text: "2" });
    assert.ok(await blotter.flush({ timeoutMs: 15_000 }));
    await assertStored(chat);
    await late();
    await assertStored(chat);
    await blotter.dispose();
  });
}

test("a page opened in the middle of a reply shows it to its end", async () => {
  const [writer, reader] = [open(), open()];
  const id = newChat();
  const chunks = EVERYTHING.flatMap((chunk) => [chunk, 12]);
  const chat = new Chat({ id, transport: withBlotter(player(chunks), writer) });
  const sending = chat.sendMessage({ text: "What is it?" });
  await soon(500);
  await writer.flush();
  const late = new Chat({ id, messages: await loadMessages(reader, id), transport: withBlotter(player(), reader) });
  assert.equal(late.messages.at(-1).role, "assistant");
  const resumed = late.resumeStream();
  await Promise.all([sending, resumed]);
  assert.equal(late.status, "ready", late.error?.message);
  assert.equal(late.messages.length, 2);
  const plain = (messages) => json(messages).map((message) => ({ ...message, parts: message.parts.map(({ rawInput, ...part }) => part) }));
  assert.deepEqual(plain(late.messages), plain(chat.messages));
  await new Chat({ id, messages: await loadMessages(reader, id), transport: withBlotter(player(), reader) }).resumeStream();
  await writer.flush();
  await assertStored(chat, { answer: "complete" });
  await writer.dispose();
  await reader.dispose();
});

for (const resumes of [true, false]) {
  test(`a reply that a backend writes as plain content stays that, whether a page follows it or not (${resumes})`, async () => {
    const [writer, reader] = [open(), open()];
    const id = newChat();
    await writer.saveUserMessage(id, { id: "u", content: "Go on" });
    const reply = writer.startReply(id, { id: "r", parentId: "u", content: "" });
    const pieces = Array.from({ length: 40 }, (_, at) => `word ${at} 😀 `);
    for (const piece of pieces.slice(0, 10)) reply.append(piece);
    await writer.flush();
    const answer = [{ type: "start", messageId: "r2" }, ...words("t", "Yes."), { type: "finish" }];
    const chat = new Chat({ id, messages: await loadMessages(reader, id), transport: withBlotter(player(answer), reader) });
    assert.equal(chat.messages[1].parts[0].text, pieces.slice(0, 10).join(""));
    const resumed = resumes && chat.resumeStream();
    for (const piece of pieces.slice(10, 20)) reply.append(piece), await soon(15);
    if (!resumes) await chat.sendMessage({ text: "And?" }); // while it is still being written
    for (const piece of pieces.slice(20)) reply.append(piece), await soon(5);
    await reply.complete();
    await resumed;
    if (resumes) {
      assert.equal(chat.status, "ready", chat.error?.message);
      assert.equal(chat.messages[1].parts[0].text, pieces.join(""));
      await chat.sendMessage({ text: "And?" });
    }
    await reader.flush();
    const kept = (await read(id)).messages.find((message) => message.id === "r");
    assert.deepEqual([kept.content, kept.parts, kept.status], [pieces.join(""), null, "complete"]);
    const [edited] = await loadMessages(reader, id);
    await saveMessages(reader, id, [{ ...edited, parts: [{ type: "text", text: "Go" }] }]);
    const question = (await read(id)).messages.find((message) => message.id === "u");
    assert.deepEqual([question.content, question.parts], ["Go", null]);
    await writer.dispose();
    await reader.dispose();
  });
}

test("chunks between two snapshots lead the SDK's fold from one to the other", async () => {
  const snapshots = [];
  const stream = (chunks) => new ReadableStream({ start: (controller) => (chunks.forEach((chunk) => controller.enqueue(structuredClone(chunk))), controller.close()) });
  for await (const message of readUIMessageStream({ stream: stream(EVERYTHING) })) snapshots.push(json(message));
  for (const size of [1, 2, 3, 5, 8, 1000]) {
    const chunks = [{ type: "start", messageId: "answer" }];
    let before = { parts: [] };
    for (const [index, after] of snapshots.entries()) {
      if (index % size && index !== snapshots.length - 1) continue;
      chunks.push(...chunksBetween(before, after));
      before = after;
    }
    let last;
    for await (const message of readUIMessageStream({ stream: stream(chunks), onError: (error) => assert.fail(error) })) last = message;
    const plain = (message) => ({ ...json(message), parts: json(message.parts).map(({ rawInput, ...part }) => part) });
    assert.deepEqual(plain(last), plain(snapshots.at(-1)), `every ${size}`);
  }
});
