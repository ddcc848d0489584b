/**
 * The outbox: what no server has acknowledged, in the browser's own database, and which tab it belongs to.
 *
 * @module blotter/outbox
 */

const DATABASE = "blotter";
const ROWS = "outbox";
const LEASES = "leases";

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
const committed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

/**
 * What no server has acknowledged, in IndexedDB: `{key, account, tab, at, conversationId, kind, id, want, …}`.
 *
 * A row belongs to the tab that wrote it, "" to nobody. Only a tab whose owner is gone is robbed of its rows, and only
 * by one (a transaction decides). Without IndexedDB all of this does nothing: memory alone keeps.
 */
export class Outbox {
  #open;
  #database = null;
  #closed = false;

  constructor(indexedDB) {
    this.available = Boolean(indexedDB);
    this.#open = this.available ? this.#connect(indexedDB) : Promise.resolve(null);
  }

  async #connect(indexedDB) {
    try {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(ROWS, { keyPath: "key" }).createIndex("account", "account");
        request.result.createObjectStore(LEASES, { keyPath: "tab" });
      };
      const database = await settled(request);
      // Another page deletes or upgrades it, or the browser drops the connection: let go, and ask for it anew behind that.
      const letGo = () => {
        database.close();
        if (this.#closed || this.#database !== database) return;
        this.#database = null;
        this.#open = this.#connect(indexedDB);
      };
      database.onversionchange = letGo;
      database.onclose = letGo;
      if (this.#closed) {
        database.close();
        return null;
      }
      this.#database = database;
      return database;
    } catch {
      this.available = false; // private windows of some browsers, no space: saving goes on without
      return null;
    }
  }

  /** Ready for writes that do not wait: a page that goes away has no time left. */
  get ready() {
    return this.#open;
  }

  close() {
    this.#closed = true;
    this.#database?.close();
    this.#database = null;
    this.available = false;
  }

  /**
   * Writes rows, and removes those they stand for, in one. Begins at once when the database is open; resolves when they
   * are kept, to whether they are.
   */
  put(rows, replaced = []) {
    return this.#write((store) => {
      rows.forEach((row) => store.put(row));
      replaced.forEach((key) => store.delete(key));
    });
  }

  remove(keys) {
    return this.#write((store) => keys.forEach((key) => store.delete(key)));
  }

  async #write(change, stores = ROWS) {
    const database = this.#database ?? (await this.#open);
    if (!database) return false;
    try {
      const transaction = database.transaction(stores, "readwrite");
      change(transaction.objectStore(stores));
      transaction.commit?.();
      await committed(transaction);
      return true;
    } catch {
      return false;
    }
  }

  /** All rows of an account, in the order their items were first said. */
  async rows(account) {
    const database = await this.#open;
    if (!database) return [];
    try {
      const found = await settled(database.transaction(ROWS).objectStore(ROWS).index("account").getAll(account));
      return found.sort((one, other) => one.at - other.at || one.order - other.order);
    } catch {
      return [];
    }
  }

  /** Makes `keys`, as far as they still belong to one of `tabs`, `tab`'s own; resolves to those rows, in that order. */
  async claim(keys, tabs, tab) {
    const database = await this.#open;
    if (!database || keys.length === 0) return [];
    const claimed = [];
    try {
      const transaction = database.transaction(ROWS, "readwrite");
      const store = transaction.objectStore(ROWS);
      for (const key of keys) {
        const request = store.get(key);
        request.onsuccess = () => {
          const row = request.result;
          if (!row || !tabs.has(row.tab)) return;
          row.tab = tab;
          claimed.push(row);
          store.put(row);
        };
      }
      await committed(transaction);
      return claimed;
    } catch {
      return [];
    }
  }

  renew(tab, until) {
    return this.#write((store) => store.put({ tab, until }), LEASES);
  }

  release(tab) {
    return this.#write((store) => store.delete(tab), LEASES);
  }

  /** The tabs whose lease runs. */
  async leased(now) {
    const database = await this.#open;
    if (!database) return new Set();
    const found = await settled(database.transaction(LEASES).objectStore(LEASES).getAll());
    return new Set(found.filter((lease) => lease.until > now).map((lease) => lease.tab));
  }
}

/** Which tabs live: each holds a Web Lock as long as it does; where there are none, a lease it renews. */
export class Tab {
  #locks;
  #outbox;
  #now;
  #leaseMs;
  #release = () => {};

  constructor(id, { locks, outbox, now, leaseMs }) {
    this.id = id;
    this.#locks = locks;
    this.#outbox = outbox;
    this.#now = now;
    this.#leaseMs = leaseMs;
    /** Resolves once the others can see that this tab lives; rows are written only then. */
    this.ready = locks ? new Promise((seen) => this.#hold(seen)) : this.renew();
  }

  #hold(seen) {
    const until = new Promise((release) => {
      this.#release = release;
    });
    const held = () => {
      seen();
      return until;
    };
    Promise.resolve(this.#locks.request(`blotter:${this.id}`, held)).catch(seen);
  }

  renew() {
    return this.#locks ? Promise.resolve() : this.#outbox.renew(this.id, this.#now() + this.#leaseMs);
  }

  /** Those of `tabs` that are gone. */
  async dead(tabs) {
    let alive;
    if (this.#locks) {
      const { held = [] } = await this.#locks.query();
      alive = new Set(held.map((lock) => lock.name.replace(/^blotter:/, "")));
    } else {
      alive = await this.#outbox.leased(this.#now());
    }
    return new Set([...tabs].filter((tab) => tab !== this.id && !alive.has(tab)));
  }

  end() {
    this.#release();
    return this.#locks ? Promise.resolve() : this.#outbox.release(this.id);
  }
}
