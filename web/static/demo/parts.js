/**
 * What a reply is made of, each part shown in its own way: text, a tool call, an artifact's card, reasoning.
 *
 * A view is made once for a part and then updated: what is open stays open, what is selected stays selected.
 *
 * @module parts
 */

import { el, icon, setText } from "./dom.js";
import { Markdown } from "./markdown.js";

const JSON_MOST = 20_000;

const shownJson = (value) => {
  const text = JSON.stringify(value, null, 2) ?? "";
  return text.length > JSON_MOST ? `${text.slice(0, JSON_MOST)}\n…` : text;
};

class TextPart {
  constructor() {
    this.element = el("div", { class: "text" });
    this.markdown = new Markdown(this.element);
  }

  update(part) {
    this.markdown.update(part.text ?? "");
  }
}

class ReasoningPart {
  constructor() {
    this.text = el("div", { class: "text" });
    this.markdown = new Markdown(this.text);
    this.element = el("details", { class: "reasoning" }, el("summary", {}, "Thinking"), this.text);
  }

  update(part) {
    this.markdown.update(part.text ?? "");
  }
}

const TOOL_STATES = {
  "input-streaming": ["working", "writing its input …"],
  "input-available": ["working", "running …"],
  "approval-requested": ["working", "waits for approval"],
  "approval-responded": ["working", "running …"],
  "output-available": ["done", "done"],
  "output-error": ["failed", "failed"],
  "output-denied": ["failed", "denied"],
};

/** A tool call: its name, how far it is, what it was given and what it returned. */
class ToolPart {
  constructor() {
    this.name = el("span", { class: "name" });
    this.state = el("span", { class: "state" });
    this.input = el("pre", { tabindex: "0" });
    this.output = el("pre", { tabindex: "0" });
    this.outputBox = el("div", { hidden: true }, el("h4", {}, "Output"), this.output);
    this.element = el("details", { class: "card tool" },
      el("summary", {}, icon("tool"), this.name, this.state),
      el("div", { class: "inside" }, el("h4", {}, "Input"), this.input, this.outputBox));
  }

  update(part, { live }) {
    const [look, words] = TOOL_STATES[part.state] ?? ["working", part.state ?? ""];
    setText(this.name, part.toolName ?? part.type.replace(/^tool-/, ""));
    setText(this.state, look === "working" && !live ? "never finished" : words);
    this.element.dataset.look = look === "working" && !live ? "failed" : look;
    setText(this.input, part.input === undefined ? "" : shownJson(part.input));
    const output = part.errorText ?? (part.output === undefined ? null : shownJson(part.output));
    this.outputBox.hidden = output === null;
    setText(this.output, output ?? "");
  }
}

/** Where an artifact belongs: opens it beside the chat. */
class ArtifactPart {
  constructor({ openArtifact }) {
    this.title = el("span", { class: "name" });
    this.about = el("span", { class: "state" });
    this.element = el("button", { type: "button", class: "card artifact", onclick: () => openArtifact(this.id) }, icon("artifact"), this.title, this.about);
  }

  update(part, { artifact, live }) {
    this.id = part.data?.artifactId;
    const found = artifact(this.id);
    setText(this.title, found?.title ?? "Artifact");
    const growing = live && found?.status === "streaming";
    this.element.dataset.look = growing ? "working" : "done";
    const size = (found?.content ?? "").length;
    setText(this.about, `${found?.language ?? found?.kind ?? ""} · ${growing ? `${size} characters …` : "open"}`);
  }
}

/** Anything else is shown as what it is. */
class OtherPart {
  constructor() {
    this.pre = el("pre", { tabindex: "0" });
    this.element = el("details", { class: "card" }, el("summary", {}, el("span", { class: "name" })), el("div", { class: "inside" }, this.pre));
  }

  update(part) {
    setText(this.element.querySelector(".name"), part.type);
    setText(this.pre, shownJson(part));
  }
}

const kindOf = (part) => {
  if (part.type === "text") return TextPart;
  if (part.type === "reasoning") return ReasoningPart;
  if (part.type === "dynamic-tool" || part.type.startsWith("tool-")) return ToolPart;
  if (part.type === "data-artifact") return ArtifactPart;
  return part.type === "step-start" ? null : OtherPart;
};

/** The parts of one message, in order. */
export class Parts {
  #views = [];
  #context;

  /** `context`: `openArtifact(id)`, `artifact(id)`. */
  constructor(context) {
    this.#context = context;
    this.element = el("div", { class: "parts" });
  }

  /** `live`: the message is being written. */
  update(message, live) {
    // Artifacts that no part points to come last: other writers link them by id alone.
    const pointed = new Set((message.parts ?? []).map((part) => part.data?.artifactId));
    const linked = (message.artifactIds ?? []).filter((id) => !pointed.has(id));
    const own = message.parts?.length ? message.parts : [{ type: "text", text: message.content ?? "" }];
    const parts = [...own, ...linked.map((artifactId) => ({ type: "data-artifact", data: { artifactId } }))];
    parts.forEach((part, index) => {
      const Kind = kindOf(part);
      let view = this.#views[index];
      if (view === undefined || view.Kind !== Kind) {
        const made = Kind === null ? null : new Kind(this.#context);
        if (view?.made) view.made.element.replaceWith(made?.element ?? "");
        else if (made) this.element.append(made.element);
        this.#views[index] = view = { Kind, made };
      }
      view.made?.update(part, { live, artifact: this.#context.artifact });
    });
    for (const view of this.#views.splice(parts.length)) view.made?.element.remove();
  }
}
