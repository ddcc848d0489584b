/** Never run: it only has to type-check against the packages' own types. */

import { Chat, useChat } from "@ai-sdk/react";
import { type RemoteThreadListAdapter, type ThreadHistoryAdapter, useRemoteThreadListRuntime } from "@assistant-ui/react";
import { type ChatTransport, DefaultChatTransport, type UIMessage } from "ai";

import { loadMessages, watchChat, withBlotter } from "../../ai-sdk.js";
import { historyAdapter, threadListAdapter } from "../../assistant-ui.js";
import { type Blotter, createBlotter, foldEvent, type Saved } from "../../blotter.js";

type Mine = UIMessage<{ tokens?: number }, { note: { text: string } }>;

const blotter: Blotter = createBlotter({ baseUrl: "", token: async ({ fresh }) => (fresh ? "new" : "old"), onState: ({ state }) => state satisfies string });
const transport: ChatTransport<Mine> = withBlotter(new DefaultChatTransport<Mine>({ api: "/api/chat" }), blotter);
const chat = new Chat<Mine>({ id: "c", transport, messages: await loadMessages<Mine>(blotter, "c") });
watchChat(blotter, chat);
useChat<Mine>({ chat, resume: true });

const history: ThreadHistoryAdapter = historyAdapter(blotter, "thread");
const list: RemoteThreadListAdapter = threadListAdapter(blotter, { generateTitle: (messages) => messages[0]?.id ?? "" });
useRemoteThreadListRuntime({ adapter: list, runtimeHook: () => null as never });
history.withFormat?.({
  format: "ai-sdk/v6",
  encode: ({ message }: { message: Mine; parentId: string | null }) => ({ role: message.role, parts: message.parts }),
  decode: (row) => ({ parentId: row.parent_id, message: { id: row.id, ...row.content } as Mine }),
  getId: (message) => message.id,
});

const saved: Promise<Saved> = blotter.saveUserMessage("c", { content: "x" });
const reply = blotter.startReply("c", { id: saved.then(({ id }) => id) });
reply.append("a").toolStart({ toolCallId: "t", toolName: "x" });
await reply.complete({ metadata: { tokens: 1 } });
const view = await blotter.loadConversation("c", { branches: "all" });
blotter.follow("c", { offset: view.version, onEvent: (event) => void foldEvent(view, event) });
// @ts-expect-error a status is one of five
blotter.saveOrUpdateMessage("c", { id: "m", status: "done" });
