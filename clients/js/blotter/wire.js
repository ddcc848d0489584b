/**
 * The way to the server: requests with the bearer token, reads that are tried again, and the stream of events.
 *
 * @module blotter/wire
 */

import { backoffMs, BlotterError, retryAfterMs, TRANSIENT } from "./errors.js";
import { polledEvents, serverSentEvents } from "./events.js";
import { utf8Length } from "./text.js";

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

/** What `promise` gives, unless `signal` aborts first: whoever waits for others' code waits no longer than for a server. */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** What a response that is no success says. A 404 that is not Blotter's comes from a proxy that does not know it yet, or no more. */
function refusal(response, body, now) {
  const status = response.status === 404 && typeof body?.type !== "string" ? 0 : response.status;
  return new BlotterError(status, body ?? {}, retryAfterMs(response.headers.get("Retry-After"), now));
}

export class Wire {
  /** Requests under way. */
  flights = 0;
  /** Bytes of the keepalive bodies under way. */
  keepaliveBytes = 0;
  #env;
  #limits;
  #base;
  #events;
  #token;
  #tokenText = null;
  #asking = null; // the token function's answer, while it is waited for
  #owner;
  #account;
  #subject = null; // of the first token; what waits here is theirs
  #closed = false;
  #requests = new Set(); // the controllers of those under way

  constructor({ baseUrl, eventsUrl, token, owner }, env, limits) {
    this.#env = env;
    this.#limits = limits;
    this.#base = (baseUrl ?? "").replace(/\/+$/, "");
    this.#events = (eventsUrl ?? this.#base).replace(/\/+$/, "");
    this.#owner = owner;
    this.setToken(token);
  }

  /** Throws BlotterError (401) where it is somebody else's. */
  setToken(token) {
    const text = typeof token === "string" ? this.#sameSubject(token) : null;
    this.#token = token;
    this.#tokenText = text;
    this.#asking = null;
  }

  /** `token`, unless it is another person's than the first was: what waits here would be kept as theirs. */
  #sameSubject(token) {
    const subject = this.#owner === undefined && token ? subjectOf(token) : null;
    if (subject !== null) this.#subject ??= subject;
    if (subject !== null && subject !== this.#subject) throw new BlotterError(401, { title: "This token is another person's" });
    return token ?? null;
  }

  /** Whose things these are, on which server; undefined until it was asked for. */
  get account() {
    return this.#account;
  }

  /** Asks for it; null where the token is not to be had yet. */
  async findAccount() {
    if (this.#account === undefined) {
      let name = this.#owner;
      if (name === undefined) {
        const token = await this.bearer().catch(() => null);
        name = subjectOf(token);
        if (name === null && token === null) return null; // who it is will be known later
      }
      this.#account = `${this.#base}\n${name ?? ""}`;
    }
    return this.#account;
  }

