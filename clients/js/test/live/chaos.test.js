/**
 * The client against a running Blotter over a network that loses, repeats, delays and refuses, in pages that die at any
 * moment. In the end the server holds what the page showed, once.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { IDBFactory } from "fake-indexeddb";

import { createBlotter, toolResultId } from "../../blotter.js";
import { badNetwork, dice, Locks, need, newChat, Page, randomText, read, settle, soon } from "../support.js";

const QUICK = { appendMs: 10, backoffMs: 15, backoffMaxMs: 120, confirmMs: 60, confirmWaitSeconds: 1, autosaveMs: 400, heartbeatMs: 500, journalMs: 5 };
const SEEDS = Number(process.env.BLOTTER_TEST_SEEDS ?? 12);
const FIRST = Number(process.env.BLOTTER_TEST_SEED ?? 1);
/** ms; up to so long each request, and each answer, is under way: as on a machine with too much to do. */
const LAG_MS = Number(process.env.BLOTTER_TEST_LAG_MS ?? 300);
const AT_ONCE = 8;
const FLUSH_MS = 60_000;

function open(page, limits = {}) {
  return createBlotter({ baseUrl: need("BASE_URL"), token: async () => need("TOKEN"), env: page.env, limits: { ...QUICK, ...limits } });
}

/** What a page shows: the model that the server is held against. */
class Shown {
  messages = new Map();
  results = new Map();
  artifacts = new Map();
  title = null;
}

/** Does a random thing on the page; all of it is noted in `shown`. */
function act(blotter, chat, shown, random, replies) {
  const user = [...shown.messages.values()].filter((message) => message.role === "user");
  const open = [...replies].filter((reply) => !reply.ended);
  const id = () => `i${shown.messages.size + shown.results.size + shown.artifacts.size}`;
  const things = [
    () => {
      const message = { id: id(), role: "user", content: randomText(random, 60), metadata: { n: random.below(9), text: randomText(random, 4) } };
      shown.messages.set(message.id, message);
      blotter.saveUserMessage(chat, message);
    },
    () => {
      if (!user.length) return;
      const message = { ...random.pick(user), content: randomText(random, 80) };
      shown.messages.set(message.id, message);
      blotter.saveOrUpdateMessage(chat, { id: message.id, content: message.content });
    },
    () => {
      if (open.length > 1) return;
      const message = { id: id(), role: "assistant", content: "", status: "streaming" };
      shown.messages.set(message.id, message);
      replies.add(Object.assign(blotter.startReply(chat, { id: message.id }), { message }));
    },
    ...Array.from({ length: 6 }, () => () => {
      if (!open.length) return;
      const reply = random.pick(open);
      const text = randomText(random, 90);
      for (let at = 0; at < text.length; ) {
        const to = at + 1 + random.below(20); // cut anywhere, also within pairs
        reply.append(text.slice(at, to));
        at = to;
      }
      reply.message.content += text;
    }),
    () => {
      if (!open.length) return;
      const reply = random.pick(open);
      const how = random.pick(["complete", "stop", "error"]);
      reply[how]("reason").catch?.(() => {});
      reply.message.status = { complete: "complete", stop: "interrupted", error: "error" }[how];
    },
    () => {
      if (!open.length) return;
      const { message } = random.pick(open);
      const result = { messageId: message.id, toolCallId: `t${random.below(3)}`, toolName: "search", input: { q: randomText(random, 9) }, state: "input-available" };
      const key = toolResultId(result.messageId, result.toolCallId);
      if (shown.results.has(key)) Object.assign(result, { input: shown.results.get(key).input, state: "output-available", output: [random.below(5), randomText(random, 5)] });
      shown.results.set(key, { ...shown.results.get(key), ...result });
      blotter.saveToolResult(chat, result);
    },
    () => {
      const artifact = { id: random.pick(["a1", "a2"]), kind: "code", title: randomText(random, 5), content: randomText(random, 200) };
      shown.artifacts.set(artifact.id, artifact);
      blotter.saveArtifact(chat, artifact);
    },
    () => {
      shown.title = randomText(random, 12);
      blotter.renameConversation(chat, shown.title);
    },
  ];
  random.pick(things)();
}

