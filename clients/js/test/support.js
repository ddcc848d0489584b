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
