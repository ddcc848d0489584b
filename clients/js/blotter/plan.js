/**
 * What to do next for one item: the request that is missing, who gives way, how two edits are merged. Pure; the laws rest on it.
 *
 * @module blotter/plan
 */

import { LIMITS } from "./limits.js";
import { FINAL, isOpen, LINKS, PATHS, PLAIN, progress, rankOf, same, skeletonOf, textOf } from "./snapshot.js";

/**
 * The request that brings the server from `known` closer to `want`; null where nothing is missing.
 *
 * `known` null: the server is not known to hold anything. Pure; the laws of section 2 rest on it.
 *
 * @returns {{method: string, path: string, body: object|null, after: object, rewrites: boolean, whole: boolean}|null}
 *   `path` below the conversation; `after`: what is known once it is acknowledged; `rewrites`: it may replace something
 *   or end the item, so it needs a revision of its own (what needs none names its offset, or says that it streams);
 *   `whole`: it carries the entire item.
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
  // What takes no revision says that it is of a stream: should it arrive late, the server knows it for an older snapshot.
  const open = isOpen(known) ? { status: isOpen(want) ? want.status : known.status } : {};

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
      return { method: put, path, body: rewrites ? bundle : { ...bundle, ...open }, after: { ...known, ...fields, ...texts, ...status }, rewrites, whole: false };
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
  const says = step.body.part && !rewrites ? open : {};
  return { method: "PATCH", path: one, body: { ...step.body, ...says, ...beside }, after: { ...known, ...step.after, ...beside }, rewrites, whole: false };
}

/** The step for one part; null where it is as known. */
function partStep(index, had, part, growing, streams) {
  const set = (rewrites) => ({ body: { part: { index, value: part } }, rewrites });
  const text = textOf(part);
  // Of a text or a tool the server tells older from newer; all else is final when it comes, and may be replaced.
  if (had === undefined) return set(!growing || (text === null && rankOf(part) === FINAL));
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

/** `want` as changed from `base`, put on top of `current`. */
export function mergeEdit(base, want, current) {
  if (want.deleted || base === null) return want;
  const merged = { ...current };
  for (const [name, value] of Object.entries(want)) if (!same(base[name], value)) merged[name] = value;
  return merged;
}
