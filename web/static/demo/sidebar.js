/**
 * The list of conversations: latest first, page by page; kept fresh by what happens here and in other tabs.
 *
 * @module sidebar
 */

import { $, arrange, el, setText } from "./dom.js";

/** ms; other browsers' changes are seen this late at most. */
const REFRESH_MS = 20_000;
const SOON_MS = 250;
const PAGE = 40;

export class Sidebar extends EventTarget {
  #blotter;
  #chat;
  #archived = false;
  #conversations = [];
  #after = null;
  #links = new Map();
  #timer = null;
  #missed = null; // the open conversation, where the list had to be asked for it
  #tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("blotter.demo") : null;

  /** Events: `choose` {id}. */
  constructor(blotter, chat) {
    super();
    this.#blotter = blotter;
    this.#chat = chat;
    $("archived").addEventListener("click", () => this.#toggleArchived());
    $("more").addEventListener("click", () => this.#load(this.#after));
    $("list").addEventListener("keydown", (event) => this.#walk(event));
    this.#tabs?.addEventListener("message", () => this.soon());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.soon());
    setInterval(() => document.visibilityState === "visible" && this.refresh(), REFRESH_MS);
  }

  /** Something changed here: other tabs want to know, too. */
  changed() {
    this.#tabs?.postMessage("changed");
    this.soon();
  }

  soon() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.refresh();
    }, SOON_MS);
  }

  refresh() {
    return this.#load(null);
  }

  async #load(after) {
    const archived = this.#archived;
    const limit = after ? PAGE : Math.min(200, Math.max(PAGE, this.#conversations.length));
    const page = await this.#blotter.listConversations({ archived, limit, after }).catch(() => null);
    if (page === null || archived !== this.#archived) return;
    const known = after ? this.#conversations : [];
    const ids = new Set(known.map((one) => one.id));
    this.#conversations = [...known, ...page.conversations.filter((one) => !ids.has(one.id))];
    this.#after = page.after;
    this.update();
  }

  #toggleArchived() {
    this.#archived = !this.#archived;
    this.#conversations = [];
    $("archived").setAttribute("aria-pressed", String(this.#archived));
    this.refresh();
  }

  update() {
    const open = this.#chat.view.conversation;
    this.#lookFor(open);
    const wanted = this.#conversations.map((conversation) => {
      const own = conversation.id === this.#chat.id;
      let link = this.#links.get(conversation.id);
      if (!link) {
        link = el("li", {}, el("a", { href: `#/${encodeURIComponent(conversation.id)}` }));
        this.#links.set(conversation.id, link);
      }
      const anchor = link.firstChild;
      setText(anchor, (own && open?.title) || conversation.title || "Untitled");
      anchor.title = anchor.textContent;
      if (own) anchor.setAttribute("aria-current", "page");
      else anchor.removeAttribute("aria-current");
      return link;
    });
    arrange($("list"), wanted);
    for (const id of this.#links.keys()) if (!this.#conversations.some((one) => one.id === id)) this.#links.delete(id);
    $("more").hidden = !this.#after;
    $("empty").hidden = this.#conversations.length > 0;
    setText($("empty"), this.#archived ? "Nothing is archived." : "No conversations yet.");
  }

  /** What was made elsewhere a moment ago, and opened by its address, is asked for: once. */
  #lookFor(open) {
    const { id, state } = this.#chat;
    const listed = this.#conversations.some((one) => one.id === id);
    const missed = state === "open" && !listed && Boolean(open?.archived) === this.#archived ? id : null;
    if (missed !== null && missed !== this.#missed) this.soon();
    this.#missed = missed;
  }

  /** Arrow keys, Home and End move within the list. */
  #walk(event) {
    const links = [...$("list").querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined || !links[to]) return;
    event.preventDefault();
    links[to].focus();
  }
}
