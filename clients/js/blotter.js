/**
 * Blotter's client: saves an AI chat from the page it runs in, piece by piece, and loses none of it.
 *
 *     import { createBlotter } from "/static/blotter.js";
 *     const blotter = createBlotter({ baseUrl: "", token: () => fetchToken() });
 *     blotter.saveUserMessage("chat-1", { id: "m1", content: "Hello" });
 *     const reply = blotter.startReply("chat-1", { parentId: "m1" });
 *     reply.append("Hi "); reply.append("there"); reply.complete();
 *
 * How it works. For each item (message, tool result, artifact, the conversation's own fields) the page says what it
 * *shows*; the client remembers what the server is *sure* to hold, and derives from the two the next request: an append,
 * one part set, a few fields, or the whole item. One request an item is under way at a time; what changes meanwhile goes
 * with the next. So a lost answer, a duplicate, a gap or a restart need no special path: what is sure is corrected, and
 * the next request follows from it.
 *
 * Laws
 * 1. An item stays here until it is *stored* (committed in Postgres). A new buffer epoch makes it go out again.
 * 2. Whatever may overwrite something carries a revision of its own, so that an attempt that arrives late is refused. An
 *    append carries its offset. Both may be repeated.
 * 3. What no server has acknowledged lies in the outbox (IndexedDB) as well, and goes out from the next page, or from
 *    another tab, should this one die.
 * 4. An older snapshot of a stream gives way to what the server has; a person's edit is put on top of it.
 *
 * No dependencies. Runs in browsers and in Node 20. Clocks, timers, fetch, storage and locks can be passed in.
 *
 * @module blotter
 */

// ---------------------------------------------------------------------------------------------------- bounds

const SECOND_MS = 1000;

/** Every bound and its unit. `createBlotter({ limits })` changes single ones. */
export const LIMITS = Object.freeze({
  /** Unsent characters that make a streaming item go out at once. */
  appendChars: 100,
  /** ms; unsent characters wait at most this long. */
  appendMs: 250,
  /** ms; a silent open reply shows this often that it lives (the server gives up after 120 s). */
  heartbeatMs: 20 * SECOND_MS,
  /** ms; what changed is compared and saved at least this often, watched conversations included. */
  autosaveMs: 30 * SECOND_MS,
  /** ms; one request may take this long. Its outcome is unknown then. */
  requestMs: 30 * SECOND_MS,
  /** ms; first and longest step of the backoff (full jitter). */
  backoffMs: 500,
  backoffMaxMs: 30 * SECOND_MS,
  /** ms; after an acknowledgement, until asking whether it is stored; doubled up to autosaveMs. */
  confirmMs: SECOND_MS,
  /** s; how long such a question may be held by the server. */
  confirmWaitSeconds: 5,
  /** Requests under way at a time. */
  concurrency: 4,
  /** Bytes of all keepalive bodies under way; browsers refuse more than 64 KiB in total. */
  keepaliveBytes: 60_000,
  /** Characters of waiting items kept in memory; beyond it the outbox alone holds the oldest. */
  memoryChars: 8 * 1024 * 1024,
  /** Items, and characters, of one sync. */
  syncItems: 200,
  syncChars: 2 * 1024 * 1024,
  /** Several changes of one item are sent as one body up to this many characters. */
  bundleChars: 8192,
  /** ms; a streaming item that waits longer for its acknowledgement goes into the outbox. */
  journalMs: 250,
  /** ms; without Web Locks: a tab that did not renew its lease for so long is taken for dead. */
  leaseMs: 150 * SECOND_MS,
});

// ---------------------------------------------------------------------------------------------------- text

const HIGH = /[\ud800-\udbff]$/;
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const SUSPECT = /\\u0000|\\ud[89a-f]/i;

/** `text` with what no JSON store keeps (half surrogate pairs, NUL) replaced by U+FFFD; the length stays. */
export function wellFormed(text) {
  const formed = typeof text.isWellFormed === "function" ? text.isWellFormed() : text.search(LONE) < 0;
  const clean = formed ? text : text.replace(LONE, "\ufffd");
  return clean.includes("\0") ? clean.replaceAll("\0", "\ufffd") : clean;
}

/** `text` without a first half of a pair at its end: the second half may still come. */
export function wholePairs(text) {
  return HIGH.test(text) ? text.slice(0, -1) : text;
}

/** A copy of any JSON value, made safe to keep; undefined members are left out as JSON leaves them out. */
export function cleanJson(value) {
  const text = JSON.stringify(value);
  if (text === undefined) return null;
  return JSON.parse(text, SUSPECT.test(text) ? (_, one) => (typeof one === "string" ? wellFormed(one) : one) : undefined);
}

/** Bytes of `text` in UTF-8. */
export function utf8Length(text) {
  let bytes = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit > 0x7f) bytes += unit > 0x7ff ? 2 : 1;
    if (unit >= 0xd800 && unit < 0xdc00) {
      at++; // a pair: four bytes in two units
    }
  }
  return bytes;
}

const ID = /^[A-Za-z0-9_.~:@-]{1,256}$/;

/** `text` as an id: itself where it may be one, else a readable, stable stand-in. */
export function asId(text) {
  if (ID.test(text)) return text;
  let hash = 0xcbf29ce484222325n; // FNV-1a, 64 bits: two texts cut alike stay two ids
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return `${text.replace(/[^A-Za-z0-9_.:@-]/g, "_").slice(0, 200)}~${hash.toString(16)}`;
}

/** The id under which a tool call's result is kept: a call's own id may come again in a later message. */
export function toolResultId(messageId, toolCallId) {
  return asId(`${messageId}.${toolCallId}`);
}

