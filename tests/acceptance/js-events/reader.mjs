// Reads a stream with the real client and prints each batch as a line of JSON, until the stream is closed.
//
//   URL=… TOKENS=first,second LIVE=sse|long-poll OFFSET=-1 node reader.mjs
//
// The client comes back by itself where a stream ends; where a connection breaks it gives up, and an application begins
// again at the offset it was told last. A token that is refused is replaced by the next; after the last one it is over.
// Lines: {items, offset, upToDate, closed} | {broken} | {refused}.
import { stream } from "@durable-streams/client";

const { URL: url, TOKENS: tokens, LIVE: live, OFFSET: start } = process.env;
const left = tokens.split(",");
let token = left.shift();
let offset = start;
let closed = false;

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

while (!closed) {
  try {
    const response = await stream({
      url,
      offset,
      live,
      json: true,
      headers: { Authorization: () => `Bearer ${token}` },
      backoffOptions: { initialDelay: 50, maxDelay: 500, multiplier: 2, maxRetries: 200 },
      sseResilience: { logWarnings: false, maxShortConnections: 1000 },
      warnOnHttp: false,
    });
    response.subscribeJson(async (batch) => {
      offset = batch.offset;
      closed = batch.streamClosed === true || response.streamClosed;
      print({ items: batch.items, offset, upToDate: batch.upToDate, closed });
    });
    await response.closed;
    if (!closed) closed = response.streamClosed;
  } catch (error) {
    if (error.status === 401) {
      print({ refused: 401 });
      token = left.shift();
      if (token === undefined) break;
      continue;
    }
    if (error.status !== undefined && error.status !== 503) throw error;
    print({ broken: error.name });
    await new Promise((next) => setTimeout(next, 50));
  }
}
