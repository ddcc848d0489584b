/** Types of the AI SDK adapter. */

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import type { Blotter, Message, MessageFields, Saved } from "./blotter.js";

export interface WithBlotterOptions {
  /** Where a reply under way is picked up: Blotter's live events (default), or the transport's own `reconnectToStream`. */
  resume?: "events" | "transport";
}
export declare function withBlotter<M extends UIMessage = UIMessage>(transport: ChatTransport<M>, blotter: Blotter, options?: WithBlotterOptions): ChatTransport<M>;
export declare function loadMessages<M extends UIMessage = UIMessage>(
  blotter: Blotter,
  conversationId: string,
  options?: { limit?: number; before?: string; signal?: AbortSignal },
): Promise<M[]>;
export declare function saveMessages<M extends UIMessage = UIMessage>(blotter: Blotter, conversationId: string, messages: readonly M[]): Promise<Saved[]>;
export declare function watchChat<M extends UIMessage = UIMessage>(blotter: Blotter, chat: { readonly id: string; readonly status: string; readonly messages: M[] }): () => void;
export declare function toUIMessage<M extends UIMessage = UIMessage>(message: Message): M;
export declare function fromUIMessage(message: UIMessage, parentId?: string | null): MessageFields & { id: string };
export declare function chunksBetween(before: { metadata?: unknown; parts: UIMessage["parts"] }, after: UIMessage): Generator<UIMessageChunk>;
