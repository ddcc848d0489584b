/**
 * Markdown as models write it, made into elements: headings, lists, tables, quotes, code, links, emphasis.
 *
 * Law: no text ever becomes markup. Elements are made by name from the short list below, text becomes text nodes, and
 * a link leads to http, https or mail, or stays text. Pictures are shown as links: reading a chat fetches nothing.
 *
 * A text that grows is cut into blocks; a block whose source is unchanged keeps its elements (`Markdown.update`).
 *
 * @module markdown
 */

import { copied, el } from "./dom.js";

/** Characters of one paragraph beyond which it is shown as it is: the patterns below look ahead. */
const MOST_INLINE = 20_000;
/** Quotes and lists within each other; deeper ones are text. */
const DEEPEST = 12;

// ---------------------------------------------------------------------------------------------------- blocks

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|$)/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const CODE = /^(?: {4}|\t)/;
const BLANK = /^\s*$/;

/** Cuts `text` into blocks: `{type, source, …}`. */
export function blocksOf(text) {
  return blocks(text.replaceAll("\r\n", "\n").split("\n"), 0);
}

function blocks(lines, depth) {
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (BLANK.test(lines[at])) {
      at++;
      continue;
    }
    const block = blockAt(lines, at, depth);
    block.source = lines.slice(at, block.end).join("\n");
    at = block.end;
    found.push(block);
  }
  return found;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { type: "heading", level: heading[1].length, text: heading[2] ?? "", end: at + 1 };
  if (RULE.test(line)) return { type: "rule", end: at + 1 };
  if (QUOTE.test(line) && depth < DEEPEST) return quote(lines, at, depth);
  if (ITEM.test(line) && depth < DEEPEST) return list(lines, at, depth);
  if (line.includes("|") && at + 1 < lines.length && TABLE_RULE.test(lines[at + 1]) && lines[at + 1].includes("-")) {
    const table = tableAt(lines, at);
    if (table) return table;
  }
  if (CODE.test(line)) return indented(lines, at);
  let end = at + 1;
  while (end < lines.length && !BLANK.test(lines[end]) && !interrupts(lines[end])) end++;
  return { type: "paragraph", text: lines.slice(at, end).map((one) => one.trimStart()).join("\n"), end };
}

const interrupts = (line) =>
  FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || /^ {0,3}(?:[-*+]|1[.)]) +\S/.test(line);

function fenced(lines, at, [, marks, language]) {
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], marks)) end++;
  const code = lines.slice(at + 1, end).join("\n");
  return { type: "code", language, code, end: Math.min(end + 1, lines.length) };
}

const closes = (line, marks) => {
  const trimmed = line.trim();
  return trimmed.length >= marks.length && [...trimmed].every((mark) => mark === marks[0]);
};

function indented(lines, at) {
  let end = at;
  let last = at;
  for (; end < lines.length && (CODE.test(lines[end]) || BLANK.test(lines[end])); end++) if (CODE.test(lines[end])) last = end + 1;
  return { type: "code", language: "", code: lines.slice(at, last).map((one) => one.replace(CODE, "")).join("\n"), end: last };
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end++;
  return { type: "quote", blocks: blocks(lines.slice(at, end).map((one) => one.replace(QUOTE, "")), depth + 1), end };
}

function list(lines, at, depth) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || /\d/.test(item[2]) !== ordered || RULE.test(lines[end])) break;
    const indent = item[0].length;
    const own = [lines[end].slice(indent)];
    end++;
    while (end < lines.length) {
      const blank = BLANK.test(lines[end]);
      const inside = lines[end].search(/\S/) >= Math.min(indent, item[1].length + 2);
      if (blank ? !continues(lines, end, Math.min(indent, item[1].length + 2)) : !inside && (interrupts(lines[end]) || ITEM.test(lines[end]) || BLANK.test(lines[end - 1]))) break;
      own.push(dedented(lines[end], indent));
      end++;
    }
    items.push(blocks(own, depth + 1));
    while (end < lines.length && BLANK.test(lines[end]) && ITEM.test(lines[end + 1] ?? "")) end++;
  }
  const start = ordered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : 1;
  return { type: "list", ordered, start, items, end };
}

/** Whether what follows a blank line still belongs to the item. */
function continues(lines, at, indent) {
  let next = at + 1;
  while (next < lines.length && BLANK.test(lines[next])) next++;
  return next < lines.length && lines[next].search(/\S/) >= indent;
}

const dedented = (line, indent) => line.slice(Math.min(indent, Math.max(0, line.search(/\S|$/))));

