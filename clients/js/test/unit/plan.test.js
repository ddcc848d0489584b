/** The next step is decided from two snapshots alone. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { asId, backoffMs, cleanJson, foldEvent, mintId, nextStep, resolve, retryAfterMs, serverSentEvents, snapshotOf, toolResultId, utf8Length, wellFormed, wholePairs } from "../../blotter.js";
import { dice, randomText } from "../support.js";

const step = (known, want, kind = "message") => nextStep(kind, "m", known, want);
const open = { role: "assistant", status: "streaming" };

test("an unknown item goes out whole; a finished one under a revision of its own, an open one without", () => {
  const finished = step(null, { role: "user", content: "hi" });
  assert.deepEqual([finished.method, finished.path, finished.body, finished.rewrites], ["POST", "/messages", { id: "m", role: "user", content: "hi" }, true]);
  assert.equal(step(null, open).rewrites, false);
});

test("text that grew is appended at its length in UTF-16 units", () => {
  const found = step({ ...open, content: "😀a" }, { ...open, content: "😀ab€" });
  assert.deepEqual(found.body, { append: { offset: 3, text: "b€" } });
  assert.deepEqual([found.method, found.path, found.rewrites], ["PATCH", "/messages/m", false]);
});

test("the end goes with the last text and takes a revision", () => {
  const found = step({ ...open, content: "a" }, { ...open, content: "ab", status: "complete" });
  assert.deepEqual(found.body, { append: { offset: 1, text: "b" }, status: "complete" });
  assert.equal(found.rewrites, true);
});

test("an older snapshot of an open stream asks for nothing", () => {
  const parts = (text, state) => [{ type: "text", text, state }];
  assert.equal(step({ ...open, content: "abc" }, { ...open, content: "ab" }), null);
  assert.equal(step({ ...open, parts: parts("abc", "streaming") }, { ...open, parts: parts("ab", "streaming") }), null);
  assert.equal(step({ ...open, parts: parts("abc", "done") }, { ...open, parts: parts("ab", "streaming") }), null);
  assert.equal(step({ ...open, parts: parts("abc", "done") }, { ...open, parts: [] }), null);
});

test("changing a finished text rewrites it, even where it only grew", () => {
  const found = step({ role: "user", content: "a" }, { role: "user", content: "ab" });
  assert.deepEqual([found.method, found.body.content, found.rewrites], ["PUT", "ab", true]);
});

test("a part's text grows by appends; a new part is set; a tool goes forward without a revision", () => {
  const text = (value) => ({ type: "text", text: value, state: "streaming" });
  const tool = (state, more) => ({ type: "tool-x", toolCallId: "c", state, ...more });
  assert.deepEqual(step({ ...open, parts: [text("a")] }, { ...open, parts: [text("ab")] }).body, { append: { part: 0, offset: 1, text: "b" } });
  const fresh = step({ ...open, parts: [text("a")] }, { ...open, parts: [text("a"), tool("input-available", { input: 1 })] });
  assert.deepEqual([fresh.body.part.index, fresh.rewrites], [1, false]);
  const further = step({ ...open, parts: [tool("input-available", { input: 1 })] }, { ...open, parts: [tool("output-available", { input: 1, output: 2 })] });
  assert.deepEqual([further.body.part.index, further.rewrites], [0, false]);
  const other = step({ ...open, parts: [{ type: "data-a", id: "d", data: 1 }] }, { ...open, parts: [{ type: "data-a", id: "d", data: 2 }] });
  assert.equal(other.rewrites, true, "nothing but a revision tells an older data part from a newer one");
});

test("fewer parts at the end take back what was too much, under a revision", () => {
  const found = step({ ...open, parts: [{ type: "step-start" }, { type: "step-start" }] }, { ...open, status: "complete", parts: [{ type: "step-start" }] });
  assert.deepEqual([found.method, found.body.parts.length, found.body.status, found.rewrites], ["PUT", 1, "complete", true]);
});

test("going on with a finished message reopens it under a revision", () => {
  const known = { role: "assistant", status: "complete", parts: [{ type: "text", text: "a", state: "done" }] };
  const found = step(known, { ...known, status: "streaming", parts: [...known.parts, { type: "step-start" }] });
  assert.deepEqual([found.body.status, found.rewrites], ["streaming", true]);
});

test("whatever two snapshots differ by, steps lead from one to the other, and then there are none", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = dice(seed);
    const part = () => random.pick([
      () => ({ type: "text", text: randomText(random, 30), state: random.pick(["streaming", "done"]) }),
      () => ({ type: "tool-a", toolCallId: random.pick(["1", "2"]), state: random.pick(["input-available", "output-available"]), output: randomText(random, 5) }),
      () => ({ type: "data-x", data: { a: random.below(3) } }),
    ])();
    const snapshot = (status) => ({
      role: "assistant",
      status,
      ...(random.chance(0.5) ? { content: randomText(random, 40) } : {}),
      ...(random.chance(0.8) ? { parts: Array.from({ length: random.below(4) }, part) } : {}),
      ...(random.chance(0.4) ? { metadata: { n: random.below(3) } } : {}),
      ...(random.chance(0.3) ? { parentId: random.pick(["p", "q"]) } : {}),
    });
    const want = snapshot("complete");
    let known = random.chance(0.2) ? null : snapshot(random.pick(["streaming", "complete", "interrupted"]));
    let count = 0;
    for (let next = step(known, want); next !== null; next = step(known, want)) {
      known = next.after;
      assert.ok(++count < 12, `seed ${seed}: no end`);
    }
    for (const name of Object.keys(want)) {
      if (name === "parts" && want.parts.length === 0) continue;
      assert.deepEqual(known[name] ?? null, want[name] === "" ? (known[name] ?? null) : want[name], `seed ${seed}: ${name}`);
    }
  }
});

test("a deletion is one step, and none when it is known", () => {
  assert.equal(step({ role: "user" }, { deleted: true }).method, "DELETE");
  assert.equal(step({ deleted: true }, { deleted: true }), null);
});

test("a tool result sends its state with whatever changes", () => {
  const found = step({ state: "input-available", input: 1 }, { state: "output-available", input: 1, output: 2 }, "toolResult");
  assert.deepEqual(found.body, { id: "m", output: 2, state: "output-available" });
});

test("who gives way: an older snapshot of a stream, never a person's edit", () => {
  const stream = (content, status = "streaming", more = {}) => ({ kind: "message", mode: "stream", want: { content, status }, ...more });
  const theirs = (content, status) => ({ content, status });
  assert.equal(resolve({ kind: "message", mode: "edit", want: { content: "x" } }, theirs("longer", "complete"), true), "rebase");
  assert.equal(resolve(stream("ab"), theirs("abc", "complete"), true), "keep");
  assert.equal(resolve(stream("ab"), theirs("abc", "streaming"), true), "keep");
  assert.equal(resolve(stream("abcd"), theirs("abc", "streaming"), true), "rebase");
  assert.equal(resolve(stream("abcd"), theirs("abc", "interrupted"), true), "keep", "stopped elsewhere");
  assert.equal(resolve(stream("abcd", "complete"), theirs("abc", "interrupted"), true), "rebase");
  assert.equal(resolve(stream("a", "streaming", { reopens: true }), theirs("abc", "complete"), true), "rebase");
  assert.equal(resolve({ kind: "message", mode: "edit", want: { content: "x" }, resends: true }, theirs("y", "complete"), true), "keep", "acknowledged before theirs");
});

test("text that JSON stores refuse keeps its length and loses only what cannot be kept", () => {
  assert.equal(wellFormed("a\ud800b\udc00\0c😀"), "a\ufffdb\ufffd\ufffdc😀");
  assert.equal(wholePairs("a\ud83d"), "a");
  assert.equal(wholePairs("😀"), "😀");
  assert.deepEqual(cleanJson({ a: "\ud800", b: undefined, c: [undefined, "\0"] }), { a: "\ufffd", c: [null, "\ufffd"] });
  assert.equal(snapshotOf("message", { content: "x\ud83d", status: "streaming" }).content, "x");
  assert.equal(snapshotOf("message", { content: "x\ud83d" }).content, "x\ufffd");
});

test("bytes, ids and waiting times", () => {
  for (let seed = 1; seed < 50; seed++) {
    const text = randomText(dice(seed), 50);
    assert.equal(utf8Length(text), Buffer.byteLength(text));
  }
  assert.match(mintId(), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.ok(mintId(1000) < mintId(2000));
  assert.equal(toolResultId("m", "c"), "m.c");
  assert.match(asId("weird id/漢"), /^[A-Za-z0-9_.~:@-]{1,256}$/);
  assert.notEqual(asId("weird id/漢"), asId("weird id/字"));
  assert.ok(asId("x".repeat(999)).length <= 256);
  assert.equal(retryAfterMs("3", 0), 3000);
  assert.equal(retryAfterMs(new Date(5000).toUTCString(), 1000), 4000);
  assert.equal(retryAfterMs("never", 0), 0);
  for (const failures of [0, 1, 5, 50]) {
    assert.ok(backoffMs(failures, 0, () => 1) <= 30_000);
    assert.equal(backoffMs(failures, 70_000, () => 0), 70_000, "never sooner than the server asks");
  }
});

test("server-sent events are read whole, however they are cut", async () => {
  const text = ":\n\nevent: data\ndata: [1,\ndata: 2]\n\nevent: control\r\ndata: {\"streamNextOffset\":\"é\"}\r\n\r\n";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 7, 1000]) {
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const found = [];
    for await (const event of serverSentEvents(body)) found.push(event);
    assert.deepEqual(found, [{ event: "data", data: "[1,\n2]" }, { event: "control", data: '{"streamNextOffset":"é"}' }], `cut by ${size}`);
  }
});

test("events bring a view further", () => {
  const view = { conversation: { id: "c", version: 1 }, messages: [{ id: "a", position: "1", version: 1, parts: [{ type: "text", text: "x😀" }], status: "streaming" }], toolResults: [], artifacts: [], version: 1 };
  foldEvent(view, { type: "append", kind: "message", id: "a", part: 0, offset: 3, text: "y", status: "complete", version: 2, set: { metadata: 1 } });
  foldEvent(view, { type: "item", kind: "message", version: 3, item: { id: "b", position: "0", version: 3, status: "complete" } });
  foldEvent(view, { type: "stored", kind: "message", id: "a", version: 2 });
  assert.deepEqual(view.messages.map(({ id, stored }) => [id, stored]), [["b", undefined], ["a", true]]);
  assert.deepEqual([view.messages[1].parts[0].text, view.messages[1].metadata, view.version, view.inFlight], ["x😀y", 1, 3, false]);
  foldEvent(view, { type: "epoch", bufferEpoch: "e", version: 3, unstored: [] });
  assert.equal(view.messages[0].stored, true);
  foldEvent(view, { type: "item", kind: "message", version: 4, item: { id: "b", position: "0", version: 4, deletedAt: "now" } });
  assert.deepEqual(view.messages.map(({ id }) => id), ["a"]);
});
