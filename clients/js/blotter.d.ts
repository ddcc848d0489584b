/** Types of Blotter's client. What things do is said in blotter.js and in the README. */

export type Status = "pending" | "streaming" | "complete" | "interrupted" | "error";
export type Role = "system" | "developer" | "user" | "assistant" | "tool";
export type ItemKind = "conversation" | "message" | "toolResult" | "artifact";
export type ItemState = "typing" | "waiting" | "buffered" | "stored" | "failed";
export type ToolState =
  | "input-streaming"
  | "input-available"
  | "approval-requested"
  | "approval-responded"
  | "output-available"
  | "output-error"
  | "output-denied";
export type Json = unknown;
/** An AI SDK `UIMessage` part, or any JSON object. */
export type Part = { type: string };

/** What every item takes. `revision`: at least this one is given to the save. */
interface ItemFields {
  status?: Status;
  statusReason?: string | null;
  revision?: number;
}
export interface MessageFields extends ItemFields {
  id?: string;
  role?: Role;
  content?: string | null;
  parts?: readonly Part[] | null;
  metadata?: Json;
  parentId?: string | null;
  toolResultIds?: readonly string[];
  artifactIds?: readonly string[];
}
export interface ToolResultFields extends ItemFields {
  id?: string;
  messageId?: string | null;
  toolCallId: string;
  toolName?: string | null;
  state?: ToolState | null;
  preliminary?: boolean;
  input?: Json;
  output?: Json;
  errorText?: string | null;
}
export interface ArtifactFields extends ItemFields {
  id?: string;
  messageId?: string | null;
  kind?: string | null;
  title?: string | null;
  language?: string | null;
  mediaType?: string | null;
  content?: string | null;
  metadata?: Json;
}
export interface ConversationFields {
  title?: string | null;
  metadata?: Json;
  archived?: boolean;
  headId?: string | null;
  revision?: number;
}
export interface ConversationState {
  conversation?: ConversationFields;
  messages?: readonly (MessageFields & { id: string })[];
  toolResults?: readonly ToolResultFields[];
  artifacts?: readonly (ArtifactFields & { id: string })[];
}

interface Kept {
  id: string;
  revision: number | null;
  version: number;
  createdAt: string;
  updatedAt: string;
  deletedAt?: string;
  stored: boolean;
  /** True where this page shows something that the server has not acknowledged yet. */
  unsaved?: boolean;
}
interface KeptItem extends Kept {
  status: Status;
  statusReason: string | null;
  position: string;
}
export interface Conversation extends Kept {
  title: string | null;
  metadata: Json;
  archived: boolean;
  headId: string | null;
  lastMessageAt: string | null;
}
export interface Message extends KeptItem {
  role: Role;
  content: string | null;
  parts: Part[] | null;
  metadata: Json;
  parentId: string | null;
  toolResultIds: string[];
  artifactIds: string[];
}
export interface ToolResult extends KeptItem {
  messageId: string | null;
  toolCallId: string;
  toolName: string | null;
  state: ToolState | null;
  input: Json;
  output: Json;
  errorText: string | null;
}
export interface Artifact extends KeptItem {
  messageId: string | null;
  kind: string | null;
  title: string | null;
  language: string | null;
  mediaType: string | null;
  content: string | null;
  metadata: Json;
  versionNumber: number;
}
export interface ConversationView {
  conversation: Conversation;
  messages: Message[];
  toolResults: ToolResult[];
  artifacts: Artifact[];
  inFlight: boolean;
  version: number;
  bufferEpoch: string;
  partial?: boolean;
  before?: string;
  deleted?: boolean;
}

export type LiveEvent =
  | { type: "item"; kind: ItemKind; version: number; item: Conversation | Message | ToolResult | Artifact; partial?: boolean }
  | { type: "append"; kind: "message" | "artifact"; id: string; part?: number; offset: number; text: string; status: Status; version: number; set: Record<string, Json>; partial?: boolean }
  | { type: "stored"; kind: ItemKind; id: string; version: number }
  | { type: "epoch"; bufferEpoch: string; version: number; unstored: { kind: ItemKind; id: string; version: number }[] };

