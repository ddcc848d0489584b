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
 * No dependencies, no build step. Runs in browsers and in Node 20. Clocks, timers, fetch, storage and locks can be passed in.
 * This module is what others import; its parts lie in `blotter/` beside it, each one thing: `client`, `item` and `reply` (what
 * is kept, and when it goes out), `plan`, `snapshot`, `text` and `limits` (pure), `wire`, `events` and `errors` (the server),
 * `outbox` (the browser's storage).
 *
 * @module blotter
 */

import { Blotter } from "./blotter/client.js";

export { Blotter } from "./blotter/client.js";
export { backoffMs, BlotterError, retryAfterMs } from "./blotter/errors.js";
export { foldEvent, serverSentEvents } from "./blotter/events.js";
export { LIMITS } from "./blotter/limits.js";
export { Outbox } from "./blotter/outbox.js";
export { nextStep, resolve } from "./blotter/plan.js";
export { Reply } from "./blotter/reply.js";
export { sizeOf, snapshotFrom, snapshotOf } from "./blotter/snapshot.js";
export { asId, cleanJson, mintId, toolResultId, utf8Length, wellFormed, wholePairs } from "./blotter/text.js";

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
