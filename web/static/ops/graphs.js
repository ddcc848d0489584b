/**
 * What is drawn: for each tile its name, the lines over the last hour, and the figure of just now.
 *
 * `now(found)` is null where there is nothing to tell: no buffer, or nothing happened. `lines`: names in `found.series`.
 *
 * @module graphs
 */

import { bytes, count, fine, span } from "./words.js";

const recent = (name) => (found) => found.recent[name] ?? null;
const figure = (name) => (found) => found.figures?.[name] ?? null;

export const GRAPHS = [
  { name: "Saves a second", lines: ["savesPerSecond"], now: recent("savesPerSecond"), say: fine },
  {
    name: "Acknowledgement", lines: ["ackP50Seconds", "ackP99Seconds"], keys: ["p50", "p99"], say: span,
    now: recent("ackP50Seconds"), second: recent("ackP99Seconds"),
  },
  { name: "Saves for each row written", lines: ["coalescing"], now: recent("coalescing"), say: fine },
  { name: "Dirty items", lines: ["dirtyItems"], now: figure("dirtyItems"), say: count },
  {
    name: "Oldest dirty age", lines: ["oldestDirtyAgeSeconds"], now: figure("oldestDirtyAgeSeconds"), say: span,
    limit: (found) => found.limits.autosaveSeconds + 10,
  },
  { name: "Most overdue", lines: ["lateSeconds"], now: figure("lateSeconds"), say: span },
  { name: "Flush, p99", lines: ["flushP99Seconds"], now: recent("flushP99Seconds"), say: span },
  { name: "Rows written a second", lines: ["rowsPerSecond"], now: recent("rowsPerSecond"), say: fine },
  { name: "Items in flight", lines: ["inFlightItems"], now: figure("inFlightItems"), say: count },
  {
    name: "Conversations in the buffer", lines: ["hotConversations", "blindConversations"], keys: ["hot", "blind"], say: count,
    now: figure("hotConversations"), second: figure("blindConversations"),
  },
  { name: "Dead letters", lines: ["deadLetters"], now: figure("deadLetters"), say: count },
  {
    name: "Buffer memory", lines: ["bufferUsedBytes"], now: figure("bufferUsedBytes"), say: bytes,
    note: (found) => (found.figures?.bufferMaxBytes ? `of ${bytes(found.figures.bufferMaxBytes)}` : "no maxmemory"),
    limit: (found) => (found.figures?.bufferMaxBytes ?? 0) * found.limits.refuseMemoryShare || null,
  },
  {
    name: "A write to the append-only file", lines: ["bufferWriteSeconds"], now: figure("bufferWriteSeconds"), say: span,
    limit: () => 0.25,
  },
  { name: "Worker processes", lines: ["workers"], now: (found) => found.figures?.workers.length ?? null, say: count },
];
