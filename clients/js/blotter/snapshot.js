/**
 * Snapshots: what is shown, or known, of one item, as a plain object of the API's own fields. Absent: not said. Pure.
 *
 * @module blotter/snapshot
 */

import { cleanJson, wellFormed, wholePairs } from "./text.js";

/** Fields compared and sent whole, by kind. `content`, `parts`, `status` and links have rules of their own. */
export const PLAIN = {
  conversation: ["title", "metadata", "archived", "headId"],
  message: ["role", "metadata", "parentId"],
  toolResult: ["messageId", "toolCallId", "toolName", "state", "input", "output", "errorText"],
  artifact: ["messageId", "kind", "title", "language", "mediaType", "metadata"],
};
export const LINKS = { message: ["toolResultIds", "artifactIds"] };
export const LISTS = { message: "messages", toolResult: "toolResults", artifact: "artifacts" };
export const PATHS = { message: "messages", toolResult: "tool-results", artifact: "artifacts" };
export const OPEN = new Set(["pending", "streaming"]);

const TOOL_RANKS = {
  "input-streaming": 0,
  "input-available": 1,
  "approval-requested": 2,
  "approval-responded": 3,
  "output-available": 5,
  "output-error": 5,
  "output-denied": 5,
};
export const FINAL = 5;

export const isOpen = (snapshot) => OPEN.has(snapshot?.status);

/** The text of a part that can be appended to; null where it has none. */
export const textOf = (part) =>
  (part.type === "text" || part.type === "reasoning") && typeof part.text === "string" ? part.text : null;

/** How far a part or tool result has come, 0…5; 5 is final. The server ranks alike. */
export function rankOf(value) {
  const tool = value.type === undefined || value.type === "dynamic-tool" || value.type.startsWith("tool-");
  if (!tool) return textOf(value) !== null && value.state === "streaming" ? 0 : FINAL;
  const rank = TOOL_RANKS[value.state] ?? FINAL;
  return rank === FINAL && value.preliminary === true ? 4 : rank;
}

const skeletons = new WeakMap();
/** A part's JSON with its text left out. Parts kept here are never changed in place. */
export function skeletonOf(part) {
  let skeleton = skeletons.get(part);
  if (skeleton === undefined) {
    skeleton = JSON.stringify(textOf(part) === null ? part : { ...part, text: "" });
    skeletons.set(part, skeleton);
  }
  return skeleton;
}

export const same = (one, other) =>
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
export function progress(kind, snapshot) {
  if (kind === "toolResult") return rankOf({ state: snapshot.state, preliminary: snapshot.preliminary });
  let units = snapshot.content?.length ?? 0;
  for (const part of snapshot.parts ?? []) units += 1 + rankOf(part) + (textOf(part)?.length ?? 0);
  return units;
}
