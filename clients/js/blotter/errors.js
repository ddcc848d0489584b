/**
 * What a server refused, and how long to wait before the next attempt.
 *
 * @module blotter/errors
 */

import { LIMITS, SECOND_MS } from "./limits.js";

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

/** Statuses after which the same request may be sent again; 0: no answer. */
export const TRANSIENT = new Set([0, 408, 425, 429, 500, 502, 503, 504]);

/** Full jitter: anything up to the doubled step, never less than what the server asked for, within reason. */
export function backoffMs(failures, retryAfterMs, random, limits = LIMITS) {
  const ceiling = Math.min(limits.backoffMaxMs, limits.backoffMs * 2 ** Math.min(failures, 16));
  return Math.max(Math.min(retryAfterMs, limits.retryAfterMaxMs), Math.round(random() * ceiling));
}

/** Milliseconds that a `Retry-After` header asks for (seconds, or a date); 0 where there is none. */
export function retryAfterMs(header, now) {
  if (!header) return 0;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * SECOND_MS);
  const date = Date.parse(header);
  return Number.isNaN(date) ? 0 : Math.max(0, date - now);
}
