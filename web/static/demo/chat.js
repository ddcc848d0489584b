/**
 * The open conversation: what is shown of it, kept up to date by live events, and what can be done with it.
 *
 * `view` is what the API shows (all branches), with what was done here laid over until the server says it back.
 * Every change of it is announced by the event `change`.
 *
 * @module chat
 */

import { foldEvent } from "/static/blotter.js";
import { isThreaded, leafBelow, shown, siblings } from "./tree.js";

const OPEN = new Set(["pending", "streaming"]);
export const isOpen = (item) => OPEN.has(item?.status);

/** ms; until following is tried again. */
const AGAIN_MS = 500;
const AGAIN_MAX_MS = 8000;
/** ms; silence while a reply is being written after which the conversation is read anew: first, and at most. */
const SILENCE_MS = 4000;
const SILENCE_MAX_MS = 32_000;
/** Characters of a title made from the first message. */
const TITLE = 60;

const emptyView = (id) => ({
  conversation: { id, title: null, headId: null, archived: false },
  messages: [],
  toolResults: [],
  artifacts: [],
});

export class Chat extends EventTarget {
  #blotter;
  #askForReply;
  #following = null;
  #turn = 0; // counts what was opened: answers to earlier ones are dropped
  #asked = new Set();
  #heardAt = 0; // ms; the last event
  #silenceMs = SILENCE_MS;

  id = null;
  view = emptyView(null);
  /** "new", "loading", "open", "missing", "deleted" */
  state = "new";

