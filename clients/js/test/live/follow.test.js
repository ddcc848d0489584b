/** Following a reply whose reader's token runs out, or whose conversation is deleted, in the middle of it. */

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { test } from "node:test";

import { withBlotter } from "../../ai-sdk.js";
import { createBlotter } from "../../blotter.js";
import { need, newChat, read, soon } from "../support.js";

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token of "ann" that the server refuses in `seconds`: it takes them until ten seconds after their end. */
function token(seconds) {
  const text = `${base64({ alg: "HS256", typ: "JWT" })}.${base64({ sub: "ann", exp: Math.ceil(Date.now() / 1000) + seconds - 10 })}`;
  return `${text}.${createHmac("sha256", need("SECRET")).update(text).digest("base64url")}`;
}

/** A client whose requests for events are counted. */
function reader(options) {
  const asked = [];
  const counting = (url, init) => {
    if (String(url).includes("/events?")) asked.push(init.headers.Authorization);
    return fetch(url, init);
  };
  const blotter = createBlotter({ baseUrl: need("BASE_URL"), eventsUrl: need("EVENTS_URL"), env: { fetch: counting, indexedDB: null }, ...options });
  return { blotter, asked };
}

/** A reply that somebody else is writing; `until(condition)` writes on until that holds. */
async function written() {
  const writer = createBlotter({ baseUrl: need("BASE_URL"), token: need("TOKEN"), limits: { appendMs: 50 }, env: { indexedDB: null } });
  const chat = newChat();
  await writer.saveUserMessage(chat, { id: "u", content: "Go on" });
  const reply = writer.startReply(chat, { id: "r", parentId: "u" });
  reply.append("It begins. ");
  await writer.flush();
  let words = 0;
  const until = async (holds) => {
    for (const end = Date.now() + 20_000; !holds(); await soon(20)) {
      assert.ok(Date.now() < end, "it did not come true");
      reply.append(`word ${words++} `);
    }
  };
  return { writer, chat, reply, until };
}

test("a token that runs out in the middle is replaced, and not a word is missing", { timeout: 60_000 }, async () => {
  const { writer, chat, reply, until } = await written();
  const given = [];
  const source = ({ fresh }) => {
    if (fresh || given.length === 0) given.push(token(2));
    return given.at(-1);
  };
  const { blotter, asked } = reader({ token: source });
  let shown = null;
  const reading = (async () => {
    for await (const message of blotter.followMessage(chat, "r")) {
      assert.ok(message.content.startsWith(shown?.content ?? ""), "text only grows");
      shown = message;
    }
  })();
  await until(() => given.length === 3);
  await reply.complete();
  await reading;
  assert.equal(shown.content, (await read(chat)).messages[1].content);
  assert.equal(shown.status, "complete");
  // Each token ends one stream, is refused once, and is followed by the next.
  assert.ok(asked.length <= 6, `${asked.length} requests`);
  await blotter.dispose();
  await writer.dispose();
});

test("through a proxy that holds every answer back to its end, events come all the same", { timeout: 60_000 }, async (t) => {
  const server = createServer(async (request, response) => {
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    try {
      const { authorization } = request.headers;
      const answer = await fetch(need("EVENTS_URL") + request.url, { headers: { authorization }, signal: gone.signal });
      const body = Buffer.from(await answer.arrayBuffer());
      response.writeHead(answer.status, [...answer.headers].filter(([name]) => name !== "transfer-encoding").flat());
      response.end(body);
    } catch {
      response.destroy();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const addresses = { baseUrl: need("BASE_URL"), eventsUrl: `http://127.0.0.1:${server.address().port}`, token: need("TOKEN") };
  const writer = createBlotter({ ...addresses, env: { indexedDB: null } });
  const reader = createBlotter({ ...addresses, env: { indexedDB: null }, limits: { streamMs: 1000 } });
  t.after(async () => {
    await Promise.all([writer.dispose(), reader.dispose()]);
    server.closeAllConnections();
    server.close();
  });
  const chat = newChat();
  const reply = writer.startReply(chat, { id: "r" });
  reply.append("Begun");
  await writer.flush();
  const seen = [];
  for await (const message of reader.followMessage(chat, "r")) {
    seen.push(message.content);
    if (seen.length === 1) setTimeout(() => reply.append(", gone on with"), 1500);
    else if (message.content.endsWith("with")) reply.complete({ content: "Begun, gone on with, ended." });
  }
  assert.deepEqual(seen.at(-1), "Begun, gone on with, ended.");
  assert.ok(seen.includes("Begun, gone on with"), String(seen));
});

test("where there is no other token, following ends with that, and is not tried again and again", { timeout: 60_000 }, async () => {
  const { writer, chat, until } = await written();
  const { blotter, asked } = reader({ token: token(2) });
  let failure = null;
  const following = blotter.follow(chat);
  following.done.catch((error) => (failure = error));
  const reading = blotter.followMessage(chat, "r", { pollMs: 100 });
  const ended = assert.rejects(async () => {
    for await (const message of reading) assert.equal(message.status, "streaming");
  }, { status: 401 });
  await until(() => failure !== null);
  assert.equal(failure.status, 401);
  await ended;
  assert.equal(asked.length, 4, "each a stream and a refusal");
  // A person who signs in again goes on from there.
  blotter.setToken(need("TOKEN"));
  let heard = 0;
  const again = blotter.follow(chat, { offset: following.offset, onEvent: () => heard++ });
  await until(() => heard > 0);
  again.close();
  await blotter.dispose();
  await writer.dispose();
});

test("a conversation that is deleted in the middle ends all who follow it", { timeout: 60_000 }, async () => {
  const { writer, chat } = await written();
  const { blotter, asked } = reader({ token: need("TOKEN") });
  const events = [];
  const following = blotter.follow(chat, { onEvent: (event) => events.push(event) });
  let begun = 0;
  const reading = assert.rejects(async () => {
    for await (const message of blotter.followMessage(chat, "r")) begun += message.content.length;
  }, { status: 410 });
  // The AI SDK's way: the stream that a page resumed.
  const stream = await withBlotter({}, blotter).reconnectToStream({ chatId: chat });
  const resumed = assert.rejects(async () => {
    for await (const chunk of stream) events.push(chunk);
  }, { status: 410 });
  while (asked.length < 3 || begun === 0 || events.length === 0) await soon(20);
  await blotter.deleteConversation(chat);
  await following.done;
  await reading;
  await resumed;
  assert.ok(events.some((event) => event.kind === "conversation" && event.item?.deletedAt));
  await soon(1000); // nobody comes back
  assert.equal(asked.length, 3);
  await assert.rejects(blotter.loadConversation(chat), { status: 410 });
  await blotter.dispose();
  await writer.dispose();
});
