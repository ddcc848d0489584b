/** The README's integration for an existing React app, run as it stands there. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

import * as sdk from "../../ai-sdk.js";
import * as client from "../../blotter.js";
import { need, newChat, read } from "../support.js";

test("the five lines of the README save a chat", async () => {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const lines = readme.match(/<!-- run by test\/live\/readme\.test\.js -->\n```js\n([^]*?)```/)[1].trim().split("\n");
  assert.equal(lines.length, 5);
  const body = lines.filter((line) => !line.startsWith("import ")).join("\n");
  class Transport extends DefaultChatTransport {
    constructor(options) {
      const chunks = [{ type: "start" }, { type: "text-start", id: "1" }, { type: "text-delta", id: "1", delta: "Hello" }, { type: "text-end", id: "1" }, { type: "finish" }];
      const answer = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
      super({ ...options, fetch: async () => new Response(answer, { headers: { "Content-Type": "text/event-stream" } }) });
    }
  }
  const names = ["createBlotter", "loadMessages", "withBlotter", "DefaultChatTransport", "useChat", "baseUrl", "eventsUrl", "token", "id"];
  const run = new Function(...names, `return (async () => { ${body}\nreturn { chat, blotter }; })()`);
  const id = newChat();
  const useChat = (options) => new Chat(options); // what the hook makes
  const { chat, blotter } = await run(client.createBlotter, sdk.loadMessages, sdk.withBlotter, Transport, useChat, need("BASE_URL"), process.env.EVENTS_URL || undefined, need("TOKEN"), id);
  await chat.sendMessage({ text: "Hi" });
  assert.ok(await blotter.flush({ timeoutMs: 5000 }));
  const { messages } = await read(id);
  assert.deepEqual(messages.map(({ role, parts }) => [role, parts[0].text]), [["user", "Hi"], ["assistant", "Hello"]]);
  await blotter.dispose();
});