export interface Saved {
  id: string;
  revision: number | null;
  version: number;
  state: "buffered" | "stored";
}
export interface SaveOptions {
  /** When the promise resolves: acknowledged (default), or committed in Postgres. */
  until?: "buffered" | "stored";
}
export interface StateChange {
  conversationId: string;
  kind: ItemKind;
  id: string;
  state: ItemState;
  error?: BlotterError;
}

export interface Limits {
  appendChars: number;
  appendMs: number;
  heartbeatMs: number;
  autosaveMs: number;
  requestMs: number;
  backoffMs: number;
  backoffMaxMs: number;
  retryAfterMaxMs: number;
  silenceMs: number;
  streamMs: number;
  confirmMs: number;
  confirmWaitSeconds: number;
  concurrency: number;
  keepaliveBytes: number;
  memoryChars: number;
  syncItems: number;
  syncChars: number;
  bundleChars: number;
  journalMs: number;
  leaveMs: number;
  leaseMs: number;
}
export declare const LIMITS: Readonly<Limits>;

/** What the client takes from its surroundings; each can be given instead. */
export interface Environment {
  fetch: typeof fetch;
  /** ms since 1970. */
  now: () => number;
  /** ms that only go forward, whatever becomes of the clock; default: `now`, where that is given. */
  ticks: () => number;
  random: () => number;
  setTimeout: (run: () => void, ms: number) => unknown;
  clearTimeout: (timer: any) => void;
  crypto: Pick<Crypto, "getRandomValues">;
  indexedDB: IDBFactory | null;
  locks: Pick<LockManager, "request" | "query"> | null;
  document: (EventTarget & { readonly visibilityState: string }) | undefined;
  window: EventTarget | undefined;
  globalThis: typeof globalThis;
}
export interface BlotterOptions {
  baseUrl?: string;
  eventsUrl?: string;
  token: string | ((how: { fresh: boolean }) => Promise<string>);
  owner?: string;
  onState?: (change: StateChange) => void;
  limits?: Partial<Limits>;
  env?: Partial<Environment>;
}

export declare class BlotterError extends Error {
  /** HTTP status; 0: no answer, the outcome is unknown. */
  readonly status: number;
  /** The problem's kind, such as "stale-revision". */
  readonly kind: string;
  readonly problem: Record<string, any>;
  readonly retryAfterMs: number;
}

export interface Following {
  readonly offset: string;
  /** Resolves when the conversation was deleted, or this was closed; rejects with 401: no token holds, 404: there is none,
   *  410: there is no going on from `offset`, read the conversation anew. */
  readonly done: Promise<void>;
  close(): void;
}

export declare class Blotter extends EventTarget {
  constructor(options?: BlotterOptions);
  readonly tab: string;
  readonly unsaved: number;
  readonly unstored: number;

  saveUserMessage(conversationId: string, message: MessageFields, options?: SaveOptions): Promise<Saved>;
  saveAssistantMessage(conversationId: string, message: MessageFields, options?: SaveOptions): Promise<Saved>;
  saveOrUpdateMessage(conversationId: string, message: MessageFields, options?: SaveOptions): Promise<Saved>;
  saveToolResult(conversationId: string, result: ToolResultFields, options?: SaveOptions): Promise<Saved>;
  updateToolResult(conversationId: string, result: ToolResultFields, options?: SaveOptions): Promise<Saved>;
  saveArtifact(conversationId: string, artifact: ArtifactFields, options?: SaveOptions): Promise<Saved>;
  updateArtifact(conversationId: string, artifact: ArtifactFields, options?: SaveOptions): Promise<Saved>;
  syncConversationState(conversationId: string, state?: ConversationState, options?: { full?: boolean }): Promise<Saved[]>;

