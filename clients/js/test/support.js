/** Clocks, pages, locks and networks for tests. Networks wrap the real one: they only lose, delay or repeat. */

import { IDBFactory } from "fake-indexeddb";

/** Repeatable random numbers (mulberry32). */
export function dice(seed) {
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const below = (count) => Math.floor(random() * count);
  return { random, below, pick: (list) => list[below(list.length)], chance: (share) => random() < share };
}

export const soon = (ms = 0) => new Promise((next) => setTimeout(next, ms));

/** Lets everything that is ready run: promises, and what they lead to. */
export async function settle(rounds = 12) {
  for (let round = 0; round < rounds; round++) await new Promise((next) => setImmediate(next));
}

/** Time that stands still until it is moved. */
export class Clock {
  #time = 1_750_000_000_000;
  #timers = new Map();
  #next = 1;

  now = () => this.#time;

  setTimeout = (run, ms = 0) => {
    this.#timers.set(this.#next, { at: this.#time + Math.max(0, ms), run });
    return this.#next++;
  };

  clearTimeout = (timer) => this.#timers.delete(timer);

  async pass(ms) {
    const end = this.#time + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end).sort((one, other) => one[1].at - other[1].at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#time = Math.max(this.#time, due[1].at);
      due[1].run();
      await settle();
    }
    this.#time = end;
    await settle();
  }
}

/** Web Locks of one origin, as far as they are used: exclusive, held until the promise ends, gone with their page. */
export class Locks {
  #held = new Map();

