/**
 * Where one writes: Enter sends, Shift+Enter begins a line (on a touch screen Enter does). A draft outlives a refresh.
 *
 * @module composer
 */

import { $ } from "./dom.js";

const DRAFT_MS = 150;
/** Characters of a draft that is kept; browsers give a page a few million in all. */
const DRAFT_MOST = 1_000_000;

export class Composer {
  #field = $("words");
  #chat;
  #timer = null;
  #touch = matchMedia("(pointer: coarse)");

  constructor(chat) {
    this.#chat = chat;
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (chat.openReply && !this.#field.value.trim()) chat.stop();
      else this.#send();
    });
    this.#field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || this.#touch.matches) return;
      event.preventDefault();
      this.#send();
    });
    this.#field.addEventListener("input", () => {
      this.#fit();
      this.update();
      this.#timer ??= setTimeout(() => this.#keep(), DRAFT_MS);
    });
    addEventListener("pagehide", () => this.#keep());
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  /** Another conversation is open: its own draft. */
  opened() {
    try {
      this.#field.value = sessionStorage.getItem(this.#key) ?? "";
    } catch {
      this.#field.value = "";
    }
    this.#fit();
    this.update();
  }

  /** Puts `text` into the field and sends it. */
  say(text) {
    this.#field.value = text;
    this.#send();
  }

  update() {
    const stops = this.#chat.openReply !== null && !this.#field.value.trim();
    const button = $("send");
    button.setAttribute("aria-label", stops ? "Stop" : "Send");
    button.title = stops ? "Stop (Esc)" : "Send (Enter)";
    button.disabled = !stops && (!this.#field.value.trim() || !["new", "open"].includes(this.#chat.state));
    button.querySelector("use").setAttribute("href", stops ? "#i-stop" : "#i-send");
  }

  #send() {
    const text = this.#field.value;
    if (!text.trim() || !["new", "open"].includes(this.#chat.state)) return;
    this.#field.value = "";
    this.#keep();
    this.#chat.send(text);
    this.#fit();
    this.update();
    this.focus();
  }

  get #key() {
    return `blotter.draft.${this.#chat.state === "new" ? "" : this.#chat.id}`;
  }

  #keep() {
    clearTimeout(this.#timer);
    this.#timer = null;
    try {
      const draft = this.#field.value;
      if (draft && draft.length <= DRAFT_MOST) sessionStorage.setItem(this.#key, draft);
      else sessionStorage.removeItem(this.#key);
    } catch {
      // no room, or no storage: a draft is no message yet
    }
  }

  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }
}
