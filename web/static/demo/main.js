/**
 * The demo chat: puts the page together. All saving and reading goes through `blotter.js`; see there.
 *
 * The address says what is open: `/#/conversation-id`, or `/` for a new one.
 *
 * @module main
 */

import { createBlotter } from "/static/blotter.js";
import { ArtifactPane } from "./artifact.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { $, coverChat, setText } from "./dom.js";
import { Messages } from "./messages.js";
import { Panel, themeButton } from "./panel.js";
import { Line, openSession } from "./session.js";
import { Sidebar } from "./sidebar.js";

/** px; who is this near to the end is taken along when the text grows. */
const NEAR = 80;
const TOAST_MS = 4000;

themeButton($("theme"));
const line = new Line();
const session = await openSession(line).catch((error) => {
  setText($("hint"), error.message);
  throw error;
});
const blotter = createBlotter({ eventsUrl: session.eventsUrl, token: session.token, env: { fetch: line.fetch } });
const panel = new Panel({ blotter, line, session, say });
const chat = new Chat(blotter, (conversationId, messageId) => session.post("/demo/reply", { conversationId, messageId, speed: panel.speed }));
const pane = new ArtifactPane(chat, blotter);
const sidebar = new Sidebar(blotter, chat);
const composer = new Composer(chat);
const messages = new Messages($("messages"), {
  regenerate: (message) => chat.regenerate(message),
  answer: (message) => chat.answer(message),
  edit: (message, text) => chat.edit(message, text),
  show: (message) => chat.show(message),
  openArtifact: (id) => (pane.show(id), closeMenu()),
  say,
});

// ---------------------------------------------------------------------------------------------------- showing

let planned = false;
let wasOpen = null;
let reachable = true;

function plan() {
  if (planned) return;
  planned = true;
  // A hidden page gets no frames; its state still has to be right when somebody asks for it.
  if (document.visibilityState === "visible") requestAnimationFrame(show);
  else setTimeout(show);
}

function show() {
  planned = false;
  const scroller = $("scroller");
  const stick = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
  messages.update(chat);
  composer.update();
  sidebar.update();
  pane.update();
  panel.update(reachable);
  const { state, title } = chat;
  document.body.dataset.state = state;
  setText($("title"), state === "new" ? "New chat" : (title ?? "Untitled"));
  document.title = state === "new" || !title ? "Blotter" : `${title} · Blotter`;
  $("conversation-menu").hidden = state !== "open";
  setText($("archive"), chat.view.conversation?.archived ? "Take out of the archive" : "Archive");
  $("welcome").hidden = state !== "new" || chat.path.length > 0;
  const hint = { loading: "Reading …", missing: "There is no such conversation here.", deleted: "This conversation was deleted." }[state] ?? "";
  setText($("hint"), chat.path.length && state === "loading" ? "" : hint);
  $("older").hidden = !chat.view.before;
  announce();
  if (stick) scroller.scrollTop = scroller.scrollHeight;
  $("down").hidden = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 2 * NEAR;
}

/** Tells those who do not see it when a reply begins and ends; not every word of it. */
function announce() {
  const reply = chat.openReply;
  if (reply && wasOpen !== reply.id) setText($("live"), "The assistant is writing.");
  else if (!reply && wasOpen) {
    const ended = chat.path.find((message) => message.id === wasOpen);
    setText($("live"), ended?.status === "complete" ? "The reply is complete." : ended ? "The reply was broken off." : "");
  }
  wasOpen = reply?.id ?? null;
}

let toastTimer = null;
function say(text) {
  setText($("toast"), text);
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
}

chat.addEventListener("change", plan);
blotter.addEventListener("state", (event) => {
  plan();
  if (event.detail.kind === "conversation" || event.detail.state === "buffered") sidebar.changed();
});
blotter.addEventListener("connection", (event) => {
  reachable = event.detail.online;
  plan();
});
addEventListener("online", () => (blotter.retry(), plan()));
addEventListener("offline", plan);

// ---------------------------------------------------------------------------------------------------- the address

function route() {
  const id = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  if (id === chat.id) return;
  pane.close();
  if (id) chat.open(id);
  else chat.begin();
  composer.opened();
  $("scroller").scrollTop = 0;
  showList(false);
  if (!matchMedia("(pointer: coarse)").matches) composer.focus();
}

function startNew() {
  if (location.hash.length > 2) location.hash = "";
  else route();
  showList(false);
  composer.focus();
}

/** On a narrow screen the list lies over the chat. */
function showList(open) {
  document.body.classList.toggle("with-list", open);
  coverChat();
}

addEventListener("hashchange", route);
chat.addEventListener("sent", () => {
  const hash = `#/${encodeURIComponent(chat.id)}`;
  if (location.hash !== hash) history.pushState(null, "", hash);
  requestAnimationFrame(() => ($("scroller").scrollTop = $("scroller").scrollHeight));
});

// ---------------------------------------------------------------------------------------------------- buttons and keys

const closeMenu = () => $("menu").hidePopover();
const onClick = (id, run) => $(id).addEventListener("click", run);

onClick("new", startNew);
onClick("list-open", () => {
  showList(true);
  $("new").focus();
});
onClick("list-close", () => {
  showList(false);
  $("list-open").focus();
});
document.addEventListener("click", (event) => {
  // Beside the list. What lies there is covered; only the click that opened the list comes from it.
  const main = document.querySelector("main");
  if (main.inert && !pane.open && !main.contains(event.target) && !$("sidebar").contains(event.target)) $("list-close").click();
});
onClick("down", () => $("scroller").scrollTo({ top: $("scroller").scrollHeight, behavior: "smooth" }));
onClick("older", () => chat.older());
onClick("rename", () => {
  closeMenu();
  $("new-title").value = chat.title ?? "";
  $("rename-dialog").showModal();
  $("new-title").select();
});
$("rename-dialog").addEventListener("close", () => {
  const title = $("new-title").value.trim();
  if ($("rename-dialog").returnValue === "yes" && title) chat.rename(title);
});
onClick("archive", async () => {
  closeMenu();
  const archived = !chat.view.conversation.archived;
  await chat.archive(archived).catch(() => {});
  say(archived ? "Archived." : "Taken out of the archive.");
  sidebar.changed();
});
onClick("delete", () => {
  closeMenu();
  $("delete-dialog").showModal();
});
$("delete-dialog").addEventListener("close", () => {
  if ($("delete-dialog").returnValue !== "yes") return;
  const deleted = chat.delete();
  startNew();
  deleted.then(() => sidebar.changed(), () => say("It could not be deleted."));
});
for (const dialog of document.querySelectorAll("dialog")) {
  // Escape, the backdrop and the first button say no.
  dialog.addEventListener("cancel", () => (dialog.returnValue = ""));
  dialog.querySelector(".no").addEventListener("click", () => dialog.close(""));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close(""));
}
for (const button of document.querySelectorAll("#suggestions button")) {
  button.addEventListener("click", () => composer.say(button.dataset.say));
}

addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    event.preventDefault();
    startNew();
  }
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (document.querySelector("dialog[open], [popover]:popover-open")) return; // theirs
  if (chat.openReply) chat.stop();
  else if (document.body.classList.contains("with-list")) $("list-close").click();
  else if (pane.open) pane.close();
});
$("scroller").addEventListener("scroll", plan, { passive: true });
setInterval(plan, 1000);

route();
sidebar.refresh();
plan();
