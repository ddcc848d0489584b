/**
 * One figure: its name, what it is now, and a graph of the last hour that can be read by pointer and by arrow keys.
 *
 * @module tile
 */

import { el, setText } from "/static/demo/dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HOUR_MS = 3_600_000;
/** Samples further apart than this are not joined: nobody looked in between. */
const GAP_MS = 35_000;
const WIDTH = 360;
const HEIGHT = 60;

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export class Tile {
  #graph;
  #value = el("output");
  #svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: "0" });
  #paths;
  #limit = shape("line", { class: "limit", x1: 0, x2: WIDTH });
  #cursor = shape("line", { class: "cursor", y1: 0, y2: HEIGHT });
  #caption = el("figcaption");
  #at = null;
  #found = null;
  #most = 0;

  constructor(graph) {
    this.#graph = graph;
    this.#paths = graph.lines.map((_, i) => shape("path", { class: i ? "second" : "first" }));
    this.#svg.append(shape("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }), this.#limit, ...this.#paths, this.#cursor);
    this.#svg.addEventListener("pointermove", (event) => this.#point(event));
    this.#svg.addEventListener("pointerleave", () => this.#choose(null));
    this.#svg.addEventListener("blur", () => this.#choose(null));
    this.#svg.addEventListener("keydown", (event) => this.#step(event));
    this.element = el("figure", { class: "tile" }, el("h3", {}, graph.name), this.#value, this.#svg, this.#caption);
  }

  show(found) {
    this.#found = found;
    this.#tell(found);
    this.#draw(found);
    if (this.#at !== null && this.#at >= this.#times().length) this.#at = null;
    this.#explain();
  }

  #times = () => this.#found?.series.atMs ?? [];

  #tell(found) {
    const { now, second, say, keys = [], note } = this.#graph;
    const one = (value, i) => el(
      "span", { class: "one" },
      ...(keys.length ? [el("span", { class: i ? "key second" : "key", "aria-hidden": "true" }), el("small", {}, ` ${keys[i]} `)] : []),
      value === null ? "–" : say(value),
    );
    this.#value.replaceChildren(one(now(found), 0), ...(second ? [" ", one(second(found), 1)] : []), ...(note ? [" ", el("small", {}, note(found))] : []));
    this.#value.classList.toggle("two", second !== undefined);
  }

  #draw(found) {
    const times = this.#times();
    const end = times.at(-1) ?? 0;
    const series = this.#graph.lines.map((name) => found.series[name] ?? []);
    const highest = Math.max(0, ...series.flat().filter((value) => value !== null));
    const limit = this.#graph.limit?.(found) ?? null;
    // The limit is drawn where it is near; a far one would press the line to the ground.
    const near = limit !== null && highest > limit / 4;
    this.#most = Math.max(highest, near ? limit : 0) || 1;
    this.#limit.toggleAttribute("hidden", !near);
    this.#limit.style.display = near ? "" : "none";
    if (near) for (const y of ["y1", "y2"]) this.#limit.setAttribute(y, this.#y(limit));
    series.forEach((values, i) => {
      let path = "";
      let before = null;
      values.forEach((value, at) => {
        if (value === null) { before = null; return; }
        const joined = before !== null && times[at] - before <= GAP_MS;
        const x = this.#x(times[at], end);
        // A lone value is drawn as a dash: a path of one point shows nothing.
        path += `${joined ? "L" : "M"}${x.toFixed(1)} ${this.#y(value).toFixed(1)}${joined ? "" : "h0.8"}`;
        before = times[at];
      });
      this.#paths[i].setAttribute("d", path);
    });
  }

  #x = (at, end) => WIDTH * (1 - (end - at) / HOUR_MS);
  #y = (value) => HEIGHT - 2 - (HEIGHT - 6) * (value / this.#most);

  #point(event) {
    const times = this.#times();
    if (!times.length) return;
    const box = this.#svg.getBoundingClientRect();
    const wanted = times.at(-1) - HOUR_MS * (1 - (event.clientX - box.left) / box.width);
    let nearest = 0;
    times.forEach((at, i) => { if (Math.abs(at - wanted) < Math.abs(times[nearest] - wanted)) nearest = i; });
    this.#choose(nearest);
  }

  #step(event) {
    const last = this.#times().length - 1;
    const from = this.#at ?? last + 1;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, PageUp: from - 30, PageDown: from + 30, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#choose(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#choose(Math.max(0, Math.min(last, to)));
  }

  #choose(at) {
    this.#at = at;
    this.#explain();
  }

  /** The caption: the value at the cursor, or the highest of the hour; and the same for who cannot see the graph. */
  #explain() {
    const times = this.#times();
    const { lines, say, keys = [], name } = this.#graph;
    const series = lines.map((line) => this.#found?.series[line] ?? []);
    const shown = this.#at !== null && times.length > 0;
    this.#cursor.style.display = shown ? "" : "none";
    let text = "no sample yet";
    if (shown) {
      const x = this.#x(times[this.#at], times.at(-1));
      for (const end of ["x1", "x2"]) this.#cursor.setAttribute(end, x);
      const values = series.map((line, i) => `${keys[i] ? `${keys[i]} ` : ""}${line[this.#at] === null ? "–" : say(line[this.#at])}`);
      text = `${new Date(times[this.#at]).toLocaleTimeString()}: ${values.join(", ")}`;
    } else if (times.length) {
      const known = series.at(-1).filter((value) => value !== null);
      text = known.length ? `highest${keys.length ? ` ${keys.at(-1)}` : ""} ${say(Math.max(...known))}` : "nothing in the last hour";
    }
    setText(this.#caption, text);
    this.#svg.setAttribute("aria-label", `${name}, the last hour; ${text}`);
  }
}