  /** `askForReply(conversationId, messageId)`: the assistant shall write that message. */
  constructor(blotter, askForReply) {
    super();
    this.#blotter = blotter;
    this.#askForReply = askForReply;
    blotter.addEventListener("state", (event) => event.detail.conversationId === this.id && this.#changed());
    blotter.addEventListener("superseded", ({ detail }) => {
      // What was laid over the view gave way to what the server has.
      if (detail.conversationId !== this.id || this.#versionOf(detail) > detail.current.version) return;
      foldEvent(this.view, { type: "item", kind: detail.kind, version: this.view.version, item: detail.current });
      this.#changed();
    });
    setInterval(() => this.#listen(), 1000);
  }

  // -------------------------------------------------------------------------------------------------- what is shown

  get path() {
    return shown(this.view.messages, this.view.conversation?.headId);
  }

  get title() {
    return this.view.conversation?.title ?? null;
  }

  /** The reply that is being written, if one of those shown is. */
  get openReply() {
    return this.path.findLast((message) => message.role === "assistant" && isOpen(message)) ?? null;
  }

  get threaded() {
    return isThreaded(this.view.messages, this.view.conversation?.headId);
  }

  siblings(message) {
    return this.threaded ? siblings(this.view.messages, message) : [message];
  }

  artifact(id) {
    return this.view.artifacts.find((one) => one.id === id) ?? null;
  }

  /** How far an item has come: "typing", "waiting", "buffered", "stored" or "failed". */
  progress(message) {
    const local = this.#blotter.stateOf(this.id, "message", message.id);
    if (local === "failed" || local === "waiting") return local;
    if (message.role === "assistant" && isOpen(message)) return "typing";
    if (message.stored || (message.role === "user" && local === "stored")) return "stored";
    return message.unsaved && local === undefined ? "waiting" : "buffered";
  }

  #versionOf({ kind, id }) {
    const { conversation, messages, toolResults, artifacts } = this.view;
    if (kind === "conversation") return conversation?.version;
    return { message: messages, toolResult: toolResults, artifact: artifacts }[kind].find((one) => one.id === id)?.version;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  // -------------------------------------------------------------------------------------------------- open and follow

  /** A conversation that is not there yet: its first message makes it. */
  begin() {
    this.#leave(this.#blotter.mintId(), "new");
  }

  /** Shows conversation `id` and goes on showing it. */
  open(id) {
    if (id === this.id && this.state !== "missing") return;
    this.#leave(id, "loading");
    this.#attach(this.#turn);
  }

  #leave(id, state) {
    this.#turn++;
    this.#following?.close();
    this.#following = null;
    this.id = id;
    this.view = emptyView(id);
    this.state = state;
    this.#changed();
  }

  /** What is not there any more is not shown any more. */
  #gone(state) {
    this.view = emptyView(this.id);
    this.state = state;
  }

  /** Reads the conversation and follows it; again and again while that breaks off. */
  async #attach(turn) {
    for (let wait = AGAIN_MS; turn === this.#turn; wait = Math.min(2 * wait, AGAIN_MAX_MS)) {
      try {
        const view = await this.#blotter.loadConversation(this.id, { branches: "all" });
        if (turn !== this.#turn) return;
        this.view = view;
        this.state = "open";
        this.#changed();
        this.#askForPending();
        if (await this.#follow(turn)) wait = AGAIN_MS / 2;
      } catch (error) {
        if (turn !== this.#turn) return;
        if (error.status === 404 || error.status === 410) {
          const unsaved = this.view.messages.some((message) => message.unsaved);
          if (error.status === 410 || !unsaved) {
            this.#gone(error.status === 410 ? "deleted" : "missing");
            this.#changed();
            return;
          }
        }
      }
      if (this.state === "deleted") return;
      await new Promise((next) => setTimeout(next, wait));
    }
  }

  /** Live events may be away for a while, the conversation is not: read it. */
  #listen() {
    if (!this.openReply || Date.now() - this.#heardAt < this.#silenceMs) return;
    this.#silenceMs = Math.min(2 * this.#silenceMs, SILENCE_MAX_MS);
    this.#heardAt = Date.now();
    this.#following?.close();
  }

  /** Follows until it ends; resolves to whether it is to be read anew at once. */
  async #follow(turn) {
    let lost = false;
    let partial = false;
    const following = this.#blotter.follow(this.id, {
      offset: this.view.version,
      onEvent: (event) => {
        if (turn !== this.#turn) return;
        this.#heardAt = Date.now();
        if (event.type !== "epoch") this.#silenceMs = SILENCE_MS;
        if (event.type === "epoch" && this.view.bufferEpoch && event.bufferEpoch !== this.view.bufferEpoch) {
          lost = true; // the buffer may have lost its last moment: what is shown is read anew
          following.close();
          return;
        }
        partial ||= event.partial === true;
        foldEvent(this.view, event);
        if (this.view.deleted) this.#gone("deleted");
        this.#changed();
      },
      onUpToDate: () => {
        if (partial) following.close(); // Postgres is back: all of it can be read
      },
    });
    this.#following = following;
    this.#heardAt = Date.now();
    try {
      await following.done;
    } catch (error) {
      // No place to go on from (a buffer that was set back, deletions that were purged), or not there: it says itself which.
      if (error.status !== 410 && error.status !== 404) throw error;
      return false;
    }
    return lost || partial || this.openReply !== null;
  }

  // -------------------------------------------------------------------------------------------------- what can be done

  /** Sends what a person wrote, and asks for a reply. Who speaks while a reply is written, interrupts it. */
  send(text) {
    this.stop();
    const path = this.path;
    this.#say(text, path.at(-1)?.id ?? null);
  }

  /** The same question in other words: a branch beside the first. */
  edit(message, text) {
    this.#say(text, message.parentId ?? null);
  }

  /** Another reply to the same question. */
  regenerate(message) {
    this.#reply(message.parentId ?? null, []);
  }

  /** A reply to a message that got none. */
  answer(message) {
    this.#reply(message.id, []);
  }

  #say(text, parentId) {
    const id = this.#blotter.mintId();
    const message = { id, role: "user", content: text, parentId };
    this.#reply(id, [message]);
  }