  startReply(conversationId: string, message?: ReplyFields): Reply;
  watch(conversationId: string, state: () => ConversationState | null | undefined): () => void;

  createConversation(conversation?: ConversationFields & { id?: string }): Promise<Saved>;
  updateConversation(conversationId: string, fields: ConversationFields, options?: SaveOptions): Promise<Saved>;
  renameConversation(conversationId: string, title: string | null): Promise<Saved>;
  archiveConversation(conversationId: string, archived?: boolean): Promise<Saved>;
  setHead(conversationId: string, headId: string | null): Promise<Saved>;
  deleteConversation(conversationId: string): Promise<Saved>;
  deleteMessage(conversationId: string, id: string): Promise<Saved>;
  deleteToolResult(conversationId: string, id: string): Promise<Saved>;
  deleteArtifact(conversationId: string, id: string): Promise<Saved>;

  loadConversation(
    conversationId: string,
    options?: { since?: number; limit?: number; before?: string; branches?: "all"; signal?: AbortSignal },
  ): Promise<ConversationView>;
  listConversations(options?: {
    limit?: number;
    after?: string;
    archived?: boolean;
    signal?: AbortSignal;
  }): Promise<{ conversations: Conversation[]; after: string | null; degraded?: boolean }>;
  artifactVersions(
    conversationId: string,
    id: string,
    options?: { limit?: number; after?: number },
  ): Promise<{ versions: { number: number; content: string; hash: string; version: number; createdAt: string }[]; after: number | null }>;
  follow(
    conversationId: string,
    options?: {
      offset?: string | number;
      onEvent?: (event: LiveEvent) => void | Promise<void>;
      onUpToDate?: (offset: string) => void | Promise<void>;
      signal?: AbortSignal;
    },
  ): Following;
  followMessage(conversationId: string, id: string, options?: { signal?: AbortSignal; pollMs?: number }): AsyncGenerator<Message, void, void>;

  stateOf(conversationId: string, kind: ItemKind, id: string): ItemState | undefined;
  knownOf(conversationId: string, kind: ItemKind, id: string): object | undefined;
  failures(): { conversationId: string; kind: ItemKind; id: string; error: BlotterError; fields: object }[];
  discard(conversationId: string, kind: ItemKind, id: string): void;
  setToken(token: string | ((how: { fresh: boolean }) => Promise<string>)): void;
  retry(): void;
  replay(): Promise<void>;
  flush(options?: { until?: "buffered" | "stored"; timeoutMs?: number }): Promise<boolean>;
  mintId(): string;
  /** Resolves once it is sure that this page stays; never on one that goes. At once where there is no page. */
  stays(): Promise<void>;
  dispose(): Promise<void>;
}

export interface ReplyFields extends Omit<MessageFields, "id"> {
  /** Its id; a promise of it; null: `setId` will be called. Default: a new one. */
  id?: string | PromiseLike<string> | null;
  /** The message was finished before, and is gone on with (after a tool, say). */
  continues?: boolean;
}
export declare class Reply {
  readonly id: string | null;
  readonly ended: boolean;
  readonly text: string;
  setId(id: string): void;
  append(text: string): this;
  show(message: MessageFields | (() => MessageFields), options?: { chars?: number; now?: boolean }): this;
  toolStart(call: ToolResultFields): this;
  toolResult(result: ToolResultFields): this;
  artifact(artifact: ArtifactFields): this;
  complete(fields?: MessageFields): Promise<Saved | null>;
  stop(reason?: string, fields?: MessageFields): Promise<Saved | null>;
  error(message: string, fields?: MessageFields): Promise<Saved | null>;
}

export declare function createBlotter(options: BlotterOptions): Blotter;
export declare function foldEvent(view: ConversationView, event: LiveEvent): ConversationView;
export declare function mintId(now?: number, random?: Pick<Crypto, "getRandomValues">): string;
export declare function asId(text: string): string;
export declare function toolResultId(messageId: string, toolCallId: string): string;
