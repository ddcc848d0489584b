/**
 * The pane beside the chat that shows an artifact: as it looks, or as it is written. Its markup is shown in a frame
 * without scripts, network and origin (`/demo/frame`).
 *
 * @module artifact
 */

import { isOpen } from "./chat.js";
import { $, coverChat, el, setText } from "./dom.js";

const SHOWABLE = new Set(["html", "svg"]);
/** ms; while it grows, it is painted at most this often. */
const PAINT_MS = 600;

const kindOf = (artifact) => {
  if (SHOWABLE.has(artifact.kind)) return artifact.kind;
  if (artifact.mediaType === "text/html") return "html";
  return artifact.mediaType === "image/svg+xml" ? "svg" : "text";
};

const markupOf = (artifact, content) =>
  kindOf(artifact) === "html"
    ? content
    : `<!doctype html><meta charset="utf-8"><style>body{margin:0;min-height:100vh;display:grid;place-items:center;background:#fff}svg{width:100%;height:auto;max-height:100vh}</style>${content}`;

export class ArtifactPane {
  #chat;
  #blotter;
  #id = null;
  #tab = "look";
  #number = null; // a version that was chosen; null: the latest
  #versions = new Map();
  #painted = null;
  #timer = null;
  #frame = null;
  #ready = false;
  #back = null;

  constructor(chat, blotter) {
    this.#chat = chat;
    this.#blotter = blotter;
    $("artifact-close").addEventListener("click", () => this.close());
    for (const tab of ["look", "source"]) {
      $(`artifact-${tab}-tab`).addEventListener("click", () => this.#choose(tab));
    }
    $("artifact-tabs").addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      this.#choose(this.#tab === "look" ? "source" : "look");
      $(`artifact-${this.#tab}-tab`).focus();
    });
    $("artifact-version").addEventListener("change", (event) => this.#chooseVersion(Number(event.target.value)));
    addEventListener("message", (event) => {
      if (event.source !== this.#frame?.contentWindow || event.data?.ready !== true) return;
      this.#ready = true;
      this.#painted = null;
      this.update();
    });
  }

  get open() {
    return this.#id !== null;
  }

  show(id) {
    this.#back = document.activeElement;
    this.#id = id;
    this.#number = null;
    this.#versions.clear();
    this.#painted = null;
    const artifact = this.#chat.artifact(id);
    this.#tab = artifact && kindOf(artifact) === "text" ? "source" : "look";
    document.body.classList.add("with-artifact");
    $("artifact").hidden = false;
    coverChat();
    if (!this.#frame) {
      this.#frame = el("iframe", { src: "/demo/frame", sandbox: "allow-scripts", title: "Artifact" });
      $("artifact-look").append(this.#frame);
    }
    this.update();
    $("artifact-close").focus({ preventScroll: true });
  }

  close() {
    this.#id = null;
    document.body.classList.remove("with-artifact");
    $("artifact").hidden = true;
    coverChat();
    // A frame that is gone keeps nothing of what it showed.
    this.#frame?.remove();
    this.#frame = null;
    this.#ready = false;
    this.#back?.focus?.({ preventScroll: true });
  }

  update() {
    if (this.#id === null) return;
    const artifact = this.#chat.artifact(this.#id);
    if (!artifact) {
      if (this.#chat.state === "open") return;
      return this.close();
    }
    const growing = isOpen(artifact);
    const content = (this.#number === null ? artifact.content : this.#versions.get(this.#number)) ?? "";
    setText($("artifact-title"), artifact.title ?? "Artifact");
    setText($("artifact-badge"), growing ? "typing" : artifact.stored ? "stored" : "buffered");
    $("artifact-badge").dataset.progress = $("artifact-badge").textContent;
    const text = kindOf(artifact) === "text";
    $("artifact-tabs").hidden = text;
    for (const tab of ["look", "source"]) {
      const chosen = tab === this.#tab;
      $(`artifact-${tab}-tab`).setAttribute("aria-selected", String(chosen));
      $(`artifact-${tab}-tab`).tabIndex = chosen ? 0 : -1;
      $(`artifact-${tab}`).hidden = !chosen;
    }
    this.#listVersions(artifact);
    setText($("artifact-code"), content);
    if (!text) this.#paint(markupOf(artifact, content), growing);
  }

  #paint(markup, growing) {
    if (!this.#ready || markup === this.#painted || this.#timer !== null) return;
    this.#painted = markup;
    this.#frame.contentWindow.postMessage({ markup }, "*");
    if (growing) {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.update();
      }, PAINT_MS);
    }
  }

  #choose(tab) {
    this.#tab = tab;
    this.update();
  }

  #listVersions(artifact) {
    const select = $("artifact-version");
    const count = artifact.versionNumber ?? 0;
    select.hidden = count < 2;
    if (select.options.length === count) return;
    select.replaceChildren(...Array.from({ length: count }, (_, index) => el("option", { value: String(index + 1) }, `Version ${index + 1}`)));
    select.value = String(count);
  }

  async #chooseVersion(number) {
    const latest = this.#chat.artifact(this.#id)?.versionNumber;
    if (number !== latest && !this.#versions.has(number)) {
      const page = await this.#blotter.artifactVersions(this.#chat.id, this.#id, { after: number - 1, limit: 1 }).catch(() => null);
      const found = page?.versions.find((one) => one.number === number);
      if (!found) return;
      this.#versions.set(number, found.content);
    }
    this.#number = number === latest ? null : number;
    this.update();
  }
}