/** A new id, UUID version 7: ordered by time. */
export function mintId(now = Date.now(), random = globalThis.crypto) {
  const bytes = random.getRandomValues(new Uint8Array(16));
  for (let at = 0, rest = now; at < 6; at++, rest = Math.floor(rest / 256)) bytes[5 - at] = rest % 256;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

// ---------------------------------------------------------------------------------------------------- snapshots
// A snapshot is what is shown, or known, of one item: a plain object of the API's own fields. Absent: not said.

/** Fields compared and sent whole, by kind. `content`, `parts`, `status` and links have rules of their own. */
const PLAIN = {
  conversation: ["title", "metadata", "archived", "headId"],
  message: ["role", "metadata", "parentId"],
  toolResult: ["messageId", "toolCallId", "toolName", "state", "input", "output", "errorText"],
  artifact: ["messageId", "kind", "title", "language", "mediaType", "metadata"],
};
const LINKS = { message: ["toolResultIds", "artifactIds"] };
const LISTS = { message: "messages", toolResult: "toolResults", artifact: "artifacts" };
const PATHS = { message: "messages", toolResult: "tool-results", artifact: "artifacts" };
const OPEN = new Set(["pending", "streaming"]);

const TOOL_RANKS = {
  "input-streaming": 0,
  "input-available": 1,
  "approval-requested": 2,
  "approval-responded": 3,
  "output-available": 5,
  "output-error": 5,
  "output-denied": 5,
};
const FINAL = 5;

const isOpen = (snapshot) => OPEN.has(snapshot?.status);

/** The text of a part that can be appended to; null where it has none. */
const textOf = (part) =>
  (part.type === "text" || part.type === "reasoning") && typeof part.text === "string" ? part.text : null;

/** How far a part or tool result has come, 0…5; 5 is final. The server ranks alike. */
function rankOf(value) {
  const tool = value.type === undefined || value.type === "dynamic-tool" || value.type.startsWith("tool-");
  if (!tool) return textOf(value) !== null && value.state === "streaming" ? 0 : FINAL;
  const rank = TOOL_RANKS[value.state] ?? FINAL;
  return rank === FINAL && value.preliminary === true ? 4 : rank;
}

const skeletons = new WeakMap();
/** A part's JSON with its text left out. Parts kept here are never changed in place. */
function skeletonOf(part) {
  let skeleton = skeletons.get(part);
  if (skeleton === undefined) {
    skeleton = JSON.stringify(textOf(part) === null ? part : { ...part, text: "" });
    skeletons.set(part, skeleton);
  }
  return skeleton;
}

const same = (one, other) =>
  one === other || (one ?? null) === (other ?? null) || JSON.stringify(one ?? null) === JSON.stringify(other ?? null);

/**
 * What the page shows, as a snapshot: known fields only, copied, safe to keep.
 *
 * While it streams (`open`), a text's last unit is held back if it is the first half of a pair.
 */
export function snapshotOf(kind, fields, open = OPEN.has(fields.status)) {
  const snapshot = {};
  const text = (value) => wellFormed(open ? wholePairs(value) : value);
  for (const name of PLAIN[kind]) {
    const value = fields[name];
    if (value === undefined) continue;
    snapshot[name] = typeof value === "string" ? wellFormed(value) : typeof value === "object" ? cleanJson(value) : value;
  }
  for (const name of LINKS[kind] ?? []) if (fields[name]?.length) snapshot[name] = [...fields[name]];
  if (kind === "toolResult" && fields.preliminary !== undefined) snapshot.preliminary = fields.preliminary;
  if (kind === "conversation") return snapshot;
  if (kind !== "toolResult" && fields.content !== undefined) {
    snapshot.content = fields.content === null ? null : text(fields.content);
  }
  if (kind === "message" && fields.parts !== undefined) {
    snapshot.parts =
      fields.parts?.map((part) => {
        const own = textOf(part);
        if (own === null) return cleanJson(part);
        return { ...cleanJson({ ...part, text: "" }), text: text(own) };
      }) ?? null;
  }
  if (fields.status !== undefined) snapshot.status = fields.status;
  if (fields.statusReason !== undefined) snapshot.statusReason = fields.statusReason && wellFormed(fields.statusReason);
  return snapshot;
}

/** An item as the server shows it, as a snapshot. */
export const snapshotFrom = (kind, item) => snapshotOf(kind, item, false);

/** About how many characters a snapshot holds. */
export function sizeOf(snapshot) {
  let size = 256 + (snapshot.content?.length ?? 0) + (snapshot.errorText?.length ?? 0);
  for (const part of snapshot.parts ?? []) size += skeletonOf(part).length + (textOf(part)?.length ?? 0);
  for (const name of ["metadata", "input", "output"]) {
    if (snapshot[name] !== undefined && snapshot[name] !== null) size += JSON.stringify(snapshot[name]).length;
  }
  return size;
}

/** How much of a stream a snapshot has: parts first begun, then their text. */
function progress(kind, snapshot) {
  if (kind === "toolResult") return rankOf({ state: snapshot.state, preliminary: snapshot.preliminary });
  let units = snapshot.content?.length ?? 0;
  for (const part of snapshot.parts ?? []) units += 1 + rankOf(part) + (textOf(part)?.length ?? 0);
  return units;
}

// ---------------------------------------------------------------------------------------------------- the next step

/**
 * The request that brings the server from `known` closer to `want`; null where nothing is missing.
 *
 * `known` null: the server is not known to hold anything. Pure; the laws of section 2 rest on it.
 *
 * @returns {{method: string, path: string, body: object|null, after: object, rewrites: boolean, whole: boolean}|null}
 *   `path` below the conversation; `after`: what is known once it is acknowledged; `rewrites`: it may replace something
 *   or end the item, so it needs a revision of its own; `whole`: it carries the entire item.
 */
export function nextStep(kind, id, known, want, limits = LIMITS) {
  const path = kind === "conversation" ? "" : `/${PATHS[kind]}`;
  const one = kind === "conversation" ? "" : `${path}/${encodeURIComponent(id)}`;
  const named = kind === "conversation" ? {} : { id };
  const put = kind === "conversation" ? "PATCH" : "PUT";
  if (want.deleted) {
    return known?.deleted ? null : { method: "DELETE", path: one, body: null, after: { deleted: true }, rewrites: false, whole: false };
  }
  if (known === null) {
    const method = kind === "conversation" || (kind === "message" && !want.role) ? put : "POST";
    return { method, path, body: { ...named, ...want }, after: { ...want }, rewrites: kind === "conversation" || !isOpen(want), whole: true };
  }

  const fields = {};
  for (const name of PLAIN[kind]) if (name in want && !same(known[name], want[name])) fields[name] = want[name];
  for (const name of LINKS[kind] ?? []) {
    const have = new Set(known[name] ?? []);
    if ((want[name] ?? []).some((link) => !have.has(link))) fields[name] = want[name];
  }
  if ("state" in fields || (kind === "toolResult" && Object.keys(fields).length)) {
    for (const name of ["state", "preliminary"]) if (want[name] !== undefined) fields[name] = want[name];
  }
  const turned = (want.status ?? known.status) !== known.status;
  const status = {};
  if (turned) status.status = want.status;
  if (want.statusReason !== undefined && !same(want.statusReason, known.statusReason)) status.statusReason = want.statusReason;
  const reopens = turned && isOpen(want) && known.status !== undefined && !isOpen(known);
  const ends = turned && !isOpen(want);
  const growing = isOpen(known) || reopens;
  const streams = isOpen(known) && !ends;

  // Texts and parts: steps where they only grow, else whole.
  const steps = [];
  let rewritten = false;
  if (want.content !== undefined && (want.content ?? "") !== (known.content ?? "")) {
    const have = known.content ?? "";
    if (streams && have.startsWith(want.content ?? "")) {
      // An older snapshot of a stream: the server has more already.
    } else if (growing && want.content?.startsWith(have)) {
      steps.push({
        body: { append: { offset: have.length, text: want.content.slice(have.length) } },
        after: { content: want.content },
        rewrites: false,
      });
    } else {
      fields.content = want.content;
      rewritten = true;
    }
  }
  if (want.parts !== undefined) {
    const have = known.parts ?? [];
    const shown = want.parts ?? [];
    if ((shown.length < have.length && !streams) || (want.parts === null) !== (known.parts == null && want.parts === null)) {
      fields.parts = want.parts;
      rewritten = true;
    } else {
      // While it streams, fewer parts are an older snapshot; what was taken back goes at the end.
      const now = [...have];
      for (let index = 0; index < shown.length; index++) {
        const step = partStep(index, have[index], shown[index], growing, streams);
        if (step === null) continue;
        now[index] = shown[index];
        steps.push({ ...step, after: { parts: [...now] } });
      }
    }
  }

  const plain = Object.keys(fields).length > 0;
  if (!plain && steps.length === 0) {
    if (Object.keys(status).length === 0) return null;
    const after = { ...known, ...status };
    if (kind === "toolResult") return { method: "PUT", path, body: { id, ...status }, after, rewrites: true, whole: false };
    const body = { append: { offset: 0, text: "" }, ...status };
    return { method: "PATCH", path: one, body, after, rewrites: ends || reopens || !turned, whole: false };
  }
  if (plain || steps.length > 1) {
    const texts = {};
    for (const step of steps) for (const name of Object.keys(step.after)) texts[name] = want[name];
    const bundle = { ...named, ...fields, ...texts, ...status };
    if (steps.length === 0 || JSON.stringify(bundle).length <= limits.bundleChars) {
      const rewrites = plain || ends || reopens || rewritten || steps.some((step) => step.rewrites);
      return { method: put, path, body: bundle, after: { ...known, ...fields, ...texts, ...status }, rewrites, whole: false };
    }
    if (plain) {
      const early = reopens ? status : {};
      return { method: put, path, body: { ...named, ...fields, ...early }, after: { ...known, ...fields, ...early }, rewrites: true, whole: false };
    }
  }
  // One step; an end waits for the last of them, a new beginning goes with the first.
  const step = steps[0];
  const beside = steps.length === 1 || !ends ? status : {};
  const rewrites = step.rewrites || reopens || (ends && steps.length === 1);
  return { method: "PATCH", path: one, body: { ...step.body, ...beside }, after: { ...known, ...step.after, ...beside }, rewrites, whole: false };
}

/** The step for one part; null where it is as known. */
function partStep(index, had, part, growing, streams) {
  const set = (rewrites) => ({ body: { part: { index, value: part } }, rewrites });
  if (had === undefined) return set(!growing);
  const text = textOf(part);
  const old = textOf(had);
  if (skeletonOf(had) === skeletonOf(part)) {
    if (text === old || (streams && rankOf(part) < FINAL && old.startsWith(text))) return null;
    if (growing && text.startsWith(old)) {
      return { body: { append: { part: index, offset: old.length, text: text.slice(old.length) } }, rewrites: false };
    }
    return set(true);
  }
  if (streams && rankOf(part) < rankOf(had) && (text === null || old?.startsWith(text))) return null; // an older one
  // Forward without a revision: a final state over an open one, a text that only grew.
  const forward = growing && rankOf(part) > rankOf(had) && (text === null || old === null || text.startsWith(old));
  return set(!forward);
}

/**
 * What to do when the server holds another version of an item than we thought.
 *
 * "keep": ours is an older snapshot of the stream, the server's stands. "rebase": ours goes on top of it.
 *
 * @param {object} item `kind`, `mode` ("edit" or "stream"), `want`,, and whether it `reopens`, `resends`, or is
 *   `open`: this page is writing it just now
 * @param {object} current the server's snapshot
 * @param {boolean} newer the server's version is above the one this item was acknowledged with
 */
export function resolve({ kind, mode, want, reopens, resends, open: live }, current, newer) {
  if (resends && newer) return "keep"; // ours was acknowledged before theirs
  if (mode === "edit") return "rebase";
  if (reopens) return "rebase"; // the page goes on with a finished item on purpose
  if (isOpen(current)) return !live && isOpen(want) && progress(kind, current) > progress(kind, want) ? "keep" : "rebase";
  if (current.status === "interrupted" && isOpen(want)) return "keep"; // stopped elsewhere
  return progress(kind, current) >= progress(kind, want) ? "keep" : "rebase";
}

// ---------------------------------------------------------------------------------------------------- backoff

/** Full jitter: anything up to the doubled step, never less than what the server asked for. */
export function backoffMs(failures, retryAfterMs, random, limits = LIMITS) {
  const ceiling = Math.min(limits.backoffMaxMs, limits.backoffMs * 2 ** Math.min(failures, 16));
  return Math.max(retryAfterMs, Math.round(random() * ceiling));
}

/** Milliseconds that a `Retry-After` header asks for (seconds, or a date); 0 where there is none. */
export function retryAfterMs(header, now) {
  if (!header) return 0;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * SECOND_MS);
  const date = Date.parse(header);
  return Number.isNaN(date) ? 0 : Math.max(0, date - now);
}

// ---------------------------------------------------------------------------------------------------- errors

/** A refusal of the server (RFC 9457), or no answer at all (`status` 0: the outcome is unknown). */
export class BlotterError extends Error {
  constructor(status, body = {}, retryAfter = 0, cause = undefined) {
    super(body.detail ?? body.title ?? (status ? `Status ${status}` : "No answer"), { cause });
    this.name = "BlotterError";
    this.status = status;
    /** The problem's kind, such as "stale-revision"; empty where the answer was no problem document. */
    this.kind = typeof body.type === "string" ? body.type.split("/").pop() : "";
    this.problem = body;
    this.retryAfterMs = retryAfter;
  }
}

// ---------------------------------------------------------------------------------------------------- outbox

const DATABASE = "blotter";
const ROWS = "outbox";
const LEASES = "leases";

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
const committed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

/**
 * What no server has acknowledged, in IndexedDB: `{key, account, tab, at, conversationId, kind, id, want, …}`.
 *
 * A row belongs to the tab that wrote it, "" to nobody. Only a tab whose owner is gone is robbed of its rows, and only
 * by one (a transaction decides). Without IndexedDB all of this does nothing: memory alone keeps.
 */
export class Outbox {
  #open;
  #database = null;

  constructor(indexedDB) {
    this.available = Boolean(indexedDB);
    this.#open = this.available ? this.#connect(indexedDB) : Promise.resolve(null);
    this.#open.catch(() => {});
  }

  async #connect(indexedDB) {
    try {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(ROWS, { keyPath: "key" }).createIndex("account", "account");
        request.result.createObjectStore(LEASES, { keyPath: "tab" });
      };
      this.#database = await settled(request);
      this.#database.onversionchange = () => this.close(); // a newer page upgrades: let go
      return this.#database;
    } catch {
      this.available = false; // private windows of some browsers, no space: saving goes on without
      return null;
    }
  }

  /** Ready for writes that do not wait: a page that goes away has no time left. */
  get ready() {
    return this.#open;
  }

  close() {
    this.#database?.close();
    this.#database = null;
    this.available = false;
  }

  /**
   * Writes rows, and removes those they stand for, in one. Begins at once when the database is open; resolves when they
   * are kept, to whether they are.
   */
  put(rows, replaced = []) {
    return this.#write((store) => {
      rows.forEach((row) => store.put(row));
      replaced.forEach((key) => store.delete(key));
    });
  }

  remove(keys) {
    return this.#write((store) => keys.forEach((key) => store.delete(key)));
  }

  async #write(change, stores = ROWS) {
    const database = this.#database ?? (await this.#open);
    if (!database) return false;
    try {
      const transaction = database.transaction(stores, "readwrite");
      change(transaction.objectStore(stores));
      transaction.commit?.();
      await committed(transaction);
      return true;
    } catch {
      return false;
    }
  }

  /** All rows of an account, in the order their items were first said. */
  async rows(account) {
    const database = await this.#open;
    if (!database) return [];
    try {
      const found = await settled(database.transaction(ROWS).objectStore(ROWS).index("account").getAll(account));
      return found.sort((one, other) => one.at - other.at || one.order - other.order);
    } catch {
      return [];
    }
  }

  /** Makes `keys`, as far as they still belong to one of `tabs`, `tab`'s own; resolves to those rows, in that order. */
  async claim(keys, tabs, tab) {
    const database = await this.#open;
    if (!database || keys.length === 0) return [];
    const claimed = [];
    try {
      const transaction = database.transaction(ROWS, "readwrite");
      const store = transaction.objectStore(ROWS);
      for (const key of keys) {
        const request = store.get(key);
        request.onsuccess = () => {
          const row = request.result;
          if (!row || !tabs.has(row.tab)) return;
          row.tab = tab;
          claimed.push(row);
          store.put(row);
        };
      }
      await committed(transaction);
      return claimed;
    } catch {
      return [];
    }
  }

  renew(tab, until) {
    return this.#write((store) => store.put({ tab, until }), LEASES);
  }

  release(tab) {
    return this.#write((store) => store.delete(tab), LEASES);
  }

  /** The tabs whose lease runs. */
  async leased(now) {
    const database = await this.#open;
    if (!database) return new Set();
    const found = await settled(database.transaction(LEASES).objectStore(LEASES).getAll());
    return new Set(found.filter((lease) => lease.until > now).map((lease) => lease.tab));
  }
}

/** Which tabs live: each holds a Web Lock as long as it does; where there are none, a lease it renews. */
class Tab {
  #locks;
  #outbox;
  #now;
  #leaseMs;
  #release = () => {};

