/**
 * Blotter for the AI SDK: every chunk of a reply is saved as it streams, and comes back part by part, verbatim.
 *
 *     import { createBlotter } from "blotter-client";
 *     import { loadMessages, withBlotter } from "blotter-client/ai-sdk";
 *
 *     const blotter = createBlotter({ baseUrl, token });
 *     const transport = withBlotter(new DefaultChatTransport(), blotter);
 *     const chat = useChat({ id, messages: await loadMessages(blotter, id), transport, resume: true });
 *
 * The conversation's id is the chat's. Messages carry their predecessor as `parentId`, and the conversation's `headId` is
 * the last one, so that regenerating or editing makes a branch, and loading follows the path the page showed.
 *
 * What a chunk does to a message is the SDK's own business: its `readUIMessageStream` folds a copy of the stream, and
 * what changed between two of its snapshots is saved. So nothing here has to know the chunk types, new ones included.
 *
 * @module blotter/ai-sdk
 */

import { readUIMessageStream } from "ai";

import { rankOf } from "./blotter/snapshot.js";

/** As many messages as a conversation may have: the model is asked with all of them. */
const ALL = 5000;
const ROLES = new Set(["system", "user", "assistant"]);
const OPEN = new Set(["pending", "streaming"]);

/** Chunks that never touch the message: they may pass before its id is sure. */
const isBeside = (chunk) =>
  chunk.type === "error" || chunk.type === "abort" || (chunk.type.startsWith("data-") && chunk.transient === true);

/** A saved message as the SDK has it. Plain content is one text, which streams as long as the message does. */
export function toUIMessage(message) {
  const { id, role, metadata, parts, content, status } = message;
  const text = { type: "text", text: content, ...(OPEN.has(status) ? { state: "streaming" } : {}) };
  const shown = { id, role, parts: parts ?? (content ? [text] : []) };
  if (metadata !== null && metadata !== undefined) shown.metadata = metadata;
  return shown;
}

/** A message of the SDK as Blotter saves it. */
export function fromUIMessage(message, parentId) {
  const fields = { id: message.id, role: message.role, parts: message.parts };
  if (message.metadata !== undefined) fields.metadata = message.metadata;
  if (parentId !== undefined) fields.parentId = parentId;
  return fields;
}

/** The text of a message that is nothing else; null where it is more. */
function plainText({ parts }) {
  if (parts.length !== 1) return null;
  const { type, text, state, providerMetadata, ...more } = parts[0];
  return type === "text" && providerMetadata === undefined && Object.keys(more).length === 0 ? text : null;
}

/**
 * A message of the page as it is saved. One that is kept as plain content (a backend wrote it, say) stays that: parts
 * beside it would stand still while it grows. While somebody else still writes it, nothing is said of its text here.
 */
function shownMessage(blotter, conversationId, message, parentId) {
  const fields = fromUIMessage(message, parentId);
  const kept = blotter.knownOf(conversationId, "message", message.id);
  const text = plainText(message);
  if (text === null || typeof kept?.content !== "string" || kept.parts) return fields;
  const { parts: _, ...rest } = fields;
  const older = OPEN.has(kept.status) && (kept.content.startsWith(text) || text.startsWith(kept.content));
  return older || text === kept.content ? rest : { ...rest, content: text };
}

