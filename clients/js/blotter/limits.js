/**
 * Every bound of the client, with its unit.
 *
 * @module blotter/limits
 */

export const SECOND_MS = 1000;

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
  /** ms; longest time a Retry-After is believed: more is a mistake. */
  retryAfterMaxMs: 300 * SECOND_MS,
  /** ms; live events that say nothing for so long are asked for anew (the server says every 15 s that it lives). */
  silenceMs: 50 * SECOND_MS,
  /** ms; a stream that has not begun by then is held back by a proxy: long polls take its place. */
  streamMs: 10 * SECOND_MS,
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
  /** ms; a page whose connections tear is gone by then, if that is why. */
  leaveMs: 2 * SECOND_MS,
  /** ms; without Web Locks: a tab that did not renew its lease for so long is taken for dead. */
  leaseMs: 150 * SECOND_MS,
});