  constructor(id, { locks, outbox, now, leaseMs }) {
    this.id = id;
    this.#locks = locks;
    this.#outbox = outbox;
    this.#now = now;
    this.#leaseMs = leaseMs;
    /** Resolves once the others can see that this tab lives; rows are written only then. */
    this.ready = locks ? new Promise((seen) => this.#hold(seen)) : this.renew();
  }

  #hold(seen) {
    const until = new Promise((release) => {
      this.#release = release;
    });
    const held = () => {
      seen();
      return until;
    };
    Promise.resolve(this.#locks.request(`blotter:${this.id}`, held)).catch(seen);
  }

  renew() {
    return this.#locks ? Promise.resolve() : this.#outbox.renew(this.id, this.#now() + this.#leaseMs);
  }

  /** Those of `tabs` that are gone. */
  async dead(tabs) {
    let alive;
    if (this.#locks) {
      const { held = [] } = await this.#locks.query();
      alive = new Set(held.map((lock) => lock.name.replace(/^blotter:/, "")));
    } else {
      alive = await this.#outbox.leased(this.#now());
    }
    return new Set([...tabs].filter((tab) => tab !== this.id && !alive.has(tab)));
  }

  end() {
    this.#release();
    return this.#locks ? Promise.resolve() : this.#outbox.release(this.id);
  }
}

// ---------------------------------------------------------------------------------------------------- items

let orders = 0;

/** One thing that is kept, and all we know of it. Changed by `Blotter` alone. */
class Item {
  constructor(kind, conversationId, id) {
    this.kind = kind;
    this.conversationId = conversationId;
    this.id = id;
    this.key = `${conversationId}\n${kind}\n${id}`;
    this.order = ++orders;
    this.at = 0; // ms; when it was first said, here or on the page it was taken over from; 0: the server had it before
    this.want = null;
    this.known = null;
    this.source = null; // () => fields: what is shown, asked for when it is about to be sent
    this.mode = "edit";
    this.revision = null;
    this.version = 0;
    this.epoch = null;
    this.stored = false;
    this.acked = false; // the server has acknowledged something of it
    this.changes = 0;
    this.sent = 0; // `changes` that are acknowledged
    this.unsent = 0; // characters since the last request
    this.dueAt = null;
    this.notBefore = 0;
    this.failures = 0;
    this.conflicts = 0;
    this.flight = null;
    this.confirmAt = null;
    this.confirms = 0;
    this.aliveAt = 0;
    this.reply = null;
    this.reopens = false;
    this.resends = false;
    this.lost = false;
    this.alone = false; // not together with others: one bad item would spoil the sync
    this.failed = null;
    this.adopted = false; // taken over from the outbox
    this.own = false; // this page has said something of it
    this.rows = new Set();
    this.journalAt = null;
    this.state = null;
  }

  get dirty() {
    return this.failed === null && (this.flight !== null || this.dueAt !== null || this.sent !== this.changes);
  }

  get open() {
    return this.reply !== null && !this.reply.ended;
  }
}

// ---------------------------------------------------------------------------------------------------- Blotter

/** The way by which a Reply, and nobody else, reaches into its Blotter. */
const REPLY = Symbol("reply");
const REPLY_DOOR = Object.freeze({});

const TRANSIENT = new Set([0, 408, 425, 429, 500, 502, 503, 504]);
/** Kinds of 503 that concern one conversation, not the service. */
const LOCAL_KINDS = new Set(["contention", "unavailable", "store-unavailable"]);

/**
 * The client of one page. Make it with `createBlotter`.
 *
 * Events (it is an EventTarget): `state` {conversationId, kind, id, state, error}; `superseded` {…, current} where the
 * server's version of an item replaced ours; `unauthorized`; `connection` {online}.
 */
export class Blotter extends EventTarget {
  #env;
  #limits;
  #base;
  #events;
  #token;
  #tokenText = null;
  #owner;
  #account;
  #items = new Map();
  #active = new Set();
  #conversations = new Map(); // id -> {notBefore, failures, confirming, behind: older rows still in the outbox, epochs}
  #waiters = new Map();
  #watches = new Map();
  #flights = 0;
  #confirming = 0;
  #keepalive = 0;
  #gateAt = 0;
  #gateFailures = 0;
  #timer = null;
  #timerAt = Infinity;
  #autosaveAt;
  #outbox;
  #tab;
  #disposed = false;
  #requests = new Set(); // the controllers of those under way
  #listeners = [];
  #guarding = false;
  #replaying = null;
  #away = false;
  #holding = false;
  #more = false; // rows wait in the outbox for room in memory

