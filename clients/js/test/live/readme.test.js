/** The README's integration for an existing React app, rendered by React as it stands there. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import * as react from "react";
import * as runtime from "react/jsx-runtime";
import * as hooks from "@ai-sdk/react";
import * as ai from "ai";
import { Window } from "happy-dom";
import typescript from "typescript";

import * as sdk from "../../ai-sdk.js";
import * as client from "../../blotter.js";
import { need, newChat, read, soon } from "../support.js";

const CHUNKS = [{ type: "start" }, { type: "text-start", id: "1" }, { type: "text-delta", id: "1", delta: "Hello" }, { type: "text-end", id: "1" }, { type: "finish" }];
const ANSWER = CHUNKS.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");

async function eventually(holds, withinMs = 10_000) {
  const deadline = Date.now() + withinMs;
  for (;;) {
    try {
      return holds();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await soon(20);
    }
  }
}

/** The file of the README as a module: what it exports, and the client that it made. */
async function load(id) {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const text = readme.match(/<!-- run by test\/live\/readme\.test\.js -->\n```jsx\n([^]*?)```/)[1];
  assert.equal(text.match(/\/\/\+/g).length, 5);
  const { ModuleKind, JsxEmit, ScriptTarget } = typescript;
  const compilerOptions = { module: ModuleKind.CommonJS, jsx: JsxEmit.ReactJSX, target: ScriptTarget.ES2022 };
  const made = [];
  const modules = {
    react,
    "react/jsx-runtime": runtime,
    "@ai-sdk/react": hooks,
    ai: {
      ...ai,
      DefaultChatTransport: class extends ai.DefaultChatTransport {
        constructor(options) {
          super({ ...options, fetch: async () => new Response(ANSWER, { headers: { "Content-Type": "text/event-stream" } }) });
        }
      },
    },
    "blotter-client": { ...client, createBlotter: (options) => made[made.push(client.createBlotter(options)) - 1] },
    "blotter-client/ai-sdk": sdk,
    "./settings.js": { baseUrl: need("BASE_URL"), eventsUrl: process.env.EVENTS_URL || undefined, fetchToken: async () => need("TOKEN"), id },
  };
  const exports = {};
  new Function("exports", "require", typescript.transpile(text, compilerOptions))(exports, (name) => modules[name]);
  return { App: exports.default, blotter: made[0] };
}

test("the five lines of the README save a chat, and a reload shows it", async () => {
  const window = new Window();
  const here = { window, document: window.document, FormData: window.FormData };
  if (!globalThis.navigator) here.navigator = window.navigator; // Node 20 has none
  Object.assign(globalThis, here);
  try {
    const { createRoot } = await import("react-dom/client");
    const id = newChat();
    for (const shown of ["", "user: Hiassistant: Hello"]) {
      const { App, blotter } = await load(id);
      const place = window.document.body.appendChild(window.document.createElement("div"));
      const root = createRoot(place);
      root.render(react.createElement(App));
      await eventually(() => assert.ok(place.querySelector("input")));
      assert.equal(place.textContent, shown);
      if (!shown) {
        place.querySelector("input").value = "Hi";
        place.querySelector("form").requestSubmit();
        await eventually(() => assert.equal(place.textContent, "user: Hiassistant: Hello"));
        assert.ok(await blotter.flush({ timeoutMs: 5000 }));
      }
      root.unmount();
      await blotter.dispose();
    }
    const { messages } = await read(id);
    assert.deepEqual(messages.map(({ role, parts }) => [role, parts[0].text]), [["user", "Hi"], ["assistant", "Hello"]]);
  } finally {
    for (const name of Object.keys(here)) delete globalThis[name];
    await window.happyDOM.close();
  }
});
