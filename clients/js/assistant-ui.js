/**
 * Blotter for assistant-ui: a history adapter (a thread's messages) and a thread-list adapter (the conversations).
 *
 *     const runtime = useChatRuntime({ adapters: { history: historyAdapter(blotter, () => threadId) } });
 *     const runtime = useRemoteThreadListRuntime({ adapter: threadListAdapter(blotter), runtimeHook });
 *
 * assistant-ui writes a message when its run has settled. A stream that should survive a refresh in the middle goes
 * through `withBlotter` as well (blotter-client/ai-sdk): both keep the same message under the same id.
 *
 * Rows are `{id, parent_id, format, content}`. A row of the AI SDK's format is kept as what it is, a message with parts, so
 * that every other reader understands it; any other format is kept whole in the message's metadata.
 *
 * @module blotter/assistant-ui
 */

/** As many messages as a conversation may have: a row whose parent is missing is refused by the runtime. */
const ALL = 5000;
const KEY = "assistantUi";
const ROLES = new Set(["system", "user", "assistant"]);
const isPartsRow = (content) => Array.isArray(content?.parts) && ROLES.has(content.role);

/** A row as a message to save. */
function toMessage({ id, parent_id: parentId, format, content }) {
  if (isPartsRow(content)) {
    const { role, parts, metadata, ...rest } = content;
    const message = { id, role, parentId, parts };
    if (metadata !== undefined) message.metadata = metadata;
    if (Object.keys(rest).length) message.metadata = { ...metadata, [KEY]: { format, content: rest } };
    return message;
  }
  const role = ROLES.has(content?.role) ? content.role : "assistant";
  return { id, role, parentId, content: textIn(content), metadata: { [KEY]: { format, row: content } } };
}

/** What a reader of plain text, a search say, can use of any row. */
function textIn(content) {
  if (!Array.isArray(content?.content)) return null;
  const texts = content.content.filter((part) => part?.type === "text").map((part) => part.text);
  return texts.length ? texts.join("\n\n") : null;
}

/** A saved message as a row of `format`; null where it is of another. */
function toRow(message, format) {
  const kept = message.metadata?.[KEY];
  if (kept?.row !== undefined) {
    return kept.format === format ? { id: message.id, parent_id: message.parentId, format, content: kept.row } : null;
  }
  if (kept !== undefined && kept.format !== format) return null;
  if (!ROLES.has(message.role)) return null;
  const { [KEY]: _, ...metadata } = message.metadata ?? {};
  const parts = message.parts ?? (message.content ? [{ type: "text", text: message.content }] : []);
  const content = { ...kept?.content, role: message.role, parts };
  if (Object.keys(metadata).length) content.metadata = metadata;
  return { id: message.id, parent_id: message.parentId, format, content };
}

/** assistant-ui's own messages carry dates; JSON does not. */
const revived = (message) => ({ ...message, createdAt: new Date(message.createdAt) });

/** The format of what a runtime without a format adapter hands over: `ThreadMessage`. */
const THREAD_MESSAGE = "assistant-ui/thread-message";

/**
 * The history of one thread.
 *
 * @param {import("./blotter.js").Blotter} blotter
 * @param {string|(() => string|null|undefined|Promise<string|null|undefined>)} thread its conversation's id, or how to
 *   get it: a new thread has none before `initialize`
 */