  constructor(options = {}) {
    super();
    const scope = options.env?.globalThis ?? globalThis;
    this.#env = {
      fetch: (...args) => scope.fetch(...args),
      now: () => Date.now(),
      random: () => Math.random(),
      setTimeout: (run, ms) => scope.setTimeout(run, ms),
      clearTimeout: (timer) => scope.clearTimeout(timer),
      crypto: scope.crypto,
      indexedDB: scope.indexedDB,
      locks: scope.navigator?.locks,
      document: scope.document,
      window: typeof scope.addEventListener === "function" && scope.document ? scope : undefined,
      ...options.env,
    };
    this.#limits = { ...LIMITS, ...options.limits };
    this.#base = (options.baseUrl ?? "").replace(/\/+$/, "");
    this.#events = (options.eventsUrl ?? this.#base).replace(/\/+$/, "");
    this.#token = options.token;
    if (typeof options.token === "string") this.#tokenText = options.token;
    this.#owner = options.owner;
    this.#autosaveAt = this.#env.now() + this.#limits.autosaveMs;
    this.#outbox = options.outbox ?? new Outbox(this.#env.indexedDB);
    this.#tab = new Tab(mintId(this.#env.now(), this.#env.crypto), {
      locks: this.#env.locks,
      outbox: this.#outbox,
      now: this.#env.now,
      leaseMs: this.#limits.leaseMs,
    });
    if (options.onState) this.addEventListener("state", (event) => options.onState(event.detail));
    this.#listen();
    this.#wake(this.#autosaveAt);
    this.replay();
  }

  /** The tab's name in the outbox. */
  get tab() {
    return this.#tab.id;
  }

  /** How many items the server has not acknowledged as they are shown. */
  get unsaved() {
    let count = 0;
    for (const item of this.#active) if (item.dirty) count++;
    return count;
  }

  /** How many are not yet known to be stored in Postgres. */
  get unstored() {
    let count = 0;
    for (const item of this.#active) if (item.dirty || !item.stored) count++;
    return count;
  }

  // ------------------------------------------------------------------------------------------------ the eight

  /** Saves what a person said: `{id?, content?, parts?, metadata?, parentId?}`. A known id: an edit. */
  saveUserMessage(conversationId, message, options) {
    return this.#message(conversationId, { role: "user", ...message }, "edit", options);
  }

  /** Saves an assistant's message, or as much of it as there is (`status: "streaming"`). Streams: see `startReply`. */
  saveAssistantMessage(conversationId, message, options) {
    return this.#message(conversationId, { role: "assistant", ...message }, "stream", options);
  }

  /** Saves or changes any message; fields left out stay as they are. */
  saveOrUpdateMessage(conversationId, message, options) {
    return this.#message(conversationId, message, OPEN.has(message.status) ? "stream" : "edit", options);
  }

  /** Saves a tool call with what it was given and what it returned. The id is made of messageId and toolCallId. */
  saveToolResult(conversationId, result, options) {
    const id = result.id ?? (result.messageId ? toolResultId(result.messageId, result.toolCallId) : asId(result.toolCallId));
    return this.#save("toolResult", conversationId, id, result, { mode: "stream", ...options });
  }

  /** Changes a tool result: its state, output or error. */
  updateToolResult(conversationId, result, options) {
    return this.saveToolResult(conversationId, result, options);
  }

  /** Saves an artifact: `{id?, messageId?, kind?, title?, language?, mediaType?, content?, metadata?}`. */
  saveArtifact(conversationId, artifact, options) {
    return this.#save("artifact", conversationId, artifact.id ?? this.mintId(), artifact, { mode: "edit", ...options });
  }

  /** Changes an artifact; complete new content becomes a version of its own. */
  updateArtifact(conversationId, artifact, options) {
    return this.saveArtifact(conversationId, artifact, options);
  }

  /**
   * Saves what changed of a state `{conversation?, messages?, toolResults?, artifacts?}`; resolves when acknowledged.
   *
   * Never deletes. `full`: sends everything, also what is known to be there. Without a state: all that waits, now.
   */
  async syncConversationState(conversationId, state = undefined, { full = false } = {}) {
    const saves = [];
    this.#holding = true; // all of it in one request
    try {
      if (state?.conversation) saves.push(this.updateConversation(conversationId, state.conversation));
      for (const message of state?.messages ?? []) saves.push(this.saveOrUpdateMessage(conversationId, message));
      for (const result of state?.toolResults ?? []) saves.push(this.saveToolResult(conversationId, result));
      for (const artifact of state?.artifacts ?? []) saves.push(this.saveArtifact(conversationId, artifact));
      if (full) this.#unlearn(conversationId);
      for (const item of this.#active) {
        if (item.conversationId !== conversationId || !item.dirty) continue;
        item.dueAt = this.#env.now();
        saves.push(this.#promise(item));
      }
    } finally {
      this.#holding = false;
    }
    this.#pump();
    return Promise.all(saves);
  }

  /** Makes everything of a conversation go out again. */
  #unlearn(conversationId) {
    for (const item of this.#items.values()) {
      if (item.conversationId !== conversationId || item.failed || (item.want ?? item.known) === null) continue;
      item.want ??= item.known;
      if (item.want.deleted) continue;
      if (!item.dirty) item.resends = true;
      item.known = null;
      item.stored = false;
      this.#touch(item, 0);
    }
  }

  // ------------------------------------------------------------------------------------------------ conversations

  /** Changes a conversation's own fields: title, metadata, archived, headId. Creates it where it is new. */
  updateConversation(conversationId, fields, options) {
    return this.#save("conversation", conversationId, conversationId, fields, { mode: "edit", ...options });
  }

  /** Creates a conversation; resolves to what the server said. Not needed: the first save creates one. */
  createConversation({ id = this.mintId(), ...fields } = {}) {
    return this.updateConversation(id, fields);
  }

  renameConversation(conversationId, title) {
    return this.updateConversation(conversationId, { title });
  }

  archiveConversation(conversationId, archived = true) {
    return this.updateConversation(conversationId, { archived });
  }

  /** The message shown last: reading follows the path of parents to it. */
  setHead(conversationId, headId) {
    return this.updateConversation(conversationId, { headId });
  }

  /** Deletes a conversation with all that is in it. Late saves do not revive it. */
  deleteConversation(conversationId) {
    for (const item of [...this.#items.values()]) {
      if (item.conversationId === conversationId && item.kind !== "conversation") this.#drop(item);
    }
    return this.#delete("conversation", conversationId, conversationId);
  }

  deleteMessage(conversationId, id) {
    return this.#delete("message", conversationId, id);
  }

  deleteToolResult(conversationId, id) {
    return this.#delete("toolResult", conversationId, id);
  }

  deleteArtifact(conversationId, id) {
    return this.#delete("artifact", conversationId, id);
  }

  /** Compares what `state()` gives every 30 s, and when the page goes, and saves what changed. Returns the end of it. */
  watch(conversationId, state) {
    const watch = { conversationId, state };
    this.#watches.set(watch, watch);
    return () => this.#watches.delete(watch);
  }

  /** Begins, or goes on with, a streamed reply. See `Reply`. */
  startReply(conversationId, message = {}) {
    return new Reply(this, REPLY_DOOR, conversationId, message);
  }

  mintId() {
    return mintId(this.#env.now(), this.#env.crypto);
  }

  /** "typing", "waiting", "buffered", "stored", "failed"; undefined where nothing is known of it. */
  stateOf(conversationId, kind, id) {
    return this.#items.get(`${conversationId}\n${kind}\n${id}`)?.state ?? undefined;
  }

  /** Items refused for good, with the reason; the next save of one tries again. */
  failures() {
    return [...this.#items.values()]
      .filter((item) => item.failed)
      .map(({ conversationId, kind, id, failed, want }) => ({ conversationId, kind, id, error: failed, fields: want }));
  }

  /** Forgets an item that was refused. */
  discard(conversationId, kind, id) {
    const item = this.#items.get(`${conversationId}\n${kind}\n${id}`);
    if (item?.failed) this.#drop(item);
  }

  /** A new token, where it was given as a string. */
  setToken(token) {
    this.#token = token;
    this.#tokenText = typeof token === "string" ? token : null;
    this.retry();
  }

  /** Tries at once what waits for the next attempt. */
  retry() {
    this.#gateAt = 0;
    for (const conversation of this.#conversations.values()) conversation.notBefore = 0;
    for (const item of this.#active) item.notBefore = 0;
    this.#pump();
  }

  /** Resolves when nothing is unsaved (`until: "buffered"`) or all is in Postgres (`"stored"`), or `timeoutMs` passed. */
  async flush({ until = "buffered", timeoutMs = Infinity } = {}) {
    const end = this.#env.now() + timeoutMs;
    const left = () => (until === "stored" ? this.unstored : this.unsaved);
    for (const item of this.#active) {
      if (item.dueAt !== null) item.dueAt = Math.min(item.dueAt, this.#env.now());
      if (until === "stored" && item.confirmAt !== null) item.confirmAt = this.#env.now();
    }
    this.#pump();
    while (left() > 0 && this.#env.now() < end && !this.#disposed) {
      await new Promise((next) => this.#env.setTimeout(next, 20));
    }
    return left() === 0;
  }

  /** Ends it: what is unsaved goes to the outbox, timers and listeners go. Resolves when all is kept. */
  async dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#env.clearTimeout(this.#timer);
    for (const [target, name, listener] of this.#listeners) target.removeEventListener(name, listener);
    if (this.#guarding) this.#env.window.removeEventListener("beforeunload", this.#onLeave);
    for (const controller of this.#requests) controller.abort();
    await this.#journal([...this.#active].filter((item) => this.#keepsRow(item)), "");
    await this.#tab.end();
    this.#outbox.close();
  }

  // ------------------------------------------------------------------------------------------------ saving

  #message(conversationId, message, mode, options) {
    return this.#save("message", conversationId, message.id ?? this.mintId(), message, { mode, ...options });
  }

  #item(kind, conversationId, id) {
    const key = `${conversationId}\n${kind}\n${id}`;
    let item = this.#items.get(key);
    if (!item) {
      item = new Item(kind, conversationId, id);
      this.#items.set(key, item);
      this.#conversation(conversationId);
    }
    return item;
  }

  #conversation(id) {
    let conversation = this.#conversations.get(id);
    if (!conversation) {
      conversation = { notBefore: 0, failures: 0, confirming: false, behind: 0, epochs: [] };
      this.#conversations.set(id, conversation);
    }
    return conversation;
  }

  #save(kind, conversationId, id, fields, { mode, until } = {}) {
    const item = this.#item(kind, conversationId, id);
    const now = snapshotOf(kind, fields);
    const want = { ...(item.want ?? item.known ?? {}), ...now };
    if (Number.isSafeInteger(fields.revision)) item.revision = Math.max(item.revision ?? 0, fields.revision - 1);
    item.mode = mode;
    if (item.want?.deleted || item.known?.deleted) return Promise.reject(new BlotterError(410, { title: "Deleted" }));
    item.want = want;
    if (item.known !== null && !item.dirty && nextStep(kind, id, item.known, want, this.#limits) === null) {
      if (!this.#active.has(item) && item.state === null) this.#state(item);
      return this.#promise(item, until); // nothing new
    }
    this.#touch(item, 0);
    this.#keepRow(item);
    this.#pump();
    return this.#promise(item, until);
  }

  #delete(kind, conversationId, id) {
    const item = this.#item(kind, conversationId, id);
    item.reply?.detach();
    item.want = { deleted: true };
    item.mode = "edit";
    this.#touch(item, 0);
    this.#keepRow(item);
    this.#pump();
    return this.#promise(item);
  }

  /** Notes that an item changed and is to go out in `ms`. */
  #touch(item, ms) {
    const now = this.#env.now();
    if (!item.acked) item.at ||= now;
    item.own = true;
    item.changes++;
    item.failed = null;
    if (item.want !== null && item.known !== null) item.resends = false;
    item.confirmAt = null;
    item.dueAt = Math.min(item.dueAt ?? Infinity, now + ms);
    this.#active.add(item);
    this.#state(item);
    this.#wake(item.dueAt);
  }

  /** Resolves when an item, as it is shown now, is acknowledged, or stored; rejects when it is refused for good. */
  #promise(item, until = "buffered") {
    const promise = new Promise((resolve, reject) => {
      const waiter = { until, changes: item.changes, resolve, reject };
      const waiters = this.#waiters.get(item.key) ?? [];
      waiters.push(waiter);
      this.#waiters.set(item.key, waiters);
    });
    promise.catch(() => {}); // who does not look is told by the state
    this.#answerWaiters(item);
    return promise;
  }

  #answerWaiters(item) {
    const waiters = this.#waiters.get(item.key);
    if (!waiters) return;
    const left = waiters.filter((waiter) => {
      if (item.failed) waiter.reject(item.failed);
      else if (item.sent < waiter.changes) return true;
      else if (waiter.until === "stored" && !item.stored) return true;
      else waiter.resolve({ id: item.id, revision: item.revision, version: item.version, state: item.stored ? "stored" : "buffered" });
      return false;
    });
    if (left.length) this.#waiters.set(item.key, left);
    else this.#waiters.delete(item.key);
  }

  #drop(item) {
    item.flight?.controller.abort();
    item.reply?.detach();
    this.#active.delete(item);
    this.#items.delete(item.key);
    this.#waiters.delete(item.key);
    if (item.rows.size) this.#outbox.remove([...item.rows]);
  }

  // ------------------------------------------------------------------------------------------------ states

  #state(item) {
    const busy = this.#gateFailures > 0 || item.failures > 0 || this.#conversations.get(item.conversationId)?.failures > 0;
    let state = item.stored ? "stored" : "buffered";
    if (item.failed) state = "failed";
    else if (item.dirty && busy) state = "waiting";
    else if (item.open) state = "typing";
    else if (item.dirty) state = item.mode === "stream" && item.acked ? "typing" : "waiting";
    this.#guard();
    if (state === item.state) return;
    item.state = state;
    const { conversationId, kind, id, failed } = item;
    this.#emit("state", { conversationId, kind, id, state, error: failed ?? undefined });
  }

  #emit(name, detail) {
    const event = new Event(name);
    event.detail = detail;
    this.dispatchEvent(event);
  }

  // ------------------------------------------------------------------------------------------------ the queue

  #wake(at) {
    if (this.#disposed) return;
    if (at >= this.#timerAt) {
      if (this.#active.size > 0) this.#timer?.ref?.();
      return;
    }
    this.#env.clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = this.#env.setTimeout(() => {
      this.#timerAt = Infinity;
      this.#pump();
    }, Math.max(0, at - this.#env.now()));
    if (this.#active.size === 0) this.#timer?.unref?.(); // Node: a client with nothing to do keeps no process alive
  }

  /** Sends what is due, as far as the server, the order of creation and the number of requests allow. */
  #pump() {
    if (this.#disposed || this.#holding) return;
    const now = this.#env.now();
    if (now >= this.#autosaveAt) this.#autosave(now);
    this.#wake(this.#autosaveAt);
    this.#journalDue(now);
    if (now < this.#gateAt) return this.#wake(this.#gateAt);

    const fresh = new Map(); // conversation id -> items to create, in order
    const creating = new Set();
    const ready = [];
    for (const item of this.#active) {
      if (item.flight !== null) {
        if (item.flight.step.whole) creating.add(item.conversationId);
        continue;
      }
      this.#beat(item, now);
      if (item.dueAt === null || item.failed) {
        if (item.confirmAt !== null) this.#confirmWhenDue(item, now);
        continue;
      }
      const at = Math.max(item.dueAt, item.notBefore, this.#conversations.get(item.conversationId).notBefore);
      if (at > now) {
        this.#wake(at);
        if (item.known === null && item.notBefore > now) creating.add(item.conversationId);
        continue;
      }
      if (item.known === null && item.kind !== "conversation" && !item.want?.deleted) {
        if (this.#conversations.get(item.conversationId).behind > 0 && !item.adopted) continue; // older ones first
        const list = fresh.get(item.conversationId) ?? [];
        list.push(item);
        fresh.set(item.conversationId, list);
      } else {
        ready.push(item);
      }
    }
    const room = () => this.#flights < (this.#gateFailures > 0 ? 1 : this.#limits.concurrency);
    for (const [conversationId, items] of fresh) {
      // New items stand in the order of their first acceptance, so one creation after the other, or one sync.
      if (creating.has(conversationId) || !room()) continue;
      this.#create(conversationId, items.sort((one, other) => one.at - other.at || one.order - other.order));
    }
    for (const item of ready) {
      if (!room()) break;
      this.#send(item);
    }
  }

  #create(conversationId, items) {
    const single = items.find((item) => item.alone || (item.kind === "message" && !item.want?.role && !item.source));
    const first = single === items[0] ? [single] : items.filter((item) => !item.alone);
    const group = [];
    let chars = 0;
    for (const item of first) {
      this.#materialise(item);
      if (item.kind === "message" && !item.want.role && group.length) break;
      chars += sizeOf(item.want);
      if (group.length && (group.length >= this.#limits.syncItems || chars > this.#limits.syncChars)) break;
      group.push(item);
      if (item.alone || (item.kind === "message" && !item.want.role)) break;
    }
    if (group.length === 1) this.#send(group[0]);
    else if (group.length) this.#sync(conversationId, group);
  }

  #materialise(item) {
    if (item.source === null) return;
    const fields = item.source();
    item.source = null;
    item.want = { ...(item.want ?? item.known ?? {}), ...snapshotOf(item.kind, fields, OPEN.has(fields.status)) };
  }

  /** The request for an item's next step; null where nothing is missing. Takes a revision where one is needed. */
  #step(item) {
    this.#materialise(item);
    const step = nextStep(item.kind, item.id, item.known, item.want, this.#limits);
    if (step === null || step.body === null) return step;
    if (item.resends && step.whole) {
      if (item.revision === null && step.rewrites) item.revision = 1;
    } else if (step.rewrites) {
      item.revision = (item.revision ?? 0) + 1;
    }
    if (item.revision !== null) step.body = { ...step.body, revision: item.revision };
    return step;
  }

  #take(item, step, controller, keepalive = false) {
    item.flight = { step, controller, keepalive, changes: item.changes };
    item.dueAt = null;
    item.unsent = 0;
    item.confirmAt = null;
  }

  async #send(item, { keepalive = false, step = this.#step(item) } = {}) {
    if (step === null) return this.#clean(item);
    const controller = new AbortController();
    this.#take(item, step, controller, keepalive);
    const flight = item.flight;
    try {
      const answer = await this.#call(step.method, this.#path(item.conversationId) + step.path, {
        text: step.body === null ? undefined : JSON.stringify(step.body),
        controller,
        keepalive,
      });
      this.#arrived(item, flight, answer);
    } catch (error) {
      this.#refused(item, flight, error);
    }
    this.#pump();
  }

  /** Several new items at once. */
  async #sync(conversationId, items, { keepalive = false } = {}) {
    const controller = new AbortController();
    const flights = new Map();
    const body = { messages: [], toolResults: [], artifacts: [] };
    for (const item of items) {
      const step = this.#step(item);
      if (step === null) {
        this.#clean(item);
        continue;
      }
      this.#take(item, step, controller, keepalive);
      flights.set(item, item.flight);
      body[LISTS[item.kind]].push(step.body);
    }
    try {
      const answer = await this.#call("POST", `${this.#path(conversationId)}/sync`, { text: JSON.stringify(body), controller, keepalive });
      const outcomes = new Map((answer?.items ?? []).map((one) => [`${conversationId}\n${one.kind}\n${one.id}`, one]));
      for (const [item, flight] of flights) {
        const outcome = outcomes.get(item.key);
        if (!outcome) this.#refused(item, flight, new BlotterError(0));
        else if (outcome.status < 300) this.#arrived(item, flight, { ...outcome, state: answer.state, bufferEpoch: answer.bufferEpoch });
        else this.#refused(item, flight, new BlotterError(outcome.status, outcome));
      }
    } catch (error) {
      // One bad item, or too many at once: each alone then.
      const together = error instanceof BlotterError && [400, 413, 422].includes(error.status) && flights.size > 1;
      for (const [item, flight] of flights) {
        if (together) {
          item.alone = true;
          if (item.flight === flight) item.flight = null;
          item.dueAt = this.#env.now();
        } else {
          this.#refused(item, flight, error);
        }
      }
    }
    this.#pump();
  }

  #path(conversationId) {
    return `/api/conversations/${encodeURIComponent(conversationId)}`;
  }

  // ------------------------------------------------------------------------------------------------ answers

  #arrived(item, flight, answer) {
    this.#reached();
    if (item.flight !== flight) return; // aborted for a keepalive request that says as much
    item.flight = null;
    item.failures = 0;
    this.#conversations.get(item.conversationId).failures = 0;
    item.aliveAt = this.#env.now();
    if (answer?.outcome === "noop") return this.#consult(item);
    item.conflicts = 0;
    item.known = flight.step.after;
    item.acked = true;
    item.reopens = false;
    item.resends = false;
    item.alone = false;
    item.stored = flight.step.method === "DELETE" ? true : answer?.state === "stored";
    if (typeof answer?.revision === "number") item.revision = Math.max(item.revision ?? 0, answer.revision);
    if (answer?.version) item.version = answer.version;
    if (answer?.bufferEpoch) {
      const current = this.#noteEpoch(item.conversationId, answer.bufferEpoch);
      item.epoch = answer.bufferEpoch;
      if (!current && !item.stored) item.lost = true; // acknowledged by a buffer that is gone
    }
    if (item.lost) {
      item.lost = false;
      item.known = null;
    }
    const missing = item.source !== null || nextStep(item.kind, item.id, item.known, item.want, this.#limits) !== null;
    if (!missing) this.#clean(item);
    else if (item.dueAt === null) item.dueAt = this.#env.now();
    this.#state(item);
  }

  /** Nothing of an item is missing on the server. */
  #clean(item) {
    item.sent = item.changes;
    item.dueAt = null;
    item.journalAt = null;
    item.confirms = 0;
    if (item.stored) this.#finish(item);
    else {
      if (!item.open) item.confirmAt = this.#env.now() + this.#limits.confirmMs;
      if (item.rows.size) this.#journal([item]);
      if (item.confirmAt !== null) this.#wake(item.confirmAt);
    }
    this.#state(item);
    this.#answerWaiters(item);
    if (this.#more && this.#gateFailures === 0 && this.#adoptedChars() === 0) this.replay();
  }

  /** It is in Postgres: nothing more to keep here. */
  #finish(item) {
    item.confirmAt = null;
    if (item.rows.size) {
      this.#outbox.remove([...item.rows]);
      item.rows.clear();
    }
    if (!item.open) this.#active.delete(item);
    this.#state(item);
    this.#answerWaiters(item);
    if (this.#items.size > 5000) this.#forgetOld();
  }

  #forgetOld() {
    for (const [key, item] of this.#items) {
      if (this.#items.size <= 4000) break;
      if (!this.#active.has(item) && !item.failed) this.#items.delete(key);
    }
  }

  #refused(item, flight, error) {
    if (item.flight !== flight) return;
    item.flight = null;
    if (this.#disposed) return;
    const now = this.#env.now();
    const { status = 0, kind = "", problem = {} } = error;
    const retry = error.retryAfterMs ?? 0;
    item.dueAt = Math.min(item.dueAt ?? Infinity, now);
    if (!(error instanceof BlotterError)) {
      this.#fail(item, error); // a fault of ours: show it, do not loop
    } else if (status === 401) {
      this.#closeGate(this.#limits.backoffMaxMs);
      this.#emit("unauthorized", { error });
    } else if (TRANSIENT.has(status) || status > 504) {
      if (LOCAL_KINDS.has(kind)) {
        const conversation = this.#conversations.get(item.conversationId);
        conversation.notBefore = now + backoffMs(conversation.failures++, retry, this.#env.random, this.#limits);
        // A step needs its base; while that is away, only the whole item can be kept.
        if (flight.step.method === "PATCH" && kind !== "contention" && item.kind !== "conversation") item.known = null;
      } else if (status === 500) {
        item.notBefore = now + backoffMs(item.failures++, retry, this.#env.random, this.#limits);
      } else {
        this.#closeGate(retry);
      }
    } else if (status === 404 && flight.step.method === "PATCH" && item.kind !== "conversation") {
      item.known = null;
    } else if (status === 409 || (status === 422 && (kind === "surrogate-split" || kind === "not-text"))) {
      this.#conflict(item, problem.current);
    } else if (status === 410 && flight.step.method === "DELETE") {
      item.known = flight.step.after;
      item.stored = true;
      this.#clean(item);
    } else {
      this.#fail(item, error);
    }
    this.#state(item);
  }

  #fail(item, error) {
    item.failed = error;
    item.dueAt = null;
    item.reply?.detach();
    if (error.status === 410) {
      if (item.rows.size) this.#outbox.remove([...item.rows]);
      item.rows.clear();
    } else {
      this.#journal([item]);
    }
    this.#active.delete(item);
    this.#state(item);
    this.#answerWaiters(item);
  }

  /** The server's version differs from what we thought; `current`: its item, if it came with the answer. */
  #conflict(item, current) {
    if (!current) return this.#consult(item);
    this.#materialise(item);
    const theirs = snapshotFrom(item.kind, current);
    const newer = current.version > item.version;
    const verdict = resolve(item, theirs, newer);
    if (typeof current.revision === "number") item.revision = Math.max(item.revision ?? 0, current.revision);
    item.acked = true;
    item.version = current.version;
    if (verdict === "keep") {
      item.want = theirs;
      item.known = theirs;
      item.source = null;
      item.stored = current.stored === true;
      item.reply?.detach();
      this.#emit("superseded", { conversationId: item.conversationId, kind: item.kind, id: item.id, current });
      return this.#clean(item);
    }
    // What we did not change ourselves is theirs.
    const base = item.known;
    const want = { ...theirs, ...item.want };
    if (base !== null) for (const name of Object.keys(item.want)) if (same(base[name], item.want[name])) want[name] = theirs[name] ?? null;
    for (const name of Object.keys(want)) if (want[name] === null && theirs[name] === undefined) delete want[name];
    item.want = want;
    item.known = theirs;
    item.dueAt = this.#env.now();
    if (++item.conflicts > 4) item.notBefore = item.dueAt + backoffMs(item.conflicts - 4, 0, this.#env.random, this.#limits);
  }

  /** Asks for the item as it stands, then decides. */
  async #consult(item) {
    const controller = new AbortController();
    const flight = { step: { method: "GET", path: "", whole: false }, controller, keepalive: false, changes: item.changes };
    item.flight = flight;
    try {
      const current = await this.#readItem(item, controller);
      if (item.flight !== flight) return;
      item.flight = null;
      this.#reached();
      this.#conflict(item, current);
    } catch (error) {
      if (item.flight === flight && error.status === 404) {
        item.flight = null;
        item.known = null;
        item.dueAt = this.#env.now();
      } else {
        this.#refused(item, flight, error);
      }
    }
    this.#pump();
  }

  async #readItem(item, controller) {
    const path = this.#path(item.conversationId);
    if (item.kind !== "conversation") {
      return this.#call("GET", `${path}/${PATHS[item.kind]}/${encodeURIComponent(item.id)}`, { controller });
    }
    const view = await this.#call("GET", `${path}?limit=1`, { controller });
    return { ...view.conversation, bufferEpoch: view.bufferEpoch };
  }

  /** An answer came: the server is there. */
  #reached() {
    if (this.#gateFailures === 0) return;
    this.#gateFailures = 0;
    this.#gateAt = 0;
    this.#emit("connection", { online: true });
    for (const item of this.#active) this.#state(item);
    this.replay();
  }

  #closeGate(retry) {
    const wait = backoffMs(this.#gateFailures, retry, this.#env.random, this.#limits);
    if (this.#gateFailures++ === 0) this.#emit("connection", { online: false });
    this.#gateAt = Math.max(this.#gateAt, this.#env.now() + wait);
    this.#wake(this.#gateAt);
    for (const item of this.#active) this.#state(item);
    this.#spill();
  }

  /**
   * A new epoch: the buffer may have lost what was not yet in Postgres. Such items go out again.
   *
   * Each conversation by itself: a buffer may be several servers. Returns false for an epoch that is over; requests that
   * were under way when it ended may still answer.
   */
  #noteEpoch(conversationId, epoch) {
    const conversation = this.#conversation(conversationId);
    if (conversation.epochs.at(-1) === epoch) return true;
    if (conversation.epochs.includes(epoch)) return false;
    conversation.epochs.push(epoch);
    for (const item of this.#active) {
      if (item.conversationId !== conversationId || !item.acked || item.stored) continue;
      if (item.epoch === epoch || item.epoch === null) continue;
      if (item.flight !== null) {
        item.lost = true;
        continue;
      }
      item.resends = !item.dirty;
      item.known = null;
      if (item.resends) item.changes++;
      item.confirmAt = null;
      item.dueAt = this.#env.now();
    }
    return true;
  }

  // ------------------------------------------------------------------------------------------------ stored?

  #confirmWhenDue(item, now) {
    const conversation = this.#conversations.get(item.conversationId);
    if (item.confirmAt > now) return this.#wake(item.confirmAt);
    if (conversation.confirming || conversation.notBefore > now || this.#confirming >= 2) {
      return this.#wake(now + this.#limits.appendMs);
    }
    this.#confirm(item, conversation);
  }

  /** Asks whether an item is stored. An empty append says so without sending or fetching its text, and creates nothing. */
  async #confirm(item, conversation) {
    conversation.confirming = true;
    this.#confirming++;
    const { changes, version } = item;
    const now = this.#env.now();
    item.confirmAt = now + Math.min(this.#limits.confirmMs * 2 ** ++item.confirms, this.#limits.autosaveMs);
    const steps = item.kind === "message" || item.kind === "artifact";
    try {
      const controller = new AbortController();
      const answer = steps
        ? await this.#call("PATCH", `${this.#path(item.conversationId)}/${PATHS[item.kind]}/${encodeURIComponent(item.id)}`, {
            text: '{"append":{"offset":0,"text":""}}',
            headers: { Prefer: `wait=${this.#limits.confirmWaitSeconds}` },
            controller,
            beside: true,
          })
        : await this.#readItem(item, controller);
      this.#reached();
      if (item.changes === changes && item.flight === null) this.#confirmed(item, answer, version);
    } catch (error) {
      if (item.changes !== changes || item.flight !== null) {
        // It changed meanwhile: its own request tells.
      } else if (error.status === 404) this.#lost(item);
      else if (error.status === 410) this.#fail(item, error);
    } finally {
      conversation.confirming = false;
      this.#confirming--;
    }
    this.#pump();
  }

  /** `version`: what the item had when the question was asked; more may have been heard since. */
  #confirmed(item, answer, version) {
    if (answer.bufferEpoch && !this.#noteEpoch(item.conversationId, answer.bufferEpoch)) return;
    if (item.known === null) return; // the epoch changed: it goes out again
    if (answer.version < version) return this.#lost(item);
    if (answer.version < item.version) return; // says nothing of what is there now
    item.stored = answer.state === "stored" || answer.stored === true;
    if (item.stored) this.#finish(item);
  }

  #lost(item) {
    item.known = null;
    item.resends = true;
    item.changes++;
    item.confirmAt = null;
    item.dueAt = this.#env.now();
    this.#state(item);
  }

  // ------------------------------------------------------------------------------------------------ requests

  async #bearer(fresh) {
    if (typeof this.#token !== "function") return this.#tokenText;
    if (fresh || this.#tokenText === null) this.#tokenText = await this.#token({ fresh });
    return this.#tokenText;
  }

  /**
   * One request, with a fresh token once after a 401. Resolves to the body; throws BlotterError.
   *
   * Without an await before `fetch` where a token is known: a page that goes away runs no microtasks later.
   */
  #call(method, path, { text, headers = {}, controller = new AbortController(), keepalive = false, beside = false } = {}) {
    const attempt = (bearer) => {
      const sent = { Accept: "application/json", ...headers };
      if (bearer) sent.Authorization = `Bearer ${bearer}`;
      if (this.#owner !== undefined) sent["Blotter-Owner"] = byteString(this.#owner);
      if (text !== undefined) sent["Content-Type"] = "application/json";
      const init = { method, headers: sent, body: text, signal: controller.signal };
      if (keepalive) init.keepalive = true;
      return this.#env.fetch(this.#base + path, init);
    };
    const known = this.#tokenText ?? (typeof this.#token === "function" ? null : "");
    const bytes = keepalive && text ? utf8Length(text) : 0;
    this.#keepalive += bytes;
    if (!beside) this.#flights++;
    this.#requests.add(controller);
    const timer = this.#env.setTimeout(() => controller.abort(), this.#limits.requestMs);
    const finish = () => {
      this.#keepalive -= bytes;
      if (!beside) this.#flights--;
      this.#requests.delete(controller);
      this.#env.clearTimeout(timer);
    };
    let first;
    try {
      first = known === null ? this.#bearer(false).then(attempt) : attempt(known);
    } catch (error) {
      first = Promise.reject(error);
    }
    return this.#read(first, attempt).finally(finish);
  }

  async #read(first, attempt) {
    let response;
    try {
      response = await first;
      if (response.status === 401 && typeof this.#token === "function") {
        await response.body?.cancel();
        response = await attempt(await this.#bearer(true));
      }
      const type = response.headers.get("Content-Type") ?? "";
      const body = /[/+]json/.test(type) ? await response.json() : (await response.text(), undefined);
      if (response.ok || response.status === 304) return body;
      throw new BlotterError(response.status, body ?? {}, retryAfterMs(response.headers.get("Retry-After"), this.#env.now()));
    } catch (error) {
      if (error instanceof BlotterError) throw error;
      throw new BlotterError(0, {}, 0, error);
    }
  }

  /** A read that is tried again while nobody answers. */
  async #get(path, { tries = 4, signal } = {}) {
    for (let failures = 0; ; failures++) {
      try {
        const controller = new AbortController();
        signal?.addEventListener("abort", () => controller.abort(), { once: true });
        return await this.#call("GET", path, { controller });
      } catch (error) {
        if (!TRANSIENT.has(error.status) || failures + 1 >= tries || signal?.aborted || this.#disposed) throw error;
        const wait = backoffMs(failures, error.retryAfterMs, this.#env.random, this.#limits);
        await new Promise((next) => this.#env.setTimeout(next, wait));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------ outbox

  async #accountName() {
    if (this.#account === undefined) {
      let name = this.#owner;
      if (name === undefined) {
        const token = await this.#bearer(false).catch(() => null);
        name = subjectOf(token);
        if (name === null && token === null) return null; // who it is will be known later
      }
      this.#account = `${this.#base}\n${name ?? ""}`;
    }
    return this.#account;
  }

  #row(item, tab) {
    this.#materialise(item);
    const key = `${item.key}\n${this.#tab.id}\n${item.order}`;
    return {
      key,
      saved: this.#env.now(),
      account: this.#account,
      tab,
      at: item.at,
      order: item.order,
      conversationId: item.conversationId,
      kind: item.kind,
      id: item.id,
      want: item.want,
      known: item.known && item.mode === "edit" ? item.known : null,
      mode: item.mode,
      revision: item.revision,
      version: item.version,
      epoch: item.epoch,
      acked: item.acked && !item.dirty,
      reopens: item.reopens,
      failed: item.failed ? { status: item.failed.status ?? 0, ...item.failed.problem } : null,
    };
  }

  /** An item that the next page would miss. */
  #keepsRow(item) {
    return item.want !== null && (item.dirty || item.failed !== null || (!item.stored && item.acked));
  }

  /** A person's words go to the outbox at once; a stream only where its acknowledgement is late. */
  #keepRow(item) {
    if (!this.#outbox.available) return;
    item.journalAt ??= this.#env.now() + (item.mode === "edit" ? 0 : this.#limits.journalMs);
    this.#wake(item.journalAt);
  }

  #journalDue(now) {
    const due = [];
    for (const item of this.#active) {
      if (item.journalAt === null) continue;
      if (item.journalAt > now) this.#wake(item.journalAt);
      else {
        item.journalAt = null;
        if (item.dirty) due.push(item);
      }
    }
    if (due.length) this.#journal(due);
  }

  /** Writes items to the outbox; at once if it is open. */
  #journal(items, tab = this.#tab.id) {
    if (!this.#outbox.available || items.length === 0) return Promise.resolve(false);
    const write = () => {
      const replaced = [];
      const rows = items
        .filter((item) => item.want !== null || item.source !== null)
        .map((item) => {
          const row = this.#row(item, tab);
          for (const key of item.rows) if (key !== row.key) replaced.push(key); // what a gone page left: it is in this one
          item.rows = new Set([row.key]);
          return row;
        });
      return this.#outbox.put(rows, replaced);
    };
    if (this.#account !== undefined && this.#away) return write();
    return Promise.all([this.#accountName(), this.#tab.ready]).then(([account]) => (account === null ? false : write().then((kept) => {
      // Stored meanwhile: the row would be sent for nothing.
      const late = items.filter((item) => item.rows.size > 0 && !this.#keepsRow(item));
      for (const item of late) {
        this.#outbox.remove([...item.rows]);
        item.rows.clear();
      }
      return kept;
    })));
  }

  /** Leaves the oldest waiting items to the outbox alone, when too much waits in memory. */
  async #spill() {
    const waiting = [...this.#active].filter((item) => item.dirty && !item.open && item.flight === null && item.want !== null);
    let chars = waiting.reduce((sum, item) => sum + sizeOf(item.want), 0);
    if (chars <= this.#limits.memoryChars || !this.#outbox.available) return;
    const spilled = [];
    for (const item of waiting.sort((one, other) => one.at - other.at)) {
      if (chars <= this.#limits.memoryChars / 2) break;
      chars -= sizeOf(item.want);
      spilled.push([item, item.changes]);
    }
    if (!(await this.#journal(spilled.map(([item]) => item), ""))) return;
    for (const [item, changes] of spilled) {
      if (item.changes !== changes || item.flight !== null) {
        this.#journal([item]); // it changed meanwhile: ours again
        continue;
      }
      this.#active.delete(item);
      item.rows.clear();
      this.#items.delete(item.key);
      this.#conversations.get(item.conversationId).behind++;
      this.#more = true;
    }
  }

  /** Takes over what gone tabs left in the outbox. Runs at start, when the connection is back, and every 30 s. */
  replay() {
    this.#replaying ??= this.#replay().catch(() => {}).finally(() => {
      this.#replaying = null;
    });
    return this.#replaying;
  }

  async #replay() {
    await this.#tab.ready;
    const account = await this.#accountName();
    if (account === null || this.#disposed) return;
    const claimed = [];
    let left;
    for (let missed = 1, tries = 0; missed > 0 && tries < 4; tries++) {
      const dead = await this.#tab.dead(new Set((await this.#outbox.rows(account)).map((row) => row.tab)));
      const keys = [];
      let chars = this.#adoptedChars() + claimed.reduce((sum, row) => sum + sizeOf(row.want), 0);
      left = new Map();
      // Read again where one is gone: only now has it written its last row. Whoever took half of what it left would
      // create that half before the other.
      for (const row of dead.size ? await this.#outbox.rows(account) : []) {
        if (!dead.has(row.tab) || row.failed) continue;
        chars += sizeOf(row.want);
        // What does not fit into memory comes later; nothing newer of its conversation is created before it.
        if (keys.length + claimed.length && chars > this.#limits.memoryChars / 2) left.set(row.conversationId, (left.get(row.conversationId) ?? 0) + 1);
        else keys.push(row.key);
      }
      const got = await this.#outbox.claim(keys, dead, this.#tab.id);
      claimed.push(...got);
      missed = keys.length - got.length; // another tab was faster; it may be gone by now
    }
    if (this.#disposed) return;
    for (const [id, conversation] of this.#conversations) conversation.behind = left.get(id) ?? 0;
    this.#more = left.size > 0;
    // They are created as they were first said, whichever was changed last; of one item the later words go on top.
    for (const row of claimed) this.#item(row.kind, row.conversationId, row.id);
    for (const row of claimed.sort((one, other) => one.saved - other.saved || one.order - other.order)) this.#adopt(row);
    this.#pump();
  }

  /** Characters of what was taken over and is still on its way. */
  #adoptedChars() {
    let chars = 0;
    for (const item of this.#active) if (item.adopted && item.dirty && item.want) chars += sizeOf(item.want);
    return chars;
  }

  /** Goes on with an item of a page that is gone. */
  #adopt(row) {
    const item = this.#item(row.kind, row.conversationId, row.id);
    item.rows.add(row.key);
    item.adopted = true;
    if (item.want !== null && item.dirty && !item.own) {
      // Two gone pages had it: the later one's words go over the earlier one's.
      if (row.acked) return;
      item.at = Math.min(item.at, row.at);
      item.revision = Math.max(item.revision ?? -1, row.revision ?? -1);
      if (item.revision < 0) item.revision = null;
      const behind = row.mode === "stream" && progress(row.kind, row.want) < progress(item.kind, item.want);
      if (!behind) item.want = row.known === null ? { ...item.want, ...row.want } : mergeEdit(row.known, row.want, item.want);
      item.mode = row.mode;
      item.changes++;
      return;
    }
    if (item.want !== null && (item.dirty || item.open)) {
      // This page has said something newer: theirs counts only where it has not. It was first said there.
      item.at = Math.min(item.at, row.at);
      if (item.want.deleted || row.want.deleted || row.mode !== "edit") return;
      for (const [name, value] of Object.entries(row.want)) {
        const theirs = row.known === null || !same(row.known[name], value);
        const ours = item.known === null ? name in item.want : !same(item.known[name], item.want[name]);
        if (theirs && !ours) item.want = { ...item.want, [name]: value };
      }
      return;
    }
    if (row.acked && item.acked && item.version >= row.version) return this.#settleRows(item);
    item.mode = row.mode;
    item.revision = Math.max(item.revision ?? -1, row.revision ?? -1);
    if (item.revision < 0) item.revision = null;
    item.at = row.at;
    item.want = row.acked || item.known === null ? row.want : mergeEdit(row.known, row.want, item.known);
    this.#active.add(item);
    if (row.acked) {
      // The server had it: only look whether it still does.
      item.known ??= row.want;
      item.acked = true;
      item.version = row.version;
      item.epoch = row.epoch;
      item.stored = false;
      item.sent = item.changes;
      item.confirmAt = this.#env.now();
    } else {
      if (item.known === null && row.known && row.mode === "edit") item.known = row.known;
      item.epoch = row.epoch;
      item.version = Math.max(item.version, row.version);
      item.reopens = row.reopens === true;
      item.stored = false;
      item.changes++;
      item.dueAt = this.#env.now();
    }
    this.#state(item);
    this.#wake(this.#env.now());
  }

  #settleRows(item) {
    if (!item.stored) return;
    this.#outbox.remove([...item.rows]);
    item.rows.clear();
  }

  // ------------------------------------------------------------------------------------------------ the page's life

  #onLeave = () => this.#leave();

  #listen() {
    const { window, document } = this.#env;
    const on = (target, name, listener) => {
      if (!target) return;
      target.addEventListener(name, listener);
      this.#listeners.push([target, name, listener]);
    };
    on(document, "visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#leave();
      else this.retry();
    });
    on(window, "pagehide", this.#onLeave);
    on(window, "pageshow", (event) => event.persisted && this.retry());
    on(window, "online", () => this.retry());
    on(document, "freeze", this.#onLeave);
  }

  /** `beforeunload` only while something is unacknowledged: a listener alone keeps pages out of the back/forward cache. */
  #guard() {
    const { window } = this.#env;
    if (!window || this.#disposed) return;
    const needed = this.unsaved > 0;
    if (needed === this.#guarding) return;
    this.#guarding = needed;
    if (needed) window.addEventListener("beforeunload", this.#onLeave);
    else window.removeEventListener("beforeunload", this.#onLeave);
  }

  /** The page may be gone in a moment: all that is unsaved goes out with keepalive as far as that may carry, and is kept. */
  #leave() {
    if (this.#disposed) return;
    this.#away = true;
    this.#compareWatched();
    const unsaved = [...this.#active].filter((item) => item.dirty && (item.want !== null || item.source !== null));
    unsaved.sort((one, other) => one.at - other.at || one.order - other.order);
    const sends = [];
    const fresh = new Map();
    for (const item of unsaved) {
      if (item.flight?.keepalive || item.failed || item.flight?.step.method === "GET") continue;
      if (item.flight) {
        const { flight } = item;
        item.flight = null; // unknown outcome: what follows says as much, under a revision of its own
        if (flight.step.whole && flight.step.body?.status === undefined) item.resends = false;
        flight.controller.abort();
      }
      this.#materialise(item);
      if (item.known === null && item.kind !== "conversation" && !item.want.deleted && (item.kind !== "message" || item.want.role)) {
        const list = fresh.get(item.conversationId) ?? [];
        list.push(item);
        fresh.set(item.conversationId, list);
      } else sends.push(item);
    }
    let room = this.#limits.keepaliveBytes - this.#keepalive;
    for (const [conversationId, items] of fresh) {
      const fitting = [];
      if (this.#conversations.get(conversationId).behind > 0) continue;
      for (const item of items) {
        const bytes = utf8Length(JSON.stringify(item.want)) + 300;
        if (bytes > room) break; // what was said after it must not come before it
        room -= bytes;
        fitting.push(item);
      }
      if (fitting.length === 1) this.#send(fitting[0], { keepalive: true });
      else if (fitting.length) this.#sync(conversationId, fitting, { keepalive: true });
    }
    for (const item of sends) {
      const step = nextStep(item.kind, item.id, item.known, item.want, { ...this.#limits, bundleChars: room });
      const bytes = step?.body ? utf8Length(JSON.stringify(step.body)) + 40 : 0;
      if (step === null || bytes > room) continue;
      room -= bytes;
      if (step.rewrites && step.body) item.revision = (item.revision ?? 0) + 1;
      if (item.revision !== null && step.body) step.body = { ...step.body, revision: item.revision };
      this.#send(item, { keepalive: true, step });
    }
    for (const item of unsaved) if (item.flight === null && item.dueAt === null) item.dueAt = this.#env.now();
    this.#journal(unsaved);
    this.#away = false;
  }

  #autosave(now) {
    this.#autosaveAt = now + this.#limits.autosaveMs;
    this.#compareWatched();
    for (const item of this.#active) {
      if (item.dirty && item.flight === null && item.dueAt === null && !item.failed) item.dueAt = now;
    }
    this.#tab.renew();
    this.replay();
  }

  #compareWatched() {
    for (const { conversationId, state } of this.#watches.values()) {
      const shown = state();
      if (shown) this.syncConversationState(conversationId, shown).catch(() => {});
    }
  }

  /** An open reply shows that it lives. */
  #beat(item, now) {
    if (!item.open || item.known === null || item.dueAt !== null || item.kind !== "message") return;
    const at = item.aliveAt + this.#limits.heartbeatMs;
    if (at > now) return this.#wake(at);
    item.aliveAt = now;
    const path = `/messages/${encodeURIComponent(item.id)}`;
    this.#send(item, {
      step: { method: "PATCH", path, body: { append: { offset: 0, text: "" } }, after: item.known, rewrites: false, whole: false },
    });
  }

  // ------------------------------------------------------------------------------------------------ replies' door

  /** What `Reply` may do here. */
  [REPLY](door) {
    if (door !== REPLY_DOOR) throw new TypeError("private");
    return {
      begin: (reply, conversationId, id, fields, continues) => {
        const item = this.#item("message", conversationId, id);
        item.reply = reply;
        item.mode = "stream";
        item.reopens = continues || (item.known !== null && !isOpen(item.known));
        item.want = { ...(item.want ?? item.known ?? {}), ...snapshotOf("message", fields) };
        item.aliveAt = this.#env.now();
        this.#touch(item, 0);
        this.#keepRow(item);
        this.#pump();
        return item;
      },
      /** `chars` more characters are shown; `at once` sends them now. */
      grow: (item, fields, chars, atOnce) => {
        if (typeof fields === "function") item.source = fields;
        else item.want = { ...item.want, ...fields };
        item.unsent += chars;
        const now = atOnce || item.unsent >= this.#limits.appendChars;
        this.#touch(item, now ? 0 : this.#limits.appendMs);
        this.#keepRow(item);
        if (now) this.#pump();
      },
      promise: (item, until) => this.#promise(item, until),
      state: (item) => this.#state(item),
      mint: () => this.mintId(),
    };
  }

  // ------------------------------------------------------------------------------------------------ reading

  /**
   * A conversation as the server shows it, with what is not yet saved here laid over (such items carry `unsaved: true`).
   *
   * Options: `since`, `limit`, `before`, `branches: "all"`, `signal`. Throws BlotterError: 404 where there is none, 410.
   */
  async loadConversation(conversationId, { since, limit, before, branches, signal } = {}) {
    await Promise.race([this.replay(), new Promise((next) => this.#env.setTimeout(next, 2 * SECOND_MS))]);
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ since, limit, before, branches })) {
      if (value !== undefined) query.set(name, String(value));
    }
    const suffix = query.size ? `?${query}` : "";
    let view;
    try {
      view = await this.#get(this.#path(conversationId) + suffix, { signal });
    } catch (error) {
      if (error.status !== 404 || !this.#hasUnsaved(conversationId)) throw error;
      view = { conversation: { id: conversationId, title: null, metadata: null, archived: false, headId: null, version: 0, stored: false }, messages: [], toolResults: [], artifacts: [], inFlight: false, version: 0, bufferEpoch: this.#conversation(conversationId).epochs.at(-1) ?? null };
    }
    if (view.bufferEpoch) this.#noteEpoch(conversationId, view.bufferEpoch);
    view.conversation = this.#learn("conversation", conversationId, view.conversation);
    for (const kind of Object.keys(LISTS)) {
      view[LISTS[kind]] = view[LISTS[kind]].map((one) => this.#learn(kind, conversationId, one)).filter((one) => !one.deleted);
      for (const item of this.#unsavedOf(conversationId, kind)) {
        if (item.want?.deleted || view[LISTS[kind]].some((one) => one.id === item.id) || before !== undefined) continue;
        this.#materialise(item);
        view[LISTS[kind]].push({ id: item.id, status: "complete", ...item.want, unsaved: true });
      }
    }
    this.#pump();
    return view;
  }

  *#unsavedOf(conversationId, kind) {
    const found = [...this.#active].filter((item) => item.conversationId === conversationId && item.kind === kind && item.dirty);
    yield* found.sort((one, other) => one.at - other.at || one.order - other.order);
  }

  #hasUnsaved(conversationId) {
    for (const item of this.#active) if (item.conversationId === conversationId && item.dirty) return true;
    return false;
  }

  /** Notes what the server shows of an item; returns it with what is unsaved here laid over. */
  #learn(kind, conversationId, shown) {
    if (!shown) return shown;
    const item = this.#item(kind, conversationId, kind === "conversation" ? conversationId : shown.id);
    if (item.dirty || item.open) {
      this.#materialise(item);
      return item.want ? { ...shown, ...item.want, unsaved: true } : shown;
    }
    if (shown.version >= item.version) {
      item.known = shown.deletedAt ? { deleted: true } : snapshotFrom(kind, shown);
      item.want = null;
      item.revision = shown.revision ?? item.revision;
      item.version = shown.version;
      item.acked = true;
      item.stored = shown.stored === true;
      if (item.stored) this.#finish(item);
      else {
        item.want = item.known;
        item.epoch = this.#conversation(conversationId).epochs.at(-1) ?? null;
        if (kind === "conversation" || !isOpen(item.known)) {
          item.confirmAt ??= this.#env.now() + this.#limits.confirmMs;
          this.#active.add(item);
        }
      }
      item.state = item.stored ? "stored" : "buffered";
    }
    return shown;
  }

  /** A page of conversations, latest activity first: `{conversations, after}`. Options: `limit`, `after`, `archived`. */
  async listConversations({ limit, after, archived, signal } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ limit, after, archived })) {
      if (value !== undefined && value !== null) query.set(name, String(value));
    }
    return this.#get(`/api/conversations${query.size ? `?${query}` : ""}`, { signal });
  }

  /** One page of an artifact's complete contents, oldest first. */
  artifactVersions(conversationId, id, { limit, after } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ limit, after })) if (value !== undefined) query.set(name, String(value));
    return this.#get(`${this.#path(conversationId)}/artifacts/${encodeURIComponent(id)}/versions${query.size ? `?${query}` : ""}`);
  }

  /**
   * Follows a conversation's changes as they happen (Durable Streams, JSON mode), from `offset` on.
   *
   * `onEvent(event)` gets each in order; it may return a promise, which is waited for. Reconnects by itself, with
   * backoff, from where it was. Returns `{close(), done, offset}`; `done` rejects where following cannot go on.
   */
  follow(conversationId, { offset = "-1", onEvent, onUpToDate, signal } = {}) {
    const controller = new AbortController();
    signal?.addEventListener("abort", () => controller.abort(), { once: true });
    const place = { offset: String(offset), close: () => controller.abort(), done: null };
    place.done = this.#follow(conversationId, place, controller, onEvent ?? (() => {}), onUpToDate ?? (() => {}));
    place.done.catch(() => {});
    return place;
  }

  /**
   * One message as it grows, whoever writes it: yields it as it stands, then after each change, until it is finished.
   *
   * By live events; where there are none, by asking every second.
   */
  async *followMessage(conversationId, id, { signal, pollMs = SECOND_MS } = {}) {
    const view = await this.loadConversation(conversationId, { branches: "all", signal });
    const find = () => view.messages.find((one) => one.id === id);
    let message = find();
    if (!message) throw new BlotterError(404, { title: "Not found" });
    yield message;
    let heard = () => {};
    let failure = null;
    const following = this.follow(conversationId, {
      offset: view.version,
      signal,
      onEvent: (event) => {
        foldEvent(view, event);
        heard();
      },
    });
    following.done.catch((error) => {
      failure = error;
      heard();
    });
    try {
      while (isOpen(message) && !signal?.aborted) {
        if (failure !== null) {
          await new Promise((next) => this.#env.setTimeout(next, pollMs));
          const path = `${this.#path(conversationId)}/messages/${encodeURIComponent(id)}`;
          const now = await this.#get(path, { signal });
          if (now.version === message.version) continue;
          message = now;
          yield message;
          continue;
        }
        const now = find();
        if (now === undefined) throw new BlotterError(410, { title: "Deleted" });
        if (now !== message) {
          message = now;
          yield message;
          continue;
        }
        await new Promise((next) => {
          heard = next;
          signal?.addEventListener("abort", next, { once: true });
          if (find() !== message || failure !== null) next();
        });
      }
    } finally {
      following.close();
    }
  }

  /** What an event says of items that were saved here. */
  #heard(conversationId, event) {
    if (event.type === "epoch") {
      this.#noteEpoch(conversationId, event.bufferEpoch);
      this.#pump();
    } else if (event.type === "stored") {
      const id = event.kind === "conversation" ? conversationId : event.id;
      const item = this.#items.get(`${conversationId}\n${event.kind}\n${id}`);
      if (!item || item.dirty || item.stored || !item.acked || item.version > event.version) return;
      item.stored = true;
      this.#finish(item);
    } else if (event.type === "item" && !event.partial) {
      // Changed elsewhere: the next save here starts from it, else setting a field back would seem to change nothing.
      const id = event.kind === "conversation" ? conversationId : event.item.id;
      const item = this.#items.get(`${conversationId}\n${event.kind}\n${id}`);
      if (item && event.item.version > item.version) this.#learn(event.kind, conversationId, event.item);
    }
  }

  async #follow(conversationId, place, controller, onEvent, onUpToDate) {
    let failures = 0;
    let fresh = false;
    while (!controller.signal.aborted && !this.#disposed) {
      let wait = 0;
      try {
        const query = new URLSearchParams({ offset: place.offset, live: "sse" });
        const bearer = await this.#bearer(fresh);
        fresh = false;
        const headers = { Accept: "text/event-stream" };
        if (bearer) headers.Authorization = `Bearer ${bearer}`;
        if (this.#owner !== undefined) headers["Blotter-Owner"] = byteString(this.#owner);
        const response = await this.#env.fetch(`${this.#events}${this.#path(conversationId)}/events?${query}`, { headers, signal: controller.signal });
        if (response.status === 401 && typeof this.#token === "function" && failures === 0) {
          fresh = true;
          failures++;
          await response.body?.cancel();
          continue;
        }
        if (!response.ok) {
          const body = await response.json().catch(() => ({}));
          throw new BlotterError(response.status, body, retryAfterMs(response.headers.get("Retry-After"), this.#env.now()));
        }
        for await (const { event, data } of serverSentEvents(response.body)) {
          failures = 0;
          if (event === "data") {
            const values = JSON.parse(data);
            for (const value of Array.isArray(values) ? values : [values]) {
              this.#heard(conversationId, value);
              await onEvent(value);
            }
          } else if (event === "control") {
            const control = JSON.parse(data);
            if (control.streamNextOffset !== undefined) place.offset = String(control.streamNextOffset);
            if (control.upToDate) await onUpToDate(place.offset);
            if (control.streamClosed) return;
          }
          if (controller.signal.aborted) return;
        }
      } catch (error) {
        if (controller.signal.aborted) return;
        if (error instanceof BlotterError && !TRANSIENT.has(error.status)) throw error;
        wait = error instanceof BlotterError ? error.retryAfterMs : 0;
      }
      const ms = backoffMs(failures++, wait, this.#env.random, this.#limits);
      await new Promise((next) => this.#env.setTimeout(next, ms));
    }
  }
}

/**
 * Brings a view of a conversation (what `loadConversation` gives) further by one event of `follow`; changes and returns it.
 *
 * Items are replaced, never changed in place: a page may compare them by identity. `view.deleted`: it is gone.
 */
export function foldEvent(view, event) {
  const list = LISTS[event.kind];
  if (event.type === "item" && event.kind === "conversation") {
    view.conversation = event.item;
    if (event.item.deletedAt) view.deleted = true;
  } else if (event.type === "item") {
    const others = view[list].filter((one) => one.id !== event.item.id);
    if (!event.item.deletedAt) {
      const after = others.findIndex((one) => one.position > event.item.position);
      others.splice(after < 0 ? others.length : after, 0, event.item);
    }
    view[list] = others;
  } else if (event.type === "append") {
    const index = view[list].findIndex((one) => one.id === event.id);
    if (index < 0) return view; // never read: what is appended to it means nothing
    const item = { ...view[list][index] };
    if (event.part === undefined) {
      if (event.text !== "") item.content = (item.content ?? "").slice(0, event.offset) + event.text;
    } else {
      const part = item.parts[event.part];
      item.parts = item.parts.with(event.part, { ...part, text: part.text.slice(0, event.offset) + event.text });
    }
    Object.assign(item, { stored: false }, event.set, { status: event.status, version: event.version });
    view[list] = view[list].with(index, item);
  } else if (event.type === "stored") {
    const mark = (item) => (item && item.version <= event.version ? { ...item, stored: true } : item);
    if (event.kind === "conversation") view.conversation = mark(view.conversation);
    else view[list] = view[list].map((one) => (one.id === event.id ? mark(one) : one));
  } else if (event.type === "epoch") {
    view.bufferEpoch = event.bufferEpoch;
    const not = new Set(event.unstored.map((one) => `${one.kind}\n${one.id}`));
    const census = (kind) => (item) => {
      const stored = !not.has(`${kind}\n${item.id}`);
      return item.version <= event.version && item.stored !== stored ? { ...item, stored } : item;
    };
    view.conversation = census("conversation")(view.conversation);
    for (const kind of Object.keys(LISTS)) view[LISTS[kind]] = view[LISTS[kind]].map(census(kind));
  }
  if (event.version > (view.version ?? 0) && !event.partial) view.version = event.version;
  view.inFlight = view.messages.some(isOpen) || view.toolResults.some(isOpen);
  return view;
}

/** UTF-8 as a header carries it: a character a byte. */
const byteString = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** The `sub` of a JWT, unchecked: it only keeps one person's outbox from another's. */
function subjectOf(token) {
  try {
    const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0)))).sub ?? null;
  } catch {
    return null;
  }
}

/** `want` as changed from `base`, put on top of `current`. */
function mergeEdit(base, want, current) {
  if (want.deleted || base === null) return want;
  const merged = { ...current };
  for (const [name, value] of Object.entries(want)) if (!same(base[name], value)) merged[name] = value;
  return merged;
}

/** The events of a text/event-stream body: `{event, data}`. */
export async function* serverSentEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let event = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value ?? new Uint8Array(), { stream: !done });
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
        } else if (!line.startsWith(":")) {
          const colon = line.indexOf(":");
          const name = colon < 0 ? line : line.slice(0, colon);
          const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
          if (name === "event") event = text;
          else if (name === "data") data.push(text);
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// ---------------------------------------------------------------------------------------------------- Reply

/**
 * A reply while it is generated. Made by `blotter.startReply`.
 *
 *     const reply = blotter.startReply("chat-1", { parentId: "m1" });       // or {id}, or {id: promise}
 *     for await (const text of model) reply.append(text);
 *     reply.complete();                                                    // or stop(reason), error(message)
 *
 * The message appears on the server once its id is sure: given, resolved, or minted at the first word when none is
 * promised. Text goes out every 100 characters and after 0.25 s at the latest; the rest at the end.
 */
export class Reply {
  #door;
  #conversationId;
  #fields;
  #item = null;
  #tail = "";
  #waiting = [];
  #ended = false;
  #detached = false;
  #continues;

  constructor(blotter, door, conversationId, { id, continues = false, ...message }) {
    this.#door = blotter[REPLY](door);
    this.blotter = blotter;
    this.#conversationId = conversationId;
    this.#continues = continues;
    this.#fields = { role: "assistant", status: "streaming", ...message };
    this.id = null;
    if (typeof id?.then === "function") id.then((sure) => this.setId(sure), (error) => this.error(String(error)));
    else if (id !== null) this.setId(id ?? this.#door.mint()); // null: setId will be called
  }

  /** The id is sure now; the message can be created. A second call changes nothing. */
  setId(id) {
    if (this.id !== null || this.#detached) return;
    this.id = id;
    this.#item = this.#door.begin(this, this.#conversationId, id, this.#fields, this.#continues);
    for (const run of this.#waiting.splice(0)) run();
  }

  /** True once it was completed, stopped or failed, or gave way to what the server has. */
  get ended() {
    return this.#ended || this.#detached;
  }

  get text() {
    return (this.#item?.want?.content ?? this.#fields.content ?? "") + this.#tail;
  }

  /** What is still to be saved is the server's own version from now on; used by the client. */
  detach() {
    this.#detached = true;
  }

  #whenSure(run) {
    if (this.#detached) return;
    if (this.#item === null) this.#waiting.push(run);
    else run();
  }

  /** More text. Cut anywhere, also within a surrogate pair. */
  append(text) {
    if (this.#ended) throw new Error("This reply has ended.");
    this.#whenSure(() => {
      const all = this.#tail + text;
      const whole = wholePairs(all);
      this.#tail = all.slice(whole.length);
      if (whole === "") return;
      const content = (this.#item.want.content ?? "") + wellFormed(whole);
      this.#door.grow(this.#item, { content }, whole.length, false);
    });
    return this;
  }

  /** The whole message as it is shown now: `{content?, parts?, metadata?, …}`, or a function that gives it when it is needed. */
  show(message, { chars = 1, now = false } = {}) {
    if (this.#ended) throw new Error("This reply has ended.");
    const fields = typeof message === "function" ? message : () => message;
    this.#whenSure(() => this.#door.grow(this.#item, () => ({ ...fields(), status: "streaming" }), chars, now));
    return this;
  }

  /** A tool begins: `{toolCallId, toolName, input?, state?}`. Saved at once, beside what was written before it. */
  toolStart(call) {
    this.#whenSure(() => {
      this.#door.grow(this.#item, {}, 0, true);
      this.blotter.saveToolResult(this.#conversationId, { state: "input-available", messageId: this.id, ...call });
    });
    return this;
  }

  /** What a tool returned: `{toolCallId, output}` or `{toolCallId, errorText}`. */
  toolResult(result) {
    const state = result.errorText === undefined ? "output-available" : "output-error";
    this.#whenSure(() => this.blotter.updateToolResult(this.#conversationId, { state, messageId: this.id, ...result }));
    return this;
  }

  /** An artifact of this reply: `{id, kind?, title?, content, …}`. */
  artifact(artifact) {
    this.#whenSure(() => this.blotter.saveArtifact(this.#conversationId, { messageId: this.id, ...artifact }));
    return this;
  }

  /** It is whole. Resolves when acknowledged. `fields` may carry the final content, parts or metadata. */
  complete(fields = {}) {
    return this.#end("complete", fields);
  }

  /** Somebody pressed Stop. */
  stop(reason = "stopped", fields = {}) {
    return this.#end("interrupted", { statusReason: reason, ...fields });
  }

  /** It failed. */
  error(message, fields = {}) {
    return this.#end("error", { statusReason: String(message).slice(0, 1000), ...fields });
  }

  #end(status, fields) {
    if (this.#ended || this.#detached) return Promise.resolve(null);
    this.#ended = true;
    if (this.#item === null && this.id === null) {
      if (this.#waiting.length === 0 && Object.keys(fields).length === 0 && status !== "error") return Promise.resolve(null);
      this.setId(this.#door.mint()); // nobody will name it any more
    }
    const item = this.#item;
    const { content = (item.want.content ?? null) === null && this.#tail === "" ? undefined : (item.want.content ?? "") + wellFormed(this.#tail) } = fields;
    this.#tail = "";
    const before = item.source;
    item.source = null;
    const shown = { ...(before ? before() : {}), ...fields, status };
    if (content !== undefined) shown.content = content;
    this.#door.grow(item, snapshotOf("message", shown, false), 0, true);
    return this.#door.promise(item);
  }
}

// ---------------------------------------------------------------------------------------------------- entry

/**
 * A client for this page.
 *
 * @param {object} options
 * @param {string} [options.baseUrl] where Blotter's API is; default: this page's origin
 * @param {string|((how: {fresh: boolean}) => Promise<string>)} options.token a bearer token, or how to get one
 * @param {string} [options.owner] act for this owner (needs the scope `blotter:act-for`)
 * @param {string} [options.eventsUrl] where live events are, if elsewhere
 * @param {(change: object) => void} [options.onState] hears each change of an item's state
 * @param {object} [options.limits] other bounds: see LIMITS
 * @param {object} [options.env] other clocks, timers, fetch, storage, locks
 */
export function createBlotter(options) {
  return new Blotter(options);
}
