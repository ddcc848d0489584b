/**
 * All that the client knows of one thing it keeps.
 *
 * @module blotter/item
 */

let orders = 0;

/** One thing that is kept, and all we know of it. Changed by `Blotter` alone. */
export class Item {
  constructor(kind, conversationId, id) {
    this.kind = kind;
    this.conversationId = conversationId;
    this.id = id;
    this.key = `${conversationId}\n${kind}\n${id}`;
    this.order = ++orders;
    this.at = 0; // ms; when it was first said, here or on the page it was taken over from; 0: the server had it before
    this.want = null;
    this.known = null;
    this.source = null; // () => fields: what is shown, asked for when it is about to be sent
    this.mode = "edit";
    this.revision = null;
    this.version = 0;
    this.epoch = null;
    this.stored = false;
    this.acked = false; // the server has acknowledged something of it
    this.changes = 0;
    this.sent = 0; // `changes` that are acknowledged
    this.unsent = 0; // characters since the last request
    this.dueAt = null;
    this.notBefore = 0;
    this.failures = 0;
    this.conflicts = 0;
    this.flight = null;
    this.confirmAt = null;
    this.confirms = 0;
    this.aliveAt = 0;
    this.reply = null;
    this.reopens = false;
    this.resends = false;
    this.lost = false;
    this.alone = false; // not together with others: one bad item would spoil the sync
    this.failed = null;
    this.adopted = false; // taken over from the outbox
    this.own = false; // this page has said something of it
    this.rows = new Set();
    this.journalAt = null;
    this.state = null;
  }

  get dirty() {
    return this.failed === null && (this.flight !== null || this.dueAt !== null || this.sent !== this.changes);
  }

  get open() {
    return this.reply !== null && !this.reply.ended;
  }
}
