/**
 * Who this browser is, and its way to the server.
 *
 * The browser keeps a random key; the server makes a demo owner of it and gives short-lived tokens.
 *
 * @module session
 */

const KEY = "blotter.browser";

/** This browser's random key; for this page only, where storage is closed to us. */
function browserKey() {
  try {
    const known = localStorage.getItem(KEY);
    if (/^[0-9a-f]{32,64}$/.test(known ?? "")) return known;
  } catch {
    // made anew below
  }
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    localStorage.setItem(KEY, key);
  } catch {
    // then the chats of this page are found by this page alone
  }
  return key;
}

/** The line to the server, which can be cut on purpose. */
export class Line extends EventTarget {
  #cut = null;

  get open() {
    return this.#cut === null;
  }

  fetch = (address, init = {}) => {
    if (this.#cut) return Promise.reject(new TypeError("offline, on purpose"));
    const signals = [init.signal, this.#down.signal].filter(Boolean);
    return fetch(address, { ...init, signal: signals.length > 1 ? AbortSignal.any(signals) : signals[0] });
  };

  #down = new AbortController();

  /** No request gets through for so long, and those under way break off. Calls `tick(secondsLeft)` each second. */
  cut(seconds) {
    if (this.#cut) return;
    let left = seconds;
    this.#cut = setInterval(() => {
      left--;
      if (left <= 0) this.mend();
      else this.#tell(left);
    }, 1000);
    this.#down.abort();
    this.#tell(left);
  }

  mend() {
    clearInterval(this.#cut);
    this.#cut = null;
    this.#down = new AbortController();
    this.#tell(0);
  }

  #tell(left) {
    this.dispatchEvent(Object.assign(new Event("change"), { left }));
  }
}

/** Opens the session: `{owner, eventsUrl, token(), post(path, body)}`. Tries until the server answers. */
export async function openSession(line) {
  const browser = browserKey();
  const ask = async () => {
    const response = await line.fetch("/demo/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ browser }) });
    if (!response.ok) throw new Error(`The demo is not to be had here (${response.status}).`);
    return response.json();
  };
  let first = null;
  for (let wait = 200; first === null; wait = Math.min(2 * wait, 5000)) {
    first = await ask().catch((error) => {
      if (!(error instanceof TypeError)) throw error; // an answer, but a refusal
      return null;
    });
    if (first === null) await new Promise((next) => setTimeout(next, wait));
  }
  let current = first.token;
  const token = async ({ fresh } = {}) => {
    if (fresh) current = (await ask()).token;
    return current;
  };
  /** A call of the demo itself; a token that ran out is replaced once. */
  const post = async (path, body = {}) => {
    const send = async () =>
      line.fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${current}` },
        body: JSON.stringify(body),
        keepalive: true,
      });
    let response = await send();
    if (response.status === 401) {
      await token({ fresh: true });
      response = await send();
    }
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? `Status ${response.status}`);
    return response.json();
  };
  return { owner: first.owner, eventsUrl: first.eventsUrl || undefined, token, post };
}