async function assertServerShows(chat, shown, hint) {
  const view = await read(chat);
  assert.ok(view.messages, `${hint}: ${JSON.stringify(view)}`);
  assert.deepEqual(view.messages.map((message) => message.id), [...shown.messages.keys()], `${hint}: the messages, once and in order`);
  for (const message of view.messages) {
    const want = shown.messages.get(message.id);
    assert.equal(message.content ?? "", want.content, `${hint}: text of ${message.id}`);
    assert.equal(message.status, want.status ?? "complete", `${hint}: status of ${message.id}`);
    assert.deepEqual(message.metadata, want.metadata ?? null, `${hint}: metadata of ${message.id}`);
  }
  assert.deepEqual(new Set(view.toolResults.map((result) => result.id)), new Set(shown.results.keys()), `${hint}: tool results`);
  for (const result of view.toolResults) {
    const want = shown.results.get(result.id);
    assert.deepEqual([result.state, result.input, result.output], [want.state, want.input, want.output ?? null], `${hint}: ${result.id}`);
  }
  assert.deepEqual(view.artifacts.map(({ id, content, title }) => ({ id, content, title })).sort((a, b) => (a.id < b.id ? -1 : 1)),
    [...shown.artifacts.values()].map(({ id, content, title }) => ({ id, content, title })).sort((a, b) => (a.id < b.id ? -1 : 1)), `${hint}: artifacts`);
  if (shown.title !== null) assert.equal(view.conversation.title, shown.title, `${hint}: title`);
}

describe("chaos", { concurrency: AT_ONCE }, () => {
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    test(`a bad network changes nothing (seed ${seed})`, async () => {
      const random = dice(seed);
      const network = badNetwork(random, 0.3, LAG_MS);
      const blotter = open(new Page({ fetch: network.fetch, random: random.random, locks: new Locks() }));
      const chat = newChat();
      const shown = new Shown();
      const replies = new Set();
      for (let turn = 0; turn < 50; turn++) {
        act(blotter, chat, shown, random, replies);
        if (random.chance(0.4)) await soon(random.below(25));
      }
      await network.calm();
      assert.ok(await blotter.flush({ timeoutMs: FLUSH_MS }), `unsaved: ${blotter.unsaved}`);
      await network.calm();
      await assertServerShows(chat, shown, `seed ${seed}`);
      assert.deepEqual(blotter.failures(), []);
      await blotter.dispose();
    });

    test(`a page killed at any moment is gone on with by the next, or by another tab (seed ${seed})`, async () => {
      const random = dice(seed * 7919);
      const indexedDB = new IDBFactory();
      const locks = new Locks();
      const chat = newChat();
      const shown = new Shown();
      const networks = [];
      let leftBy = null;
      for (let life = 0; life < 4; life++) {
        const network = badNetwork(random, 0.35, LAG_MS);
        networks.push(network);
        const page = new Page({ fetch: network.fetch, random: random.random, indexedDB, locks });
        const blotter = open(page, { keepaliveBytes: random.pick([60_000, 300]) });
        await blotter.replay(); // a page reads what there is before its user writes
        const replies = new Set();
        for (let turn = random.below(30); turn > 0; turn--) {
          act(blotter, chat, shown, random, replies);
          if (random.chance(0.4)) await soon(random.below(20));
        }
        await settle(6); // the token is known, the outbox open: a page that lived at all
        page.leave();
        page.die();
        for (const reply of replies) leftBy = reply;
        await soon(random.below(40));
      }
      for (const network of networks) await network.calm();
      await settle(30);
      const last = open(new Page({ indexedDB, locks }));
      await last.replay();
      assert.ok(await last.flush({ timeoutMs: FLUSH_MS }), `unsaved: ${last.unsaved}`);
      if (shown.messages.size + shown.artifacts.size) await assertServerShows(chat, shown, `seed ${seed}, ${leftBy?.id}`);
      assert.deepEqual(last.failures(), []);
      await last.dispose();
    });
  }
});
