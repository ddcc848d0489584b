/**
 * Elements without markup: text only ever becomes text nodes.
 *
 * @module dom
 */

const SVG = "http://www.w3.org/2000/svg";

/** `el("button", {class: "x", onclick, "aria-label": "…"}, child, "text", null)`. Names in `on…` are listeners. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the page's own icons (`<symbol id="i-name">`). */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows an icon and is called `label`. */
export function iconButton(name, label, onclick, attributes = {}) {
  return el("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/** Makes the children of `parent` exactly `wanted`, in order, moving as few as need be. */
export function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.childNodes]) if (!keep.has(child)) child.remove();
  let at = parent.firstChild;
  for (const child of wanted) {
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
}

/** Sets text only where it differs: selections and assistive technology are not disturbed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Copies a text; whether that was allowed. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // refused, or no clipboard outside of a secure page
  }
}

export const $ = (id) => document.getElementById(id);

const narrow = matchMedia("(max-width: 48rem)");

/** Where the list or an artifact lies over the chat, the chat cannot be reached: not by finger, not by key. Call on change. */
export function coverChat() {
  const { classList } = document.body;
  document.querySelector("main").inert = narrow.matches && (classList.contains("with-list") || classList.contains("with-artifact"));
}
narrow.addEventListener("change", coverChat);
