/**
 * The messages of the open conversation, each with how far it is kept, its branches and what can be done with it.
 *
 * @module messages
 */

import { isOpen } from "./chat.js";
import { arrange, copied, el, iconButton, setText } from "./dom.js";
import { Parts } from "./parts.js";

const BADGES = {
  typing: "being written",
  waiting: "kept in this browser until the server has it",
  buffered: "in the buffer: a power cut may come",
  stored: "in Postgres",
  failed: "refused",
};
/** Characters of a person's message shown at once. */
const MOST_SHOWN = 6000;

const REASONS = { stopped: "Stopped.", stale: "The writer vanished; what it wrote is kept." };

class MessageView {
  #actions;
  #message = null;
  #parts = null;
  #draft = null;

  constructor(actions) {
    this.#actions = actions;
    this.body = el("div", { class: "body" });
    this.note = el("p", { class: "note", hidden: true });
    this.dots = el("p", { class: "dots", role: "img", "aria-label": "Thinking", hidden: true }, el("i"), el("i"), el("i"));
    this.badge = el("span", { class: "badge" });
    this.place = el("span", { class: "place" });
    this.before = iconButton("left", "Earlier branch", () => this.#turn(-1));
    this.after = iconButton("right", "Later branch", () => this.#turn(1));
    this.branches = el("span", { class: "branches", role: "group", "aria-label": "Branches", hidden: true }, this.before, this.place, this.after);
    this.copy = iconButton("copy", "Copy", () => this.#copy());
    this.edit = iconButton("edit", "Edit", () => this.#edit());
    this.again = iconButton("again", "Write another reply", () => this.#actions.regenerate(this.#message));
    this.ask = el("button", { type: "button", class: "ask", hidden: true, onclick: () => this.#actions.answer(this.#message) }, "Ask for a reply");
    this.foot = el("footer", {}, this.branches, el("span", { class: "doing" }, this.copy, this.edit, this.again), this.badge);
    this.element = el("article", {}, this.body, this.dots, this.note, this.ask, this.foot);
  }

  update(message, { progress, siblings, threaded, last, chat }) {
    const { element } = this;
    element.className = `message ${message.role}`;
    element.dataset.id = message.id;
    element.dataset.status = message.status ?? "";
    element.setAttribute("aria-label", message.role === "user" ? "You" : message.role === "assistant" ? "Assistant" : message.role);
    if (this.#message !== message || (message.artifactIds ?? []).length || message.parts) this.#show(message, chat);
    this.#message = message;
    setText(this.badge, progress);
    this.badge.dataset.progress = progress;
    this.badge.title = BADGES[progress];
    const at = siblings.findIndex((one) => one.id === message.id);
    this.branches.hidden = siblings.length < 2;
    setText(this.place, `${at + 1}/${siblings.length}`);
    this.before.disabled = at <= 0;
    this.after.disabled = at < 0 || at + 1 >= siblings.length;
    this.around = { before: siblings[at - 1], after: siblings[at + 1] };
    this.copy.hidden = textOf(message) === "";
    this.edit.hidden = message.role !== "user" || !threaded;
    this.again.hidden = message.role !== "assistant" || isOpen(message) || !threaded || !message.parentId;
    this.ask.hidden = !(last && message.role === "user");
  }

  #show(message, chat) {
    const open = isOpen(message);
    if (message.role === "user") {
      if (this.#draft === null) this.#showPlain(message.content ?? textOf(message));
    } else {
      this.#parts ??= new Parts({ openArtifact: this.#actions.openArtifact, artifact: (id) => chat.artifact(id) });
      arrange(this.body, [this.#parts.element]);
      this.#parts.update(message, open);
    }
    this.dots.hidden = !(open && !textOf(message) && !message.parts?.length);
    const why = open || message.status === "complete" ? "" : (REASONS[message.statusReason] ?? message.statusReason ?? "Broken off.");
    setText(this.note, why);
    this.note.hidden = why === "";
    this.element.setAttribute("aria-busy", String(open));
  }

  /** A person's words as they were typed; of very long ones the beginning, until all is asked for. */
  #showPlain(text) {
    if (this.plain === text) return;
    this.plain = text;
    const words = el("div", { class: "words" }, text.length > MOST_SHOWN ? text.slice(0, MOST_SHOWN) : text);
    const more = el("button", { type: "button", class: "more", onclick: () => ((words.textContent = text), more.remove()) }, `Show all ${text.length.toLocaleString("en")} characters`);
    arrange(this.body, text.length > MOST_SHOWN ? [words, more] : [words]);
  }

  #turn(step) {
    const to = step < 0 ? this.around.before : this.around.after;
    if (to) this.#actions.show(to);
  }

  async #copy() {
    this.#actions.say(await copied(textOf(this.#message)) ? "Copied." : "It could not be copied.");
  }

  /** Turns the message into a field. Enter saves it as a branch of its own, Escape leaves all as it was. */
  #edit() {
    const field = el("textarea", { "aria-label": "Edit your message", rows: "3" });
    field.value = textOf(this.#message);
    const close = () => {
      this.#draft = null;
      this.plain = null;
      this.#showPlain(textOf(this.#message));
      this.foot.hidden = false;
      this.edit.focus();
    };
    const save = () => {
      const text = field.value;
      close();
      if (text.trim()) this.#actions.edit(this.#message, text);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        save();
      }
    });
    this.#draft = field;
    this.foot.hidden = true;
    arrange(this.body, [field, el("div", { class: "choices" }, el("button", { type: "button", onclick: close }, "Cancel"), el("button", { type: "button", class: "main", onclick: save }, "Send as a branch"))]);
    field.focus();
  }
}

/** All text of a message, as it is kept. */
export function textOf(message) {
  if (!message.parts?.length) return message.content ?? "";
  return message.parts.filter((part) => part.type === "text").map((part) => part.text).join("\n\n");
}

export class Messages {
  #root;
  #views = new Map();
  #actions;

  /** `actions`: regenerate, answer, edit, show, openArtifact (each with its argument), say(text). */
  constructor(root, actions) {
    this.#root = root;
    this.#actions = actions;
  }

  update(chat) {
    const path = chat.path;
    const { threaded } = chat;
    const wanted = path.map((message, index) => {
      let view = this.#views.get(message.id);
      if (!view) this.#views.set(message.id, (view = new MessageView(this.#actions)));
      view.update(message, { progress: chat.progress(message), siblings: chat.siblings(message), threaded, last: index === path.length - 1, chat });
      return view.element;
    });
    arrange(this.#root, wanted);
    const ids = new Set(chat.view.messages.map((message) => message.id));
    for (const id of this.#views.keys()) if (!ids.has(id)) this.#views.delete(id);
  }
}
