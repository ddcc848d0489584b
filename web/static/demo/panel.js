/**
 * The buttons that break things, what they say, and how fast the assistant writes.
 *
 * @module panel
 */

import { $, setText } from "./dom.js";

const OFFLINE_S = 10;
const SPEED = "blotter.speed";

export class Panel {
  #blotter;
  #line;

  /** `session`: openSession's; `say(text)`: tells the reader. */
  constructor({ blotter, line, session, say }) {
    this.#blotter = blotter;
    this.#line = line;
    setText($("owner"), session.owner);
    $("break-refresh").addEventListener("click", () => location.reload());
    $("break-line").addEventListener("click", () => line.cut(OFFLINE_S));
    $("break-worker").addEventListener("click", async () => {
      try {
        const { pid } = await session.post("/demo/kill-worker");
        say(`Worker process ${pid} is dead. Nothing else happened.`);
      } catch (error) {
        say(`No worker was killed: ${error.message}`);
      }
    });
    const speed = $("speed");
    const known = Number(stored(SPEED));
    if (known > 0 && ![...speed.options].some((one) => Number(one.value) === known)) speed.add(new Option(`${known} characters a second`, String(known)));
    if (known > 0) speed.value = String(known);
    speed.addEventListener("change", () => store(SPEED, speed.value));
    line.addEventListener("change", (event) => {
      this.update();
      setText($("break-line-left"), event.left ? `back in ${event.left} s` : "");
      $("break-line").disabled = event.left > 0;
      if (event.left === 0) {
        say("Back online.");
        blotter.retry();
      }
    });
  }

  /** Characters a second. */
  get speed() {
    return Number($("speed").value) || undefined;
  }

  /** What waits, in figures, and the banner while nothing gets through. */
  update(reachable = true) {
    setText($("figures"), `${this.#blotter.unsaved} unsaved, ${this.#blotter.unstored} not yet stored`);
    const away = !this.#line.open || !reachable || navigator.onLine === false;
    $("away").hidden = !away;
  }
}

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // for this page only, then
  }
}

/** The button that turns light into dark; `data-theme` is what theme.js reads before the first paint. */
export function themeButton(button) {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.querySelector("use").setAttribute("href", dark() ? "#i-sun" : "#i-moon");
    button.setAttribute("aria-label", dark() ? "Light" : "Dark");
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    store("blotter.theme", document.documentElement.dataset.theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
