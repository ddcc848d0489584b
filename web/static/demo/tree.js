/**
 * Branches: messages point to their parents, the conversation to the last one shown. Pure.
 *
 * Which messages are shown is decided as the API decides it (`GET /api/conversations/{id}` without `branches`): the path
 * from the first message to `headId`; all of them where there is no head, or an unknown one.
 *
 * @module tree
 */

const inOrder = (one, other) => (one.position ?? "~") < (other.position ?? "~") ? -1 : 1;

/** The messages from the first to `leafId`. */
export function pathTo(messages, leafId) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const path = [];
  for (let at = byId.get(leafId); at && !path.includes(at); at = byId.get(at.parentId)) path.unshift(at);
  return path;
}

/** What is shown. */
export function shown(messages, headId) {
  const path = pathTo(messages, headId);
  return path.length ? path : [...messages];
}

/**
 * Whether the messages hang together by their parents. Those of a conversation that was imported without parents do not:
 * it has no branches, and setting a head would hide all that is not on its path.
 */
export function isThreaded(messages, headId) {
  if (messages.length === 0 || pathTo(messages, headId).length) return true;
  return pathTo(messages, messages.at(-1).id).length === messages.length;
}

/** Messages that stand in the same place: same parent, same role. In order. */
export function siblings(messages, message) {
  const parent = message.parentId ?? null;
  return messages.filter((one) => (one.parentId ?? null) === parent && one.role === message.role).sort(inOrder);
}

/** The newest message below `id`, or itself. */
export function leafBelow(messages, id) {
  const seen = new Set();
  for (let at = id; ; ) {
    seen.add(at);
    const children = messages.filter((one) => one.parentId === at && !seen.has(one.id)).sort(inOrder);
    if (children.length === 0) return at;
    at = children.at(-1).id;
  }
}
