/**
 * The operators' page: asks /api/ops every five seconds and shows the answer.
 *
 * Elements are made once and then only changed, so focus, selection and what is read aloud stay where they are.
 *
 * @module ops
 */

import { $, arrange, el, setText } from "/static/demo/dom.js";
import { GRAPHS } from "./graphs.js";
import { Tile } from "./tile.js";
import { count, span } from "./words.js";

const EVERY_MS = 5000;
const PATIENCE_MS = 10_000;
const KEY = "blotter.ops.token";
const WELL = { green: "All is well", amber: "It works; somebody should look", red: "Act now" };

/** Thrown where the token is not taken. */
class NoEntry extends Error {}

const store = {
  get: () => { try { return sessionStorage.getItem(KEY); } catch { return null; } },
  set: (token) => { try { token === null ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, token); } catch { /* this page only */ } },
};

let token = store.get();
let demo = false;
let timer = 0;

/** `blotter up` gives this machine's browser a token; elsewhere there is no such address. */
async function demoToken() {
  const browser = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/demo/session", { method: "POST", headers, body: JSON.stringify({ browser }), signal: AbortSignal.timeout(PATIENCE_MS) });
  return answer.ok ? (await answer.json()).token : null;
}

async function ask() {
  if (token === null) {
    token = await demoToken();
    demo = token !== null;
    if (!demo) throw new NoEntry("");
  }
  const answer = await fetch("/api/ops", { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401 || answer.status === 403) {
    const said = (await answer.json().catch(() => ({}))).detail ?? "The token was not taken.";
    const again = demo;
    token = null;
    store.set(null);
    if (again) return ask();
    throw new NoEntry(said);
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `status ${answer.status}`);
  return answer.json();
}

function show(found) {
  $("enter").hidden = true;
  $("shown").hidden = false;
  $("leave").hidden = demo;
  verdict(found.level, found.reasons);
  parts(found);
  for (const tile of tiles) tile.show(found);
  partitions(found.figures?.partitions ?? []);
}

function verdict(level, reasons) {
  const icon = { green: "●", amber: "▲", red: "■" }[level];
  $("verdict").dataset.level = level;
  setText($("level"), `${icon} ${level[0].toUpperCase()}${level.slice(1)}: ${WELL[level].toLowerCase()}`);
  const lines = reasons.map(({ level: of, reason, step }) => `${of}\n${reason}\n${step}`);
  const list = $("reasons");
  // Told anew only where something changed: the region is read aloud.
  if (list.dataset.lines !== lines.join("\n\n")) {
    list.dataset.lines = lines.join("\n\n");
    list.replaceChildren(...reasons.map((one) => el("li", {}, el("strong", { class: one.level }, one.level), `: ${one.reason}`, el("p", { class: "step" }, one.step))));
  }
  document.title = `${icon} Blotter: ${level}`;
}

function parts({ states, figures }) {
  const age = (alive, seconds) => (alive ? `${span(seconds ?? 0)} ago` : "not alive");
  const lines = [
    ["Buffer", states.buffer, states.buffer === "ok"],
    ["Postgres", states.store, states.store === "ok"],
    ["Broker", states.broker, states.broker === "ok"],
  ];
  if (figures) {
    lines.push(["Workers", count(figures.workers.length), figures.workers.length > 0, figures.workers.join(", ")]);
    lines.push(["Beat", age(figures.beatAlive, figures.beatAgeSeconds), figures.beatAlive]);
    lines.push(["Sweep", age(figures.sweepAlive, figures.sweepAgeSeconds), figures.sweepAlive]);
    lines.push(["Append-only file", figures.aofWritable ? "written" : "cannot be written", figures.aofWritable]);
    lines.push(["Paused partitions", count(figures.pausedPartitions), figures.pausedPartitions === 0]);
  }
  $("parts").replaceChildren(
    ...lines.map(([name, text, good, title]) => el("span", { title }, `${name}: `, el("b", { class: good ? "state" : "state bad" }, `${good ? "✓" : "✗"} ${text}`))),
  );
}

const rows = new Map();

function partitions(all) {
  const most = Math.max(10, ...all.map((one) => one.lateSeconds));
  arrange($("partitions"), all.map((one) => {
    if (!rows.has(one.partition)) {
      const meter = el("meter", { min: 0, "aria-label": `Lateness of partition ${one.partition}` });
      const says = el("span");
      rows.set(one.partition, { line: el("li", {}, `p${one.partition}`, meter, says), meter, says });
    }
    const { line, meter, says } = rows.get(one.partition);
    meter.max = most;
    meter.value = one.lateSeconds;
    says.className = one.lateSeconds > 10 ? "late" : "";
    const marks = [one.deadLetters ? `${count(one.deadLetters)} dead` : "", one.paused ? "paused" : "", one.flushing ? "flushing" : ""].filter(Boolean);
    setText(says, [`${span(one.lateSeconds)}, ${count(one.due)}`, ...marks].join(" · "));
    return line;
  }));
}

const tiles = GRAPHS.map((graph) => new Tile(graph));
$("tiles").append(...tiles.map((tile) => tile.element));

async function round() {
  clearTimeout(timer);
  try {
    const found = await ask();
    show(found);
    setText($("asked"), `As of ${new Date().toLocaleTimeString()}`);
  } catch (error) {
    if (error instanceof NoEntry) {
      $("enter").hidden = false;
      $("shown").hidden = true;
      $("leave").hidden = true;
      setText($("why"), error.message);
      setText($("asked"), "");
      $("token").focus();
      return;
    }
    $("enter").hidden = true;
    $("shown").hidden = false;
    verdict("red", [{ level: "red", reason: `the web does not answer (${error.message})`, step: "look at the web processes and their log; what follows is what was last known" }]);
  }
  if (!document.hidden) timer = setTimeout(round, EVERY_MS);
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  demo = false;
  store.set(token);
  $("token").value = "";
  round();
});
$("leave").addEventListener("click", () => {
  token = null;
  store.set(null);
  clearTimeout(timer);
  $("shown").hidden = true;
  $("leave").hidden = true;
  $("enter").hidden = false;
  setText($("asked"), "");
  $("token").focus();
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && $("enter").hidden) round();
});
round();