  /** The `navigator.locks` of one page; `die()` drops all it holds. */
  page() {
    const own = new Set();
    return {
      request: async (name, run) => {
        this.#held.set(name, own);
        own.add(name);
        try {
          return await run({ name });
        } finally {
          this.#held.delete(name);
          own.delete(name);
        }
      },
      query: async () => ({ held: [...this.#held.keys()].map((name) => ({ name })), pending: [] }),
      die: () => {
        for (const name of own) this.#held.delete(name);
      },
    };
  }
}

const never = () => new Promise(() => {});

/** A page: `document` and `window` that can be hidden, and a death that stops its timers, its network and its storage. */
export class Page {
  constructor({ indexedDB = new IDBFactory(), locks = new Locks(), fetch = globalThis.fetch, random = Math.random } = {}) {
    this.alive = true;
    this.timers = new Set();
    this.databases = new Set();
    this.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    this.window = new EventTarget();
    this.locks = locks?.page();
    this.env = {
      document: this.document,
      window: this.window,
      indexedDB: indexedDB && { open: (...names) => this.#opened(indexedDB.open(...names)) },
      locks: this.locks,
      random,
      fetch: async (url, init) => {
        if (!this.alive && !init?.keepalive) return never();
        const answer = await fetch(url, init);
        return this.alive ? answer : never(); // it arrived, and nobody is there to hear of it
      },
      setTimeout: (run, ms) => {
        if (!this.alive) return undefined;
        const timer = setTimeout(run, ms);
        this.timers.add(timer);
        return timer;
      },
    };
  }

  #opened(request) {
    request.addEventListener("success", () => {
      if (this.alive) this.databases.add(request.result);
      else request.result.close();
    });
    return request;
  }

  hide() {
    this.document.visibilityState = "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  show() {
    this.document.visibilityState = "visible";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  leave() {
    this.window.dispatchEvent(new Event("pagehide"));
  }

  /** Gone at once: nothing of it runs on, its locks are free. Transactions that it has begun are the browser's. */
  die() {
    this.alive = false;
    for (const timer of this.timers) clearTimeout(timer);
    for (const database of this.databases) database.close();
    this.locks?.die();
  }
}

const lost = () => new TypeError("fetch failed");
const problem = (status, type, headers = {}) =>
  new Response(JSON.stringify({ type: `/problems/${type}`, title: type, status }), {
    status,
    headers: { "Content-Type": "application/problem+json", ...headers },
  });

/**
 * A network that misbehaves with probability `rate`: requests lost, answers lost, 503, 401, requests that arrive twice
 * (the second late), delays. `calm()` ends that. Each request, and each answer, takes up to `lagMs` (mostly far less).
 */
export function badNetwork({ random, below, chance }, rate, lagMs = 0) {
  let bad = true;
  const late = [];
  const under = dice(below(2 ** 31));
  const fetch = async (url, init) => {
    if (lagMs) await soon(under.random() ** 3 * lagMs);
    const response = await globalThis.fetch(url, init);
    if (lagMs) await soon(under.random() ** 3 * lagMs);
    return response;
  };
  const send = async (url, init) => {
    if (!bad || !chance(rate)) return fetch(url, init);
    switch (below(7)) {
      case 0:
        throw lost();
      case 1:
        await fetch(url, init).then((response) => response.arrayBuffer());
        throw lost();
      case 2:
        return problem(503, "buffer-unavailable", { "Retry-After": "0" });
      case 3:
        return problem(401, "unauthenticated");
      case 4: {
        const again = { ...init, signal: undefined };
        late.push(soon(random() * 80).then(() => fetch(url, again)).then((response) => response.arrayBuffer()));
        return fetch(url, init);
      }
      case 5:
        // Our side gives up; the request arrives much later.
        late.push(soon(random() * 120).then(() => fetch(url, { ...init, signal: undefined })).then((response) => response.arrayBuffer()));
        throw lost();
      default:
        await soon(random() * 30);
        return fetch(url, init);
    }
  };
  return {
    fetch: send,
    async calm() {
      bad = false;
      await Promise.allSettled(late);
    },
  };
}

/** A server that acknowledges everything: for what only time decides. `log`: what it got. */
export function yesServer({ epoch = "e1" } = {}) {
  const log = [];
  let version = 1000;
  const state = { epoch, stored: true, answer: null };
  const fetch = async (url, init) => {
    const body = init.body ? JSON.parse(init.body) : null;
    const entry = { method: init.method, path: new URL(url, "http://x").pathname, body, keepalive: init.keepalive === true, headers: init.headers };
    log.push(entry);
    const other = await state.answer?.(entry, init);
    if (other) return other;
    const about = { outcome: "accepted", revision: body?.revision ?? null, version: ++version, state: state.stored ? "stored" : "buffered", bufferEpoch: state.epoch };
    if (entry.path.endsWith("/sync")) {
      const items = [...body.messages.map((one) => ["message", one]), ...body.toolResults.map((one) => ["toolResult", one]), ...body.artifacts.map((one) => ["artifact", one])];
      return Response.json({ ...about, items: items.map(([kind, one]) => ({ ...about, kind, id: one.id, status: 202, revision: one.revision ?? null })) });
    }
    if (init.method === "DELETE") return new Response(null, { status: 204 });
    return Response.json({ ...about, id: body?.id ?? "x", length: 0 }, { status: state.stored ? 200 : 202 });
  };
  return { fetch, log, state, problem };
}

/** Text of all kinds of characters, also of none that may be cut anywhere. */
export function randomText({ below, pick }, length) {
  const alphabet = ["a", "b", " ", "\n", "é", "ß", "€", "漢", "字", "😀", "👩‍👩‍👧", "🇫🇷", "\u200d", '"', "\\", "\u2028", "e\u0301", "𝒳"];
  let text = "";
  for (let at = below(length + 1); at > 0; at--) text += pick(alphabet);
  return text;
}

/**
 * Chunks of one reply, valid for the AI SDK: each kind of them, parts that interleave, tools in every state they go
 * through, steps that are taken back. `ends`: one of "finish", "error", "abort", "nothing".
 */
export function randomChunks(random, { start = { type: "start" }, ends = "finish" } = {}) {
  const { below, pick, chance } = random;
  let next = 0;
  const about = () => (chance(0.3) ? { providerMetadata: { acme: { n: below(9), text: randomText(random, 3) } } } : {});
  const text = (kind) => {
    const id = `p${next++}`;
    const chunks = [{ type: `${kind}-start`, id, ...about() }];
    for (let deltas = below(5); deltas > 0; deltas--) chunks.push({ type: `${kind}-delta`, id, delta: randomText(random, 40), ...about() });
    return [...chunks, { type: `${kind}-end`, id, ...about() }];
  };
  const tool = () => {
    const toolCallId = `c${next++}`;
    const input = pick([{ query: randomText(random, 9), n: below(99) }, [1, null], "plain", {}]);
    const named = { toolCallId, toolName: pick(["search", "run"]), ...(chance(0.3) ? { dynamic: true } : {}), ...(chance(0.3) ? { providerExecuted: true } : {}), ...(chance(0.3) ? { title: "A tool" } : {}), ...(chance(0.3) ? { toolMetadata: { m: below(9) } } : {}) };
    const chunks = [];
    if (chance(0.5)) {
      chunks.push({ type: "tool-input-start", ...named, ...about() });
      for (const inputTextDelta of JSON.stringify(input).match(/.{1,6}/gsu)) chunks.push({ type: "tool-input-delta", toolCallId, inputTextDelta });
      if (chance(0.1)) return chunks;
    }
    if (chance(0.15)) return [...chunks, { type: "tool-input-error", ...named, input: "not { json", errorText: "Bad input.", ...about() }];
    chunks.push({ type: "tool-input-available", ...named, input, ...about() });
    if (chance(0.3)) {
      chunks.push({ type: "tool-approval-request", toolCallId, approvalId: `ok-${toolCallId}`, ...(chance(0.5) ? { reason: "It deletes." } : {}) });
      if (chance(0.3)) return chunks;
      const approved = chance(0.6);
      chunks.push({ type: "tool-approval-response", approvalId: `ok-${toolCallId}`, approved, ...(chance(0.5) ? { reason: "So be it." } : {}) });
      if (!approved) return [...chunks, { type: "tool-output-denied", toolCallId }];
    }
    for (let early = below(3); early > 0; early--) chunks.push({ type: "tool-output-available", toolCallId, output: { early }, preliminary: true });
    if (chance(0.2)) return chunks;
    const end = chance(0.7) ? { type: "tool-output-available", output: pick([{ found: [1, { b: null }] }, "text", null, 7]) } : { type: "tool-output-error", errorText: "It broke." };
    return [...chunks, { ...end, toolCallId, ...about() }];
  };
  const other = () => {
    const id = `p${next++}`;
    return [
      pick([
        { type: `data-${pick(["a", "b"])}`, id: pick(["one", "two", id]), data: pick([below(100), { deep: [randomText(random, 5)] }]) },
        { type: "data-note", data: randomText(random, 9) },
        { type: "data-gone", data: 1, transient: true },
        { type: "source-url", sourceId: id, url: "https://x.test", ...about() },
        { type: "source-document", sourceId: id, mediaType: "application/pdf", title: "B", ...about() },
        { type: "file", mediaType: "image/png", url: "data:image/png;base64,iVBORw0KGgo=", ...about() },
        { type: "reasoning-file", mediaType: "image/png", url: "data:image/png;base64,AAAA", ...about() },
        { type: "custom", kind: "acme.thing", ...about() },
        { type: "message-metadata", messageMetadata: { n: below(9), [pick(["x", "y"])]: { z: below(9) } } },
      ]),
    ];
  };
  const chunks = [chance(0.5) ? { ...start, messageMetadata: { n: below(9) } } : start];
  for (let steps = 1 + below(3); steps > 0; steps--) {
    chunks.push({ type: "start-step" });
    const say = (parts) => {
      // Each part's chunks in their order, the parts in turn.
      const runs = Array.from({ length: parts }, () => pick([() => text("text"), () => text("text"), () => text("reasoning"), tool, other, other])());
      while (runs.some((run) => run.length)) chunks.push(pick(runs.filter((run) => run.length)).shift());
    };
    say(below(5));
    if (chance(0.15)) {
      chunks.push({ type: "reset-step" });
      say(below(4));
    }
    chunks.push({ type: "finish-step" });
  }
  if (ends === "finish") chunks.push({ type: "finish", ...(chance(0.3) ? { messageMetadata: { done: true } } : {}) });
  else if (ends !== "nothing") {
    chunks.length = Math.max(1, below(chunks.length));
    chunks.push(ends === "error" ? { type: "error", errorText: "Too hot." } : { type: "abort", reason: "quota" });
  }
  return chunks;
}

export function need(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these by tests/acceptance/test_js_client.py`);
  return value;
}

/** Breaks or mends a part of the running Blotter: `control("web", "kill")`. */
export async function control(name, verb) {
  const response = await fetch(`${need("CONTROL_URL")}/${name}/${verb}`, { method: "POST" });
  if (response.status !== 204) throw new Error(`${name}/${verb}: ${response.status}`);
}

let chats = 0;
export const newChat = () => `js-${process.pid}-${Date.now()}-${++chats}`;

/** A conversation straight from the API. */
export async function read(conversationId, { token = need("TOKEN"), query = "branches=all&limit=5000" } = {}) {
  const url = `${need("BASE_URL")}/api/conversations/${conversationId}?${query}`;
  for (let tries = 0; ; tries++) {
    try {
      const response = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
      if (response.status === 503 && tries < 50) throw lost();
      return response.status === 200 ? await response.json() : { status: response.status };
    } catch (error) {
      if (tries >= 50) throw error;
      await soon(100);
    }
  }
}