function tableAt(lines, at) {
  const head = cells(lines[at]);
  const rules = cells(lines[at + 1]);
  if (head.length !== rules.length) return null;
  const align = rules.map((rule) => (rule.endsWith(":") ? (rule.startsWith(":") ? "center" : "end") : "start"));
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|") && !BLANK.test(lines[end]); end++) rows.push(cells(lines[end]));
  return { type: "table", head, align, rows, end };
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// ---------------------------------------------------------------------------------------------------- inline

/** What may stand within a line, in this order. Each: a pattern, and what its match becomes. */
const INLINE = [
  [/\\([!-/:-@[-`{-~])/y, (match) => match[1]],
  [/(`+)(?!`)([^]*?[^`])\1(?!`)/y, (match) => el("code", {}, match[2].replace(/^ (.*\S.*) $/s, "$1").replaceAll("\n", " "))],
  [/!?\[((?:[^\[\]\\]|\\.)*)\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s+["'][^"')]*["'])?\s*\)/y, (match, depth) => link(match[2], match[1] === "" ? [match[2]] : inline(match[1], depth + 1))],
  [/<(https?:\/\/[^\s<>]+|[^\s<>@]+@[^\s<>@]+\.[^\s<>@]+)>/y, (match) => link(match[1].includes("://") ? match[1] : `mailto:${match[1]}`, [match[1]])],
  [/https?:\/\/[^\s<>"'()]*(?:\([^\s<>"'()]*\)[^\s<>"'()]*)*[^\s<>"'().,;:!?*_~`]/y, (match) => link(match[0], [match[0]])],
  [/\*\*\*(?=\S)([^]*?\S)\*\*\*/y, (match, depth) => el("strong", {}, el("em", {}, inline(match[1], depth + 1)))],
  [/(\*\*|__)(?=\S)([^]*?\S)\1(?![*_])/y, (match, depth) => el("strong", {}, inline(match[2], depth + 1))],
  [/\*(?=[^\s*])([^]*?[^\s*])\*(?!\*)/y, (match, depth) => el("em", {}, inline(match[1], depth + 1))],
  [/(?<![\w\d])_(?=[^\s_])([^]*?[^\s_])_(?!\w)/y, (match, depth) => el("em", {}, inline(match[1], depth + 1))],
  [/~~(?=\S)([^]*?\S)~~/y, (match, depth) => el("del", {}, inline(match[1], depth + 1))],
  [/ {2,}\n|\\\n/y, () => el("br")],
];
const STARTS = /[\\`!\[<h*_~ ]/g;

function inline(text, depth = 0) {
  if (text.length > MOST_INLINE || depth > DEEPEST) return [text];
  const nodes = [];
  let plain = 0;
  STARTS.lastIndex = 0;
  for (let at = next(text, 0); at < text.length; ) {
    const found = match(text, at, depth);
    if (!found) {
      at = next(text, at + 1);
      continue;
    }
    if (at > plain) nodes.push(text.slice(plain, at));
    nodes.push(found.node);
    plain = found.end;
    at = next(text, plain);
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

function next(text, from) {
  STARTS.lastIndex = from;
  const found = STARTS.exec(text);
  return found ? found.index : text.length;
}

function match(text, at, depth) {
  for (const [pattern, make] of INLINE) {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) return { node: make(found, depth), end: at + found[0].length };
  }
  return null;
}

/** A link, or its text where the address is none we follow. */
function link(address, children) {
  let url = null;
  try {
    url = new URL(address, document.baseURI);
  } catch {
    return el("span", {}, children);
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return el("span", {}, children);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}

// ---------------------------------------------------------------------------------------------------- elements

function elementOf(block) {
  switch (block.type) {
    case "heading":
      return el(`h${Math.min(block.level + 2, 6)}`, {}, inline(block.text)); // the page has levels 1 and 2 itself
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", {}, block.blocks.map(elementOf));
    case "code":
      return codeBlock(block.code, block.language);
    case "list":
      return el(block.ordered ? "ol" : "ul", block.ordered && block.start !== 1 ? { start: block.start } : {}, block.items.map(itemOf));
    case "table":
      return tableOf(block);
    default:
      return el("p", {}, inline(block.text));
  }
}

/** Within an item, a lone paragraph is no paragraph of its own. */
function itemOf(inside) {
  const lone = inside.filter((block) => block.type === "paragraph").length === 1;
  return el("li", {}, inside.map((block) => (lone && block.type === "paragraph" ? inline(block.text) : elementOf(block))).flat());
}

function tableOf({ head, align, rows }) {
  const cell = (tag) => (text, index) => el(tag, { class: `at-${align[index] ?? "start"}` }, inline(text ?? ""));
  const row = (values) => el("tr", {}, head.map((_, index) => cell("td")(values[index], index)));
  return el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Table" },
    el("table", {}, el("thead", {}, el("tr", {}, head.map(cell("th")))), el("tbody", {}, rows.map(row))));
}

/** Code with its language and a button that copies it. */
export function codeBlock(code, language) {
  const shown = el("code", {}, code);
  const copy = el("button", { type: "button", class: "copy", onclick: () => copyText(copy, shown.textContent) }, "Copy");
  return el("figure", { class: "code" },
    el("figcaption", {}, el("span", {}, language || "text"), copy),
    el("pre", { tabindex: "0" }, shown));
}

async function copyText(button, text) {
  button.textContent = await copied(text) ? "Copied" : "Not allowed";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

/** Shows a text that may grow in `root`. */
export class Markdown {
  #root;
  #blocks = [];
  #text = null;

  constructor(root) {
    this.#root = root;
  }

  update(text) {
    if (text === this.#text) return;
    this.#text = text;
    const now = blocksOf(text);
    let same = 0;
    while (same < now.length && this.#blocks[same]?.source === now[same].source && this.#blocks[same].type === now[same].type) same++;
    const [old, grown] = [this.#blocks[same], now[same]];
    if (old?.type === "code" && grown?.type === "code" && old.language === grown.language) {
      // Code that grows keeps its element: it may be scrolled, or selected.
      old.element.querySelector("code").textContent = grown.code;
      same++;
    }
    for (const block of this.#blocks.slice(same)) block.element.remove();
    for (let at = 0; at < now.length; at++) {
      if (at < same) now[at].element = this.#blocks[at].element;
      else this.#root.append((now[at].element = elementOf(now[at])));
    }
    this.#blocks = now;
  }
}
