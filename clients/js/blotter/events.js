/**
 * Live events: read from a stream, and folded into a view. Pure but for the stream.
 *
 * @module blotter/events
 */

import { isOpen, LISTS } from "./snapshot.js";

/**
 * Brings a view of a conversation (what `loadConversation` gives) further by one event of `follow`; changes and returns it.
 *
 * Items are replaced, never changed in place: a page may compare them by identity. `view.deleted`: it is gone.
 */
export function foldEvent(view, event) {
  const list = LISTS[event.kind];
  if (event.type === "item" && event.kind === "conversation") {
    view.conversation = event.item;
    if (event.item.deletedAt) view.deleted = true;
  } else if (event.type === "item") {
    const others = view[list].filter((one) => one.id !== event.item.id);
    if (!event.item.deletedAt) {
      const after = others.findIndex((one) => one.position > event.item.position);
      others.splice(after < 0 ? others.length : after, 0, event.item);
    }
    view[list] = others;
  } else if (event.type === "append") {
    const index = view[list].findIndex((one) => one.id === event.id);
    if (index < 0) return view; // never read: what is appended to it means nothing
    const item = { ...view[list][index] };
    if (event.part === undefined) {
      if (event.text !== "") item.content = (item.content ?? "").slice(0, event.offset) + event.text;
    } else {
      const part = item.parts[event.part];
      item.parts = item.parts.with(event.part, { ...part, text: part.text.slice(0, event.offset) + event.text });
    }
    Object.assign(item, { stored: false }, event.set, { status: event.status, version: event.version });
    view[list] = view[list].with(index, item);
  } else if (event.type === "stored") {
    const mark = (item) => (item && item.version <= event.version ? { ...item, stored: true } : item);
    if (event.kind === "conversation") view.conversation = mark(view.conversation);
    else view[list] = view[list].map((one) => (one.id === event.id ? mark(one) : one));
  } else if (event.type === "epoch") {
    view.bufferEpoch = event.bufferEpoch;
    const not = new Set(event.unstored.map((one) => `${one.kind}\n${one.id}`));
    const census = (kind) => (item) => {
      const stored = !not.has(`${kind}\n${item.id}`);
      return item.version <= event.version && item.stored !== stored ? { ...item, stored } : item;
    };
    view.conversation = census("conversation")(view.conversation);
    for (const kind of Object.keys(LISTS)) view[LISTS[kind]] = view[LISTS[kind]].map(census(kind));
  }
  if (event.version > (view.version ?? 0) && !event.partial) view.version = event.version;
  view.inFlight = view.messages.some(isOpen) || view.toolResults.some(isOpen);
  return view;
}

/** A long poll's answer, told as a stream would. `within`: how its body is waited for. */
export async function* polledEvents(response, within) {
  if (response.status !== 204) yield { event: "data", data: await within(response.text()) };
  const { headers } = response;
  const control = { streamNextOffset: headers.get("Stream-Next-Offset") ?? undefined };
  control.upToDate = headers.get("Stream-Up-To-Date") === "true";
  control.streamClosed = headers.get("Stream-Closed") === "true";
  yield { event: "control", data: JSON.stringify(control) };
}

/** The events of a text/event-stream body: `{event, data}`. `read`: how its reader is read. */
export async function* serverSentEvents(body, read = (reader) => reader.read()) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let event = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await read(reader);
      rest += decoder.decode(value ?? new Uint8Array(), { stream: !done });
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
        } else if (!line.startsWith(":")) {
          const colon = line.indexOf(":");
          const name = colon < 0 ? line : line.slice(0, colon);
          const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
          if (name === "event") event = text;
          else if (name === "data") data.push(text);
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
