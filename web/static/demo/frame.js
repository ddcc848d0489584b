// Inside the frame that shows artifacts: takes markup from the page around it and shows it in a frame of its own, where
// no script runs. This frame has no origin; its policy, which the inner one inherits, allows no network.
"use strict";

let shown = null;

addEventListener("message", (event) => {
  if (event.source !== parent || typeof event.data?.markup !== "string") return;
  const next = document.createElement("iframe");
  next.setAttribute("sandbox", "");
  next.title = "Artifact";
  next.srcdoc = event.data.markup;
  // The old one stays until the new one is painted: no flicker while it grows.
  next.addEventListener("load", () => {
    for (const frame of document.querySelectorAll("iframe")) if (frame !== next && frame !== shown) frame.remove();
    shown?.remove();
    shown = next;
  });
  document.documentElement.append(next);
});

parent.postMessage({ ready: true }, "*");
