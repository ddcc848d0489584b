"""Draws what plots.py measured; run by it in the environment that has matplotlib.

python draw.py CURVES.json      an SVG for each curve, beside the file
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]

mpl.use("svg")
# The same input gives the same file: text as text, no date, no random ids.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "blotter", "font.size": 10})

from matplotlib import pyplot as plt  # noqa: E402


def draw(name: str, curve: dict[str, Any], folder: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    widest = 1.0
    for label, points in curve["lines"].items():
        x, least, middle, most = zip(*points, strict=True)
        widest = max(widest, x[-1] / x[0])
        below = [m - one for m, one in zip(middle, least, strict=True)]
        above = [one - m for m, one in zip(middle, most, strict=True)]
        axes.errorbar(x, middle, yerr=[below, above], marker="o", capsize=3, label=label)
    if widest > 20:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set(title=curve["title"], xlabel=curve["x"], ylabel=curve["y"])
    axes.grid(visible=True, alpha=0.3)
    if len(curve["lines"]) > 1:
        axes.legend()
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    path = Path(sys.argv[1])
    for name, curve in json.loads(path.read_text()).items():
        draw(name, curve, path.parent)


if __name__ == "__main__":
    main()
