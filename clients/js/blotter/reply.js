/**
 * A reply while it is generated.
 *
 * @module blotter/reply
 */

import { snapshotOf } from "./snapshot.js";
import { wellFormed, wholePairs } from "./text.js";

/** The way by which a Reply, and nobody else, reaches into its Blotter. */
export const REPLY = Symbol("reply");
export const REPLY_DOOR = Object.freeze({});

/**
 * A reply while it is generated. Made by `blotter.startReply`.
 *
 *     const reply = blotter.startReply("chat-1", { parentId: "m1" });       // or {id}, or {id: promise}
 *     for await (const text of model) reply.append(text);
 *     reply.complete();                                                    // or stop(reason), error(message)
 *
 * The message appears on the server once its id is sure: given, resolved, or minted at the first word when none is
 * promised. Text goes out every 100 characters and after 0.25 s at the latest; the rest at the end.
 */
export class Reply {
  #door;
  #conversationId;
  #fields;
  #item = null;
  #tail = "";
  #waiting = [];
  #ended = false;
  #detached = false;
  #continues;
  #naming = null; // while its id is promised

  constructor(blotter, door, conversationId, { id, continues = false, ...message }) {
    this.#door = blotter[REPLY](door);
    this.blotter = blotter;
    this.#conversationId = conversationId;
    this.#continues = continues;
    this.#fields = { role: "assistant", status: "streaming", ...message };
    this.id = null;
    if (typeof id?.then === "function") this.#naming = this.#named(id);
    else if (id !== null) this.setId(id ?? this.#door.mint()); // null: setId will be called
  }

  async #named(promise) {
    try {
      this.setId(await promise);
    } catch (error) {
      this.#naming = null;
      if (this.#ended) this.setId(this.#door.mint());
      else this.error(String(error));
    }
  }

  /** The id is sure now; the message can be created. A second call changes nothing. */
  setId(id) {
    if (this.id !== null || this.#detached) return;
    this.id = id;
    this.#item = this.#door.begin(this, this.#conversationId, id, this.#fields, this.#continues);
    for (const run of this.#waiting.splice(0)) run();
  }

  /** True once it was completed, stopped or failed, or gave way to what the server has. */
  get ended() {
    return this.#ended || this.#detached;
  }

  get text() {
    return (this.#item?.want?.content ?? this.#fields.content ?? "") + this.#tail;
  }

  /** What is still to be saved is the server's own version from now on; used by the client. */
  detach() {
    this.#detached = true;
  }

  #whenSure(run) {
    if (this.#detached) return;
    if (this.#item === null) this.#waiting.push(run);
    else run();
  }

  /** More text. Cut anywhere, also within a surrogate pair. */
  append(text) {
    if (this.#ended) throw new Error("This reply has ended.");
    this.#whenSure(() => {
      const all = this.#tail + text;
      const whole = wholePairs(all);
      this.#tail = all.slice(whole.length);
      if (whole === "") return;
      const content = (this.#item.want.content ?? "") + wellFormed(whole);
      this.#door.grow(this.#item, { content }, whole.length, false);
    });
    return this;
  }

  /** The whole message as it is shown now: `{content?, parts?, metadata?, …}`, or a function that gives it when it is needed. */
  show(message, { chars = 1, now = false } = {}) {
    if (this.#ended) throw new Error("This reply has ended.");
    const fields = typeof message === "function" ? message : () => message;
    this.#whenSure(() => this.#door.grow(this.#item, () => ({ ...fields(), status: "streaming" }), chars, now));
    return this;
  }

  /** A tool begins: `{toolCallId, toolName, input?, state?}`. Saved at once, beside what was written before it. */
  toolStart(call) {
    this.#whenSure(() => {
      this.#door.grow(this.#item, {}, 0, true);
      this.blotter.saveToolResult(this.#conversationId, { state: "input-available", messageId: this.id, ...call });
    });
    return this;
  }

  /** What a tool returned: `{toolCallId, output}` or `{toolCallId, errorText}`. */
  toolResult(result) {
    const state = result.errorText === undefined ? "output-available" : "output-error";
    this.#whenSure(() => this.blotter.updateToolResult(this.#conversationId, { state, messageId: this.id, ...result }));
    return this;
  }

  /** An artifact of this reply: `{id, kind?, title?, content, …}`. */
  artifact(artifact) {
    this.#whenSure(() => this.blotter.saveArtifact(this.#conversationId, { messageId: this.id, ...artifact }));
    return this;
  }

  /** It is whole. Resolves when acknowledged. `fields` may carry the final content, parts or metadata. */
  complete(fields = {}) {
    return this.#end("complete", fields);
  }

  /** Somebody pressed Stop. */
  stop(reason = "stopped", fields = {}) {
    return this.#end("interrupted", { statusReason: reason, ...fields });
  }

  /** It failed. */
  error(message, fields = {}) {
    return this.#end("error", { statusReason: String(message).slice(0, 1000), ...fields });
  }

  #end(status, fields) {
    if (this.#ended || this.#detached) return Promise.resolve(null);
    this.#ended = true;
    if (this.id === null) {
      if (this.#waiting.length === 0 && Object.keys(fields).length === 0 && status !== "error") return Promise.resolve(null);
      if (this.#naming !== null) return this.#naming.then(() => this.#close(status, fields));
      this.setId(this.#door.mint()); // nobody will name it any more
    }
    return this.#close(status, fields);
  }

  #close(status, fields) {
    const item = this.#item;
    const { content = (item.want.content ?? null) === null && this.#tail === "" ? undefined : (item.want.content ?? "") + wellFormed(this.#tail) } = fields;
    this.#tail = "";
    const before = item.source;
    item.source = null;
    const shown = { ...(before ? before() : {}), ...fields, status };
    if (content !== undefined) shown.content = content;
    this.#door.grow(item, snapshotOf("message", shown, false), 0, true);
    return this.#door.promise(item);
  }
}
