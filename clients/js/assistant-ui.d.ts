/** Types of the assistant-ui adapters: assistant-ui's own. */

import type { GenericThreadHistoryAdapter, MessageFormatAdapter, RemoteThreadListAdapter, ThreadHistoryAdapter, ThreadMessage } from "@assistant-ui/react";
import type { Blotter } from "./blotter.js";

type ThreadId = string | null | undefined;

export declare function historyAdapter(
  blotter: Blotter,
  thread: string | (() => ThreadId | Promise<ThreadId>),
): ThreadHistoryAdapter & {
  withFormat<M, F extends Record<string, unknown>>(format: MessageFormatAdapter<M, F>): GenericThreadHistoryAdapter<M>;
};
export declare function threadListAdapter(
  blotter: Blotter,
  options?: { generateTitle?: (messages: readonly ThreadMessage[]) => string | Promise<string> },
): RemoteThreadListAdapter;
