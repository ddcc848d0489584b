/**
 * The client of one page: what is shown and what the server is sure to hold, item by item, and when what goes out.
 *
 * One class, for it is one machine with one state: an answer, a timer, another tab's rows or the page's end each change
 * the same few fields of an item. What can be decided from values alone stands beside it (`plan.js`, `snapshot.js`), as do
 * the network (`wire.js`) and the storage (`outbox.js`).
 *
 * @module blotter/client
 */

import { backoffMs, BlotterError, TRANSIENT } from "./errors.js";
import { foldEvent } from "./events.js";
import { Item } from "./item.js";
import { LIMITS, SECOND_MS } from "./limits.js";
import { Outbox, Tab } from "./outbox.js";
import { mergeEdit, nextStep, resolve } from "./plan.js";
import { Reply, REPLY, REPLY_DOOR } from "./reply.js";
import { isOpen, LISTS, OPEN, PATHS, progress, same, sizeOf, snapshotFrom, snapshotOf } from "./snapshot.js";
import { asId, mintId, toolResultId, utf8Length } from "./text.js";
import { Wire } from "./wire.js";

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
  #wire;
  #items = new Map();
  #active = new Set();
  #conversations = new Map(); // id -> {notBefore, failures, confirming, behind: older rows still in the outbox, epochs}
  #waiters = new Map();
  #watches = new Map();
  #confirming = 0;
  #gateAt = 0;
  #gateFailures = 0;
  #timer = null;
  #timerAt = Infinity;
  #autosaveAt;
  #outbox;
  #tab;
  #disposed = false;
  #listeners = [];
  #guarding = false;
  #replaying = null;
  #away = false;
  #holding = false;
  #said = 0; // ms; when something was said last
  #more = false; // rows wait in the outbox for room in memory

  constructor(options = {}) {
    super();
    const scope = options.env?.globalThis ?? globalThis;
    this.#env = {
      fetch: (...args) => scope.fetch(...args),
      now: () => Date.now(),
      ticks: options.env?.now ?? (() => scope.performance.now()),
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
    this.#wire = new Wire(options, this.#env, this.#limits);
    this.#autosaveAt = this.#env.ticks() + this.#limits.autosaveMs;
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
        item.dueAt = this.#env.ticks();
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

  /** What the server is sure to hold of an item, as far as this page knows: its fields; undefined where it knows nothing. */
  knownOf(conversationId, kind, id) {
    return this.#items.get(`${conversationId}\n${kind}\n${id}`)?.known ?? undefined;
  }

  /** Items refused for good, here or on a page that is gone, with the reason; the next save of one tries again. */
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

  /** A new token, where it was given as a string. Throws BlotterError (401) where it is another person's. */
  setToken(token) {
    this.#wire.setToken(token);
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
    const end = this.#env.ticks() + timeoutMs;
    const left = () => (until === "stored" ? this.unstored : this.unsaved);
    for (const item of this.#active) {
      if (item.dueAt !== null) item.dueAt = Math.min(item.dueAt, this.#env.ticks());
      if (until === "stored" && item.confirmAt !== null) item.confirmAt = this.#env.ticks();
    }
    this.#pump();
    while (left() > 0 && this.#env.ticks() < end && !this.#disposed) {
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
    this.#wire.close();
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

  /** When something is first said: later than all that was said before, also where the clock was set back. */
  #moment() {
    this.#said = Math.max(this.#said, this.#env.now());
    return this.#said;
  }

  /** Notes that an item changed and is to go out in `ms`. */
  #touch(item, ms) {
    const now = this.#env.ticks();
    if (!item.acked) item.at ||= this.#moment();
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
    }, Math.max(0, Math.ceil(at - this.#env.ticks())));
    if (this.#active.size === 0) this.#timer?.unref?.(); // Node: a client with nothing to do keeps no process alive
  }

  /** Sends what is due, as far as the server, the order of creation and the number of requests allow. */
  #pump() {
    if (this.#disposed || this.#holding) return;
    const now = this.#env.ticks();
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
    const room = () => this.#wire.flights < (this.#gateFailures > 0 ? 1 : this.#limits.concurrency);
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
      const answer = await this.#wire.call(step.method, this.#path(item.conversationId) + step.path, {
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
      const answer = await this.#wire.call("POST", `${this.#path(conversationId)}/sync`, { text: JSON.stringify(body), controller, keepalive });
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
          item.dueAt = this.#env.ticks();
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
    item.aliveAt = this.#env.ticks();
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
    else if (item.dueAt === null) item.dueAt = this.#env.ticks();
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
      if (!item.open) item.confirmAt = this.#env.ticks() + this.#limits.confirmMs;
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
    const now = this.#env.ticks();
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
    item.dueAt = this.#env.ticks();
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
        item.dueAt = this.#env.ticks();
      } else {
        this.#refused(item, flight, error);
      }
    }
    this.#pump();
  }

  async #readItem(item, controller) {
    const path = this.#path(item.conversationId);
    if (item.kind !== "conversation") {
      return this.#wire.call("GET", `${path}/${PATHS[item.kind]}/${encodeURIComponent(item.id)}`, { controller });
    }
    const view = await this.#wire.call("GET", `${path}?limit=1`, { controller });
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
    this.#gateAt = Math.max(this.#gateAt, this.#env.ticks() + wait);
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
      item.dueAt = this.#env.ticks();
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
    const now = this.#env.ticks();
    item.confirmAt = now + Math.min(this.#limits.confirmMs * 2 ** ++item.confirms, this.#limits.autosaveMs);
    const steps = item.kind === "message" || item.kind === "artifact";
    try {
      const controller = new AbortController();
      const answer = steps
        ? await this.#wire.call("PATCH", `${this.#path(item.conversationId)}/${PATHS[item.kind]}/${encodeURIComponent(item.id)}`, {
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
    item.dueAt = this.#env.ticks();
    this.#state(item);
  }

  // ------------------------------------------------------------------------------------------------ outbox

  #row(item, tab) {
    this.#materialise(item);
    const key = `${item.key}\n${this.#tab.id}\n${item.order}`;
    return {
      key,
      saved: this.#moment(),
      account: this.#wire.account,
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
    item.journalAt ??= this.#env.ticks() + (item.mode === "edit" ? 0 : this.#limits.journalMs);
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
    if (this.#wire.account !== undefined && this.#away) return write();
    return Promise.all([this.#wire.findAccount(), this.#tab.ready]).then(([account]) => (account === null ? false : write().then((kept) => {
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
    // What was taken over stays: it is the oldest there is, and goes out first.
    for (const item of waiting.filter((item) => !item.adopted).sort((one, other) => one.at - other.at)) {
      if (chars <= this.#limits.memoryChars / 2) break;
      chars -= sizeOf(item.want);
      spilled.push([item, item.changes]);
    }
    if (!(await this.#journal(spilled.map(([item]) => item), ""))) return;
    for (const [item, changes] of spilled) {
      if (item.changes !== changes || item.flight !== null || item.adopted) {
        this.#journal([item]); // it changed, or was taken over, meanwhile: ours again
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
    const account = await this.#wire.findAccount();
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
        if (!dead.has(row.tab)) continue;
        this.#said = Math.max(this.#said, row.at + 1);
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
    for (const conversation of this.#conversations.values()) conversation.behind = 0;
    for (const [id, rows] of left) this.#conversation(id).behind = rows;
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
    if (row.failed) {
      if (item.want !== null || item.failed) return;
      item.at = row.at;
      item.want = row.want;
      item.mode = row.mode;
      item.revision = row.revision;
      item.failed = new BlotterError(row.failed.status, row.failed);
      this.#state(item);
      return;
    }
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
    item.failed = null;
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
      item.confirmAt = this.#env.ticks();
    } else {
      if (item.known === null && row.known && row.mode === "edit") item.known = row.known;
      item.epoch = row.epoch;
      item.version = Math.max(item.version, row.version);
      item.reopens = row.reopens === true;
      item.stored = false;
      item.changes++;
      item.dueAt = this.#env.ticks();
    }
    this.#state(item);
    this.#wake(this.#env.ticks());
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

  /**
   * Resolves once it is sure that this page stays; never on one that goes. A page that goes sees its connections tear before
   * it is gone, in some browsers before it is told. At once where there is no page.
   */
  async stays() {
    if (this.#env.window) await new Promise((next) => this.#env.setTimeout(next, this.#limits.leaveMs));
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
    let room = this.#limits.keepaliveBytes - this.#wire.keepaliveBytes;
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
    for (const item of unsaved) if (item.flight === null && item.dueAt === null) item.dueAt = this.#env.ticks();
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
        item.aliveAt = this.#env.ticks();
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
      view = await this.#wire.get(this.#path(conversationId) + suffix, { signal });
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
    if (shown.version >= item.version && !item.failed) {
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
          item.confirmAt ??= this.#env.ticks() + this.#limits.confirmMs;
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
    return this.#wire.get(`/api/conversations${query.size ? `?${query}` : ""}`, { signal });
  }

  /** One page of an artifact's complete contents, oldest first. */
  artifactVersions(conversationId, id, { limit, after } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ limit, after })) if (value !== undefined) query.set(name, String(value));
    return this.#wire.get(`${this.#path(conversationId)}/artifacts/${encodeURIComponent(id)}/versions${query.size ? `?${query}` : ""}`);
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
    place.done = this.#wire.follow(`${this.#path(conversationId)}/events`, place, controller, {
      onEvent: (event) => {
        this.#heard(conversationId, event);
        return onEvent?.(event);
      },
      onUpToDate: (reached) => onUpToDate?.(reached),
    });
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
    let over = false;
    const following = this.follow(conversationId, {
      offset: view.version,
      signal,
      onEvent: (event) => {
        foldEvent(view, event);
        heard();
      },
    });
    const ended = (error) => {
      if (error) failure = error;
      else over = true;
      heard();
    };
    following.done.then(() => ended(null), ended);
    try {
      while (isOpen(message) && !signal?.aborted && !this.#disposed) {
        if (failure !== null) {
          await new Promise((next) => this.#env.setTimeout(next, pollMs));
          const path = `${this.#path(conversationId)}/messages/${encodeURIComponent(id)}`;
          const now = await this.#wire.get(path, { signal });
          if (now.version === message.version) continue;
          message = now;
          yield message;
          continue;
        }
        const now = find();
        if (now === undefined || view.deleted) throw new BlotterError(410, { title: "Deleted" });
        if (now !== message) {
          message = now;
          yield message;
          continue;
        }
        if (over) return; // nothing more will be heard
        await new Promise((next) => {
          heard = next;
          signal?.addEventListener("abort", next, { once: true });
          if (find() !== message || failure !== null || over) next();
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


}
