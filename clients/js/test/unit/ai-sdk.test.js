/** Properties of what joins Blotter and the AI SDK, with the real `ai`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { readUIMessageStream } from "ai";

import { chunksBetween } from "../../ai-sdk.js";
import { dice, randomChunks } from "../support.js";

const SEEDS = Number(process.env.BLOTTER_TEST_SEEDS ?? 150);
const json = (value) => JSON.parse(JSON.stringify(value));
const stream = (chunks) => new ReadableStream({ start: (controller) => (chunks.forEach((chunk) => controller.enqueue(structuredClone(chunk))), controller.close()) });

async function fold(chunks) {
  const snapshots = [];
  for await (const message of readUIMessageStream({ stream: stream(chunks), terminateOnError: true })) snapshots.push(json(message));
  return snapshots;
}
/** What an input was while it was still being written is the SDK's own note; a chunk cannot bring it back. */
const settled = (message) => ({ ...message, parts: message.parts.map(({ rawInput, ...part }) => (part.state === "input-streaming" ? { ...part, rawInput } : part)) });

test("whoever joins a reply anywhere, and hears of it now and then, has what the SDK has in the end", async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = dice(seed);
    const chunks = randomChunks(random, { start: { type: "start", messageId: "r" } });
    const snapshots = await fold(chunks);
    const share = random.pick([1, 0.5, 0.1]);
    const heard = [{ type: "start", messageId: "r" }];
    let before = { parts: [] };
    for (const [index, after] of snapshots.entries()) {
      if (index !== snapshots.length - 1 && !random.chance(share)) continue;
      heard.push(...chunksBetween(before, after));
      before = after;
    }
    const last = (await fold([...heard, { type: "start", messageId: "r" }])).at(-1);
    const end = snapshots.at(-1);
    if (end) assert.deepEqual(settled(last), settled(end), `seed ${seed}`);
  }
});