  /**
   * Saves `before` (a question, or nothing) and the reply's stub, shows both, and asks for the reply. All of it goes
   * through the outbox, so a page that dies now has said it nevertheless.
   */
  #reply(parentId, before) {
    const threaded = this.threaded;
    const fresh = this.state === "new";
    const stub = { id: this.#blotter.mintId(), role: "assistant", content: "", parentId, status: "pending" };
    const messages = [...before.map((message) => ({ ...message, status: "complete" })), stub];
    const saved = this.#blotter.syncConversationState(this.id, { messages });
    if (fresh) this.#rename(titleOf(before[0].content));
    if (threaded) this.#setHead(stub.id);
    this.view.messages = [...this.view.messages, ...messages.map((message) => ({ ...message, unsaved: true }))];
    if (fresh) this.state = "open";
    this.#askForReplyTo(stub.id);
    this.#changed();
    this.dispatchEvent(Object.assign(new Event("sent"), { conversationId: this.id }));
    const turn = this.#turn;
    if (fresh) saved.then(() => turn === this.#turn && this.#attach(turn), () => {});
  }

  #setHead(headId) {
    this.#blotter.setHead(this.id, headId).catch(() => {});
    this.view.conversation = { ...this.view.conversation, headId };
  }

  #askForPending() {
    const last = this.path.at(-1);
    if (last?.role === "assistant" && last.status === "pending") this.#askForReplyTo(last.id);
  }

  async #askForReplyTo(messageId) {
    if (this.#asked.has(messageId)) return;
    this.#asked.add(messageId);
    const { id } = this;
    for (let wait = AGAIN_MS; ; wait = Math.min(2 * wait, AGAIN_MAX_MS)) {
      try {
        await this.#askForReply(id, messageId);
        break;
      } catch {
        await new Promise((next) => setTimeout(next, wait));
      }
      const message = this.view.messages.find((one) => one.id === messageId);
      if (this.id !== id || !isOpen(message)) break;
    }
    this.#asked.delete(messageId);
  }

  /** Stops the reply that is being written: a save like any other, which the assistant notices at its next word. */
  stop() {
    const reply = this.openReply;
    if (!reply) return;
    const end = { status: "interrupted", statusReason: "stopped" };
    this.#blotter.saveOrUpdateMessage(this.id, { id: reply.id, ...end }).catch(() => {});
    this.view.messages = this.view.messages.map((one) => (one.id === reply.id ? { ...one, ...end, stored: false } : one));
    this.#changed();
  }

  /** Shows the branch that `message` belongs to. */
  show(message) {
    this.#setHead(leafBelow(this.view.messages, message.id));
    this.#changed();
  }

  /** Messages before those that were read: a long conversation comes in pages. */
  async older() {
    const turn = this.#turn;
    const { before } = this.view;
    const page = await this.#blotter.loadConversation(this.id, { branches: "all", before }).catch(() => null);
    if (page === null || turn !== this.#turn || this.view.before !== before) return;
    for (const list of ["messages", "toolResults", "artifacts"]) {
      const ids = new Set(this.view[list].map((one) => one.id));
      this.view[list] = [...page[list].filter((one) => !ids.has(one.id)), ...this.view[list]];
    }
    this.view.before = page.before;
    this.#changed();
  }

  rename(title) {
    this.#rename(title.slice(0, 1000));
    this.#changed();
  }

  #rename(title) {
    this.#blotter.renameConversation(this.id, title).catch(() => {});
    this.view.conversation = { ...this.view.conversation, title };
  }

  archive(archived) {
    this.view.conversation = { ...this.view.conversation, archived };
    this.#changed();
    return this.#blotter.archiveConversation(this.id, archived);
  }

  delete() {
    const deleted = this.#blotter.deleteConversation(this.id);
    this.begin();
    return deleted;
  }
}

/** The first line of a text, cut at a word. */
export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0].trim();
  const short = [...line.slice(0, 4 * TITLE)];
  if (short.length <= TITLE) return line.slice(0, 4 * TITLE) || "New chat";
  const cut = short.slice(0, TITLE).join("");
  return `${cut.slice(0, cut.lastIndexOf(" ") > TITLE / 2 ? cut.lastIndexOf(" ") : undefined)}…`;
}