export function historyAdapter(blotter, thread) {
  let pinned = null;
  const current = async () => pinned ?? (typeof thread === "function" ? await thread() : thread);

  async function load() {
    const id = await current();
    if (!id) return null;
    try {
      return await blotter.loadConversation(id, { branches: "all", limit: ALL });
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  async function save(row, moveHead) {
    const id = await current();
    if (!id) throw new Error("The thread has no id yet: initialize it first.");
    const saved = blotter.saveOrUpdateMessage(id, toMessage(row));
    // Both are kept before it says so: who loads right after shall find this message at the head.
    const moved = moveHead && blotter.setHead(id, row.id).catch(() => {});
    await Promise.all([saved, moved]);
  }

  async function remove(ids) {
    const id = await current();
    if (!id) return;
    await Promise.all(ids.map((one) => blotter.deleteMessage(id, one)));
  }

  return {
    async load() {
      const view = await load();
      const messages = [];
      for (const message of view?.messages ?? []) {
        const row = toRow(message, THREAD_MESSAGE);
        if (row) messages.push({ message: revived(row.content), parentId: row.parent_id });
      }
      return { headId: headOf(view, messages.map(({ message }) => message.id)), messages };
    },
    append: ({ message, parentId }) => save({ id: message.id, parent_id: parentId, format: THREAD_MESSAGE, content: message }, true),
    update: ({ message, parentId }) => save({ id: message.id, parent_id: parentId, format: THREAD_MESSAGE, content: message }, false),
    delete: (items) => remove(items.map(({ message }) => message.id)),

    withFormat(format) {
      const rowOf = (item, id = format.getId(item.message)) => ({
        id,
        parent_id: item.parentId,
        format: format.format,
        content: format.encode(item),
      });
      return {
        async load() {
          const view = await load();
          const rows = (view?.messages ?? []).map((message) => toRow(message, format.format)).filter(Boolean);
          return { headId: headOf(view, rows.map((row) => row.id)), messages: rows.map((row) => format.decode(row)) };
        },
        pin() {
          const id = typeof thread === "function" ? thread() : thread;
          if (typeof id === "string") pinned = id;
        },
        append: (item) => save(rowOf(item), true),
        // An update may come for a row whose first write failed, or one that got its lasting id later: an upsert.
        update: (item, localId) => save(rowOf(item, format.getId(item.message) || localId), false),
        delete: (items) => remove(items.map((item) => format.getId(item.message))),
      };
    },
  };
}

function headOf(view, ids) {
  const head = view?.conversation.headId;
  return head && ids.includes(head) ? head : (ids.at(-1) ?? null);
}

/**
 * The conversations as a thread list.
 *
 * @param {import("./blotter.js").Blotter} blotter
 * @param {{generateTitle?: (messages: readonly object[]) => string|Promise<string>}} [options] how a new thread is named;
 *   default: after the first words said
 */
export function threadListAdapter(blotter, { generateTitle = firstWords } = {}) {
  return {
    async list({ after } = {}) {
      // The regular ones first, then the archived; the cursor says in which of the two it lies.
      const archived = after?.startsWith("archived:") ?? false;
      const cursor = after?.replace(/^(archived|regular):/, "") || undefined;
      const page = await blotter.listConversations({ archived, after: cursor });
      const threads = page.conversations.map(toThread);
      if (page.after) return { threads, nextCursor: `${archived ? "archived" : "regular"}:${page.after}` };
      return archived ? { threads } : { threads, nextCursor: "archived:" };
    },
    async rename(id, title) {
      await blotter.renameConversation(id, title);
    },
    async updateCustom(id, custom) {
      await blotter.updateConversation(id, { metadata: custom ?? null });
    },
    async archive(id) {
      await blotter.archiveConversation(id, true);
    },
    async unarchive(id) {
      await blotter.archiveConversation(id, false);
    },
    async delete(id) {
      await blotter.deleteConversation(id);
    },
    async initialize(threadId) {
      const { id } = await blotter.createConversation({ id: threadId });
      return { remoteId: id, externalId: undefined };
    },
    async fetch(id) {
      const view = await blotter.loadConversation(id, { limit: 1 });
      return toThread(view.conversation);
    },
    async generateTitle(id, messages) {
      const title = await generateTitle(messages);
      await blotter.renameConversation(id, title);
      return titleStream(title);
    },
  };
}

function toThread(conversation) {
  const thread = { status: conversation.archived ? "archived" : "regular", remoteId: conversation.id, externalId: undefined };
  if (conversation.title) thread.title = conversation.title;
  if (conversation.lastMessageAt) thread.lastMessageAt = new Date(conversation.lastMessageAt);
  const { metadata } = conversation;
  if (metadata !== null && typeof metadata === "object" && !Array.isArray(metadata)) thread.custom = metadata;
  return thread;
}

function firstWords(messages) {
  const said = messages.find((message) => message.role === "user");
  const text = (said?.content ?? []).filter((part) => part.type === "text").map((part) => part.text).join(" ").trim();
  const words = text.replace(/\s+/g, " ");
  return words.length > 60 ? `${words.slice(0, 59).replace(/\s\S*$|[\ud800-\udbff]$/, "")}…` : words || "New chat";
}

/** One text part, in assistant-stream's chunks. */
function titleStream(title) {
  return new ReadableStream({
    start(controller) {
      controller.enqueue({ type: "part-start", part: { type: "text" }, path: [] });
      controller.enqueue({ type: "text-delta", textDelta: title, path: [0] });
      controller.enqueue({ type: "part-finish", path: [0] });
      controller.close();
    },
  });
}
