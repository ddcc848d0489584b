"""Live events of a conversation: the read side of the Durable Streams protocol, JSON mode, in a process of its own.

    GET /api/conversations/{id}/events?offset=-1|now|<offset>[&live=long-poll|sse]      granian, ASGI, one event loop

The stream is made from what is kept, not from a log: an answer holds what changed above the reader's offset, each
changed item once, as it is now. So the same range read twice may be told in other words (ten appends, or the item as
they left it); folded, both give the same. Who folds events like this has what `GET /api/conversations/{id}` answers:

    item     {kind, version, item}   put `item` in the place of what has its kind and id; `deletedAt`: take it away.
                                     A conversation with `deletedAt` is the last event: the stream is closed.
    append   {kind, id, part?, offset, text, status, version, set}
                                     to `content`, or to the text of part number `part`: what stands before `offset`
                                     (UTF-16 units, as `string.length`), then `text`; then each field of `set`.
                                     `text` may be empty. Comes where only ends of texts and small fields changed.
    stored   {kind, id, version}     this version of the item is committed in Postgres: its `stored` is true.
    epoch    {bufferEpoch, version, unstored: [{kind, id, version}]}
                                     a checkpoint: of what has at most `version` all but `unstored` is committed. Comes
                                     first on every SSE connection, after items that were caught up with, and when the
                                     buffer's epoch changed: then send again what you do not know to be stored, and read
                                     the conversation again if you must be sure (a buffer may have lost its last second).

Laws:
1. Offsets: "version_rest", rest falling digits of how many items are not committed: lexicographic order is the order of
   progress, commits included. A bare version (the `version` of a conversation that was read) is an offset too.
2. From any offset that was handed out, nothing is lost: items with a higher version come whole, then, on that
   connection, appends. From the offset the process stands at, or one of its last batches, appends come at once.
3. On a connection, a version of an item is told once, in order of versions.
4. `partial: true` marks what was saved while Postgres was away, without what lies below it. Such events move no offset;
   lay them over what you have, and drop the layer when the stream ends or says `upToDate`: then all comes whole.
   Only SSE tells them; polls are answered 503.
5. Offsets below which deletions were purged, or above what is kept (a buffer that was set back): 410, begin at -1.
6. `offset=now` tells appends to items the reader never read: read them.

A reader costs a queue; a watched conversation one read per change, however many watch it. Hints by Redis' shard channels
wake the watcher; every five seconds it looks by itself, because hints may be lost.
"""
