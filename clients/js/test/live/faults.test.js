/** The client while parts of Blotter die: web, the buffer's contents, Postgres. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { IDBFactory } from "fake-indexeddb";

import { createBlotter } from "../../blotter.js";
import { control, Locks, need, newChat, Page, read, settle, soon } from "../support.js";

const QUICK = { backoffMs: 50, backoffMaxMs: 400, confirmMs: 100, confirmWaitSeconds: 2, autosaveMs: 2000 };

function open(options = {}) {
  return createBlotter({ baseUrl: need("BASE_URL"), token: need("TOKEN"), limits: QUICK, ...options });
}

test("web dies in the middle of a reply: it waits, and goes on where it was", async () => {
  const blotter = open();
  const chat = newChat();
  const states = new Set();
  blotter.addEventListener("state", ({ detail }) => states.add(detail.state));
  blotter.saveUserMessage(chat, { id: "u", content: "Hello" });
  const reply = blotter.startReply(chat, { id: "r" });
  for (let word = 0; word < 20; word++) {
    reply.append(`first ${word} `);
    await soon(10);
  }
  await control("web", "kill");
  for (let word = 0; word < 40; word++) {
    reply.append(`second ${word} `);
    await soon(10);
  }
  blotter.saveUserMessage(chat, { id: "u2", content: "Are you there?" });
  await soon(300);
  assert.equal(blotter.stateOf(chat, "message", "r"), "waiting");
  await control("web", "start");
  reply.append("end");
  reply.complete();
  assert.ok(await blotter.flush({ until: "stored", timeoutMs: 15_000 }));
  const { messages } = await read(chat);
  const text = `${Array.from({ length: 20 }, (_, word) => `first ${word} `).join("")}${Array.from({ length: 40 }, (_, word) => `second ${word} `).join("")}end`;
  assert.deepEqual(messages.map(({ id, content, status }) => [id, content, status]), [["u", "Hello", "complete"], ["r", text, "complete"], ["u2", "Are you there?", "complete"]]);
  assert.ok(["typing", "waiting", "buffered", "stored"].every((state) => states.has(state)), [...states].join());
  await blotter.dispose();
});

test("the buffer comes back empty: what was not yet stored goes out again", async () => {
  await control("worker", "kill");
  await control("beat", "kill");
  const blotter = open();
  const chat = newChat();
  await blotter.saveUserMessage(chat, { id: "u", content: "only in the buffer" });
  const reply = blotter.startReply(chat, { id: "r", parentId: "u" });
  reply.append("some text that was acknowledged ".repeat(5));
  await blotter.flush();
  await blotter.saveToolResult(chat, { messageId: "r", toolCallId: "t", toolName: "x", output: { a: 1 }, state: "output-available" });
  assert.equal(blotter.unsaved, 0);
  assert.ok(blotter.unstored > 0);
  await control("buffer", "lose");
  reply.append("and more");
  await soon(600);
  reply.complete();
  await control("worker", "start");
  await control("beat", "start");
  assert.ok(await blotter.flush({ until: "stored", timeoutMs: 25_000 }), `${blotter.unstored} left`);
  const view = await read(chat);
  assert.deepEqual(view.messages.map(({ id, role, content, status }) => [id, role, content, status]).sort(), [
    ["r", "assistant", `${"some text that was acknowledged ".repeat(5)}and more`, "complete"],
    ["u", "user", "only in the buffer", "complete"],
  ]);
  assert.deepEqual(view.toolResults.map(({ id, output }) => [id, output]), [["r.t", { a: 1 }]]);
  await blotter.dispose();
});

test("Postgres away: saving goes on, stored comes later", async () => {
  const blotter = open();
  const chat = newChat();
  await blotter.saveUserMessage(chat, { id: "u", content: "before" });
  await control("postgres", "kill");
  const reply = blotter.startReply(chat, { id: "r" });
  reply.append("while it was away ".repeat(20));
  await reply.complete();
  assert.equal(blotter.unsaved, 0);
  assert.equal(blotter.stateOf(chat, "message", "r"), "buffered");
  // A conversation nobody knows yet is kept blind.
  const other = newChat();
  const blind = blotter.startReply(other, { id: "b" });
  blind.append("blind ".repeat(50));
  await blind.complete();
  await control("postgres", "start");
  assert.ok(await blotter.flush({ until: "stored", timeoutMs: 40_000 }), `${blotter.unstored} left`);
  assert.equal((await read(chat)).messages[1].content, "while it was away ".repeat(20));
  assert.equal((await read(other)).messages[0].content, "blind ".repeat(50));
  await blotter.dispose();
});

test("a page killed with an unsaved message of 200 KB while web is away: the next page has it, and saves it", async () => {
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const chat = newChat();
  const content = "€".repeat(70_000);
  await control("web", "kill");
  const page = new Page({ indexedDB, locks });
  const first = open({ env: page.env });
  first.saveUserMessage(chat, { id: "large", content });
  await settle(60);
  page.die(); // no event, no last word
  await control("web", "start");

  const next = open({ env: new Page({ indexedDB, locks }).env });
  const shown = await next.loadConversation(chat);
  assert.equal(shown.messages[0].content, content, "shown at once, saved or not");
  assert.ok(await next.flush({ until: "stored", timeoutMs: 15_000 }));
  assert.equal((await read(chat)).messages[0].content, content);
  await next.dispose();
  await first.dispose();
});

test("a living tab takes over from one that died, without a reload", async () => {
  const indexedDB = new IDBFactory();
  const locks = new Locks();
  const chat = newChat();
  const living = open({ env: new Page({ indexedDB, locks }).env });
  const page = new Page({ indexedDB, locks, fetch: () => Promise.reject(new TypeError("fetch failed")) });
  const dying = open({ env: page.env });
  dying.saveUserMessage(chat, { id: "u", content: "left behind" });
  await settle(60);
  page.die();
  for (let tries = 0; tries < 100 && !(await read(chat)).messages; tries++) await soon(100);
  assert.equal((await read(chat)).messages?.[0].content, "left behind");
  await living.dispose();
  await dying.dispose();
});