/** All messages of a conversation as they were shown last, for `useChat({ messages })`; none where it is new. */
export async function loadMessages(blotter, conversationId, options) {
  try {
    const view = await blotter.loadConversation(conversationId, { limit: ALL, ...options });
    return view.messages.filter((message) => ROLES.has(message.role)).map(toUIMessage);
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

/** Messages as the page shows them, each with the one before it. Of what came before the first the page says nothing. */
const inThread = (blotter, conversationId, messages) =>
  messages
    .filter((message) => ROLES.has(message.role))
    .map((message, index, all) => shownMessage(blotter, conversationId, message, all[index - 1]?.id));

/** Saves messages as the page shows them; what is there already costs nothing. Resolves when acknowledged. */
export function saveMessages(blotter, conversationId, messages) {
  return Promise.all(inThread(blotter, conversationId, messages).map((message) => blotter.saveOrUpdateMessage(conversationId, message)));
}

/** Saves what changes in a chat outside its streams (tool outputs, approvals): every 30 s and when the page goes. */
export function watchChat(blotter, chat) {
  return blotter.watch(chat.id, () => {
    if (chat.status === "streaming" || chat.status === "submitted") return null; // the stream is saved already
    return { messages: inThread(blotter, chat.id, chat.messages) };
  });
}

/**
 * A transport that saves what passes through it.
 *
 * @param {object} transport any ChatTransport
 * @param {import("./blotter.js").Blotter} blotter
 * @param {{resume?: "events"|"transport"}} [options] where a reply under way is picked up again: from Blotter's events
 *   (somebody goes on writing it: a backend, another tab), or from the transport's own `reconnectToStream`
 */
export function withBlotter(transport, blotter, { resume = "events" } = {}) {
  return {
    resumeStreamIsReplay: resume === "events" ? true : transport.resumeStreamIsReplay,

    async sendMessages(options) {
      const { chatId, messages, trigger, messageId, abortSignal } = options;
      saveMessages(blotter, chatId, messages).catch(() => {}); // states tell
      const target = trigger === "submit-message" && messageId !== undefined ? messages.findIndex((one) => one.id === messageId) : -1;
      const index = target >= 0 ? target : messages.length - 1;
      const continued = trigger !== "regenerate-message" && messages[index]?.role === "assistant" ? messages[index] : undefined;
      const parentId = messages[continued ? index - 1 : messages.length - 1]?.id;
      if (messages.length) blotter.setHead(chatId, messages.at(-1).id).catch(() => {});
      const stream = await transport.sendMessages(options);
      return record(stream, blotter, chatId, { continued, parentId, abortSignal });
    },

    async reconnectToStream(options) {
      if (resume === "events") return follow(blotter, options);
      const stream = await transport.reconnectToStream(options);
      if (stream === null) return null;
      return record(stream, blotter, options.chatId, { abortSignal: options.abortSignal });
    },

    close() {
      transport.close?.();
    },
  };
}

// ---------------------------------------------------------------------------------------------------- recording

/**
 * The same stream, its effect saved as it passes. A message that the stream does not name gets its id here: in the
 * first `start` chunk, so that the page and the server know it by one name.
 */
function record(stream, blotter, chatId, { continued, parentId, abortSignal }) {
  let reply = null;
  let copy = null;
  let folding = Promise.resolve();
  let shown = continued ? structuredClone(continued) : null;
  let size = 0;
  let seen = 0;
  let ended = false;

  const begin = (id) => {
    reply = blotter.startReply(chatId, { id, parentId, parts: shown?.parts ?? [], continues: continued !== undefined });
    blotter.setHead(chatId, id).catch(() => {});
    const source = new ReadableStream({ start: (controller) => void (copy = controller) });
    folding = fold(readUIMessageStream({ message: shown ?? { id, role: "assistant", parts: [] }, stream: source }));
  };
  const fold = async (snapshots) => {
    for await (const snapshot of snapshots) {
      shown = snapshot;
      seen++;
      const now = lengthOf(snapshot);
      if (!reply.ended) reply.show(fieldsOf(snapshot), { chars: Math.max(1, now.text - size), now: now.tools !== tools });
      size = now.text;
      tools = now.tools;
    }
  };
  let tools = "";

  const end = async (how, reason) => {
    if (ended) return;
    ended = true;
    if (reply === null) return;
    // Steps make no snapshot. Chat shows those of a message that is nothing else: this asks for one, and changes nothing.
    if (seen < 2 && !continued) copy.enqueue({ type: "start", messageId: reply.id });
    copy.close();
    await folding.catch(() => {});
    const fields = shown ? fieldsOf(shown) : {};
    if (how === "complete") reply.complete(fields);
    else if (how === "error") reply.error(reason, fields);
    else reply.stop(reason, fields);
  };
  abortSignal?.addEventListener("abort", () => end("interrupted", "stopped"), { once: true });

  /** The connection tore. Because the page goes? That says nothing of the reply: it stays open, for whoever goes on with it. */
  const torn = async (reason) => {
    await blotter.stays();
    await end("error", reason);
  };

  const named = (chunk) => {
    const id = chunk.type === "start" ? (continued?.id !== undefined && chunk.messageId === undefined ? continued.id : chunk.messageId) : continued?.id;
    return id ?? blotter.mintId();
  };

  const reader = stream.getReader();
  return new ReadableStream({
    async pull(controller) {
      let next;
      try {
        next = await reader.read();
      } catch (error) {
        if (abortSignal?.aborted) end("interrupted", "stopped");
        else torn(String(error?.message ?? error));
        controller.error(error);
        return;
      }
      if (next.done) {
        await end("complete");
        controller.close();
        return;
      }
      let chunk = next.value;
      if (ended) return controller.enqueue(chunk);
      if (reply === null && !isBeside(chunk)) {
        const id = named(chunk);
        begin(id);
        if (chunk.type === "start") {
          chunk = { ...chunk, messageId: id };
        } else {
          const start = { type: "start", messageId: id };
          copy.enqueue(start);
          controller.enqueue(start);
        }
      } else if (reply !== null && chunk.type === "start" && chunk.messageId !== undefined && chunk.messageId !== reply.id) {
        chunk = { ...chunk, messageId: reply.id }; // its name was given away
      }
      if (reply !== null && !isBeside(chunk)) copy.enqueue(structuredClone(chunk));
      controller.enqueue(chunk);
      if (chunk.type === "error") await end("error", chunk.errorText);
      else if (chunk.type === "abort") await end("interrupted", chunk.reason ?? "aborted");
    },
    cancel(reason) {
      end("interrupted", "stopped");
      return reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}

function fieldsOf(message) {
  const fields = { parts: message.parts };
  if (message.metadata !== undefined) fields.metadata = message.metadata;
  return fields;
}

/** Its characters of text, and what its tools and other parts are at, in short: a change of these is saved at once. */
function lengthOf(message) {
  let text = 0;
  let tools = "";
  for (const part of message.parts) {
    if (typeof part.text === "string") text += part.text.length;
    if (part.toolCallId !== undefined) tools += `${part.toolCallId}:${part.state}:${part.preliminary ?? ""};`;
  }
  return { text, tools };
}

// ---------------------------------------------------------------------------------------------------- resuming

/** A reply that somebody is writing, as a stream from its beginning; null where none is under way. */
async function follow(blotter, { chatId, abortSignal }) {
  const messages = await readAll(blotter, chatId, abortSignal);
  const last = messages.findLast((message) => message.role === "assistant");
  if (!last || !OPEN.has(last.status)) return null;
  const end = new AbortController();
  abortSignal?.addEventListener("abort", () => end.abort(), { once: true });
  return new ReadableStream({
    async start(controller) {
      try {
        let shown = { metadata: undefined, parts: [] };
        controller.enqueue({ type: "start", messageId: last.id });
        for await (const message of blotter.followMessage(chatId, last.id, { signal: end.signal })) {
          const now = toUIMessage(message);
          for (const chunk of chunksBetween(shown, now)) controller.enqueue(chunk);
          shown = now;
          if (OPEN.has(message.status)) continue;
          for (const chunk of closing(shown)) controller.enqueue(chunk);
          if (message.status === "error") controller.enqueue({ type: "error", errorText: message.statusReason ?? "The reply failed." });
          else if (message.status === "interrupted") controller.enqueue({ type: "abort", reason: message.statusReason ?? undefined });
          else controller.enqueue({ type: "finish" });
          break;
        }
        controller.close();
      } catch (error) {
        if (end.signal.aborted) controller.close();
        else controller.error(error);
      }
    },
    cancel: () => end.abort(),
  });
}

async function readAll(blotter, chatId, signal) {
  try {
    return (await blotter.loadConversation(chatId, { signal })).messages;
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

const partId = (part, index) => part.id ?? `part-${index}`;
const provider = (part) => (part.providerMetadata === undefined ? {} : { providerMetadata: part.providerMetadata });

/** Whether chunks lead from `had` to `part` in its place: it only grew, or went on. */
function goesOn(had, part) {
  if (JSON.stringify(had) === JSON.stringify(part)) return true;
  if (had.type !== part.type) return false;
  if (part.type === "text" || part.type === "reasoning") return had.state === "streaming" && part.text.startsWith(had.text);
  if (part.toolCallId !== undefined) return had.toolCallId === part.toolCallId && rankOf(part) >= rankOf(had);
  return part.type.startsWith("data-") && part.id !== undefined && part.id === had.id;
}

/**
 * The chunks that turn `before` into `after` in the SDK's own fold. Parts grow, as a rule; what a step took back is taken
 * back with it, and said anew.
 *
 * Pure. A data part without an id cannot be changed by a chunk, nor can a source or a file: those are final when they come.
 */
export function* chunksBetween(before, after) {
  if (JSON.stringify(after.metadata) !== JSON.stringify(before.metadata) && after.metadata !== undefined) {
    yield { type: "message-metadata", messageMetadata: after.metadata };
  }
  let had = before.parts;
  const other = had.findIndex((part, index) => index >= after.parts.length || !goesOn(part, after.parts[index]));
  const step = had.findLastIndex((part) => part.type === "step-start") + 1;
  if (other >= step) {
    yield { type: "reset-step" };
    had = had.slice(0, step);
  }
  for (let index = 0; index < after.parts.length; index++) {
    if (had[index] !== undefined && JSON.stringify(had[index]) === JSON.stringify(after.parts[index])) continue;
    yield* partChunks(had[index], after.parts[index], index);
  }
}

function* partChunks(had, part, index) {
  const { type } = part;
  if (type === "text" || type === "reasoning") {
    const id = partId(part, index);
    if (had === undefined) yield { type: `${type}-start`, id, ...provider(part) };
    const delta = part.text.slice(had?.text.length ?? 0);
    if (delta || JSON.stringify(part.providerMetadata) !== JSON.stringify((had ?? part).providerMetadata)) {
      yield { type: `${type}-delta`, id, delta, ...provider(part) };
    }
    if (part.state !== "streaming" && (had === undefined || had.state === "streaming")) {
      yield { type: `${type}-end`, id, ...provider(part), ...(part.citations ? { citations: part.citations } : {}) };
    }
  } else if (type === "dynamic-tool" || type.startsWith("tool-")) {
    yield* toolChunks(had, part);
  } else if (type === "step-start") {
    yield { type: "start-step" };
  } else if (type.startsWith("data-") || had === undefined) {
    yield { ...part };
  }
}

function* toolChunks(had, part) {
  const dynamic = part.type === "dynamic-tool";
  const about = { toolCallId: part.toolCallId, toolName: dynamic ? part.toolName : part.type.slice(5) };
  if (dynamic) about.dynamic = true;
  for (const name of ["title", "toolMetadata", "providerExecuted"]) if (part[name] !== undefined) about[name] = part[name];
  const call = part.callProviderMetadata === undefined ? {} : { providerMetadata: part.callProviderMetadata };
  const result = { toolCallId: part.toolCallId };
  if (part.toolMetadata !== undefined) result.toolMetadata = part.toolMetadata;
  if (part.providerExecuted !== undefined) result.providerExecuted = part.providerExecuted;
  if (part.resultProviderMetadata !== undefined) result.providerMetadata = part.resultProviderMetadata;
  const { approval, state } = part;
  const begun = had !== undefined && had.state !== "input-streaming";
  if (state === "input-streaming") {
    const encoding = part.inputEncoding === undefined ? {} : { inputEncoding: part.inputEncoding };
    if (had === undefined) yield { type: "tool-input-start", ...about, ...call, ...encoding };
    const inputTextDelta = (part.rawInput ?? "").slice(had?.rawInput?.length ?? 0);
    if (inputTextDelta) yield { type: "tool-input-delta", toolCallId: part.toolCallId, inputTextDelta };
    return;
  }
  if (state === "output-error" && part.rawInput !== undefined && !begun) {
    yield { type: "tool-input-error", ...about, ...call, input: part.input ?? part.rawInput, errorText: part.errorText };
    return;
  }
  if (!begun) yield { type: "tool-input-available", ...about, ...call, input: part.input };
  if (approval !== undefined && had?.approval === undefined) {
    const { id: approvalId, descriptor, requestReason, isAutomatic, signature, inputSchemaInput } = approval;
    const request = { type: "tool-approval-request", approvalId, toolCallId: part.toolCallId };
    if (descriptor !== undefined) request.approvalDescriptor = descriptor;
    if (requestReason !== undefined) request.reason = requestReason;
    if (isAutomatic !== undefined) request.isAutomatic = isAutomatic;
    if (signature !== undefined) request.signature = signature;
    if (inputSchemaInput !== undefined) request.inputSchemaInput = inputSchemaInput;
    yield request;
  }
  if (approval?.approved !== undefined && had?.approval?.approved === undefined) {
    const response = { type: "tool-approval-response", approvalId: approval.id, approved: approval.approved };
    if (approval.reason !== undefined) response.reason = approval.reason;
    if (part.providerExecuted !== undefined) response.providerExecuted = part.providerExecuted;
    yield { ...response, ...call };
  }
  if (state === "output-available") {
    yield { type: "tool-output-available", ...result, output: part.output, ...(part.preliminary === undefined ? {} : { preliminary: part.preliminary }) };
  } else if (state === "output-error") {
    yield { type: "tool-output-error", ...result, errorText: part.errorText };
  } else if (state === "output-denied") {
    yield { type: "tool-output-denied", toolCallId: part.toolCallId };
  }
}

/** Ends the texts that the reply left open. */
function* closing(message) {
  for (const [index, part] of message.parts.entries()) {
    if ((part.type === "text" || part.type === "reasoning") && part.state === "streaming") yield { type: `${part.type}-end`, id: partId(part, index) };
  }
}
