/**
 * Text that may be kept, its length in bytes, and ids. Pure.
 *
 * @module blotter/text
 */

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