  /** Ends what is under way; nothing is tried again. */
  close() {
    this.#closed = true;
    for (const controller of this.#requests) controller.abort();
  }

  /** The token; another than `spent`, where it can be asked for. Whoever needs one at the same time waits for the same answer. */
  async bearer(spent = undefined) {
    if (typeof this.#token !== "function") return this.#tokenText;
    if (this.#tokenText !== null && this.#tokenText !== spent) return this.#tokenText;
    if (this.#asking === null) {
      const asking = this.#ask(this.#token, spent !== undefined);
      const over = () => {
        if (this.#asking === asking) this.#asking = null;
      };
      this.#asking = asking;
      asking.then(over, over);
    }
    return this.#asking;
  }

  /** One call of the token function. One that never answers is given up like a request, and asked again by the next. */
  #ask(source, fresh) {
    return new Promise((resolve, reject) => {
      const timer = this.#env.setTimeout(() => reject(new Error("The token function does not answer.")), this.#limits.requestMs);
      Promise.resolve({ fresh }).then(source).finally(() => this.#env.clearTimeout(timer)).then((text) => {
        const own = this.#sameSubject(text);
        if (this.#token === source) this.#tokenText = own;
        resolve(own);
      }).catch(reject);
    });
  }

  /**
   * One request, with a fresh token once after a 401. Resolves to the body; throws BlotterError.
   *
   * Without an await before `fetch` where a token is known: a page that goes away runs no microtasks later.
   */
  call(method, path, { text, headers = {}, controller = new AbortController(), keepalive = false, beside = false } = {}) {
    let spent = null;
    const attempt = (bearer) => {
      spent = bearer;
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
    this.keepaliveBytes += bytes;
    if (!beside) this.flights++;
    this.#requests.add(controller);
    const timer = this.#env.setTimeout(() => controller.abort(), this.#limits.requestMs);
    const finish = () => {
      this.keepaliveBytes -= bytes;
      if (!beside) this.flights--;
      this.#requests.delete(controller);
      this.#env.clearTimeout(timer);
    };
    let first;
    try {
      first = known === null ? unlessAborted(this.bearer(), controller.signal).then(attempt) : attempt(known);
    } catch (error) {
      first = Promise.reject(error);
    }
    const renewed = () => unlessAborted(this.bearer(spent), controller.signal).then(attempt);
    return this.#read(first, renewed).finally(finish);
  }

  async #read(first, renewed) {
    let response;
    try {
      response = await first;
      if (response.status === 401 && typeof this.#token === "function") {
        await response.body?.cancel();
        response = await renewed();
      }
      const type = response.headers.get("Content-Type") ?? "";
      const json = /[/+]json/.test(type);
      const body = json ? await response.json() : (await response.text(), undefined);
      // A page of a proxy, a hotel or a login is nobody's acknowledgement, whatever its status.
      if (response.ok && !json && response.status !== 204) throw new BlotterError(0, { title: "Not an answer of Blotter" });
      if (response.ok) return body;
      throw refusal(response, body, this.#env.now());
    } catch (error) {
      if (error instanceof BlotterError) throw error;
      throw new BlotterError(0, {}, 0, error);
    }
  }

  /** A read that is tried again while nobody answers. */
  async get(path, { tries = 4, signal } = {}) {
    for (let failures = 0; ; failures++) {
      try {
        const controller = new AbortController();
        signal?.addEventListener("abort", () => controller.abort(), { once: true });
        return await this.call("GET", path, { controller });
      } catch (error) {
        if (!TRANSIENT.has(error.status) || failures + 1 >= tries || signal?.aborted || this.#closed) throw error;
        const wait = backoffMs(failures, error.retryAfterMs, this.#env.random, this.#limits);
        await new Promise((next) => this.#env.setTimeout(next, wait));
      }
    }
  }

  /**
   * Follows a stream of events from `place.offset` on, and keeps that in step; reconnects until `controller` aborts.
   *
   * By server-sent events; where none of them comes through, by long polls, until one of those fails.
   *
   * Returns when the stream is closed; throws where it cannot go on, and what `onEvent` and `onUpToDate` throw: the same
   * event would come again and again. What they return is waited for.
   */
  async follow(path, place, controller, { onEvent, onUpToDate }) {
    let failures = 0;
    let spent; // the token that was refused last
    let polls = false;
    let known = false; // whether there are events here at all
    let fault = null; // what a listener threw
    const tell = async (listener, value) => {
      try {
        await listener(value);
      } catch (error) {
        fault = { error };
        throw error;
      }
    };
    while (!controller.signal.aborted && !this.#closed) {
      let wait = 0;
      let began = polls;
      const connection = new AbortController();
      const end = () => connection.abort();
      controller.signal.addEventListener("abort", end, { once: true });
      this.#requests.add(connection);
      try {
        const query = new URLSearchParams({ offset: place.offset, live: polls ? "long-poll" : "sse" });
        const bearer = await unlessAborted(this.bearer(spent), controller.signal);
        const headers = { Accept: polls ? "application/json" : "text/event-stream" };
        if (bearer) headers.Authorization = `Bearer ${bearer}`;
        if (this.#owner !== undefined) headers["Blotter-Owner"] = byteString(this.#owner);
        const asked = this.#env.fetch(`${this.#events}${path}?${query}`, { headers, signal: connection.signal });
        const within = (promise) => this.#unlessSilent(promise, connection, began ? this.#limits.silenceMs : this.#limits.streamMs);
        const response = await within(asked);
        if (response.status === 401 && typeof this.#token === "function" && spent === undefined) {
          spent = bearer;
          await response.body?.cancel();
          continue;
        }
        spent = undefined;
        if (!response.ok) {
          const error = refusal(response, await response.json().catch(() => undefined), this.#env.now());
          const nowhere = !known && error.status === 0 && response.status === 404;
          throw nowhere ? new BlotterError(404, { title: "There are no live events here" }) : error;
        }
        known = true;
        const read = async (reader) => {
          const piece = await within(reader.read());
          began = true;
          return piece;
        };
        const told = polls ? polledEvents(response, within) : serverSentEvents(response.body, read);
        for await (const { event, data } of told) {
          failures = 0;
          if (event === "data") {
            const values = JSON.parse(data);
            for (const value of Array.isArray(values) ? values : [values]) await tell(onEvent, value);
          } else if (event === "control") {
            const control = JSON.parse(data);
            if (control.streamNextOffset !== undefined) place.offset = String(control.streamNextOffset);
            if (control.upToDate) await tell(onUpToDate, place.offset);
            if (control.streamClosed) return;
          }
          if (controller.signal.aborted) return;
        }
      } catch (error) {
        if (controller.signal.aborted || this.#closed) return;
        if (fault !== null) throw fault.error;
        if (error instanceof BlotterError && !TRANSIENT.has(error.status)) throw error;
        wait = error instanceof BlotterError ? error.retryAfterMs : 0;
        polls = !began && connection.signal.aborted;
      } finally {
        this.#requests.delete(connection);
        controller.signal.removeEventListener("abort", end);
      }
      const ms = backoffMs(failures++, wait, this.#env.random, this.#limits);
      await new Promise((next) => this.#env.setTimeout(next, ms));
    }
  }

  /** What `promise` gives. A connection that is silent for too long is dead, though nobody says so: it is cut. */
  #unlessSilent(promise, connection, ms) {
    const timer = this.#env.setTimeout(() => connection.abort(), ms);
    return unlessAborted(promise, connection.signal).finally(() => this.#env.clearTimeout(timer));
  }
}
