"""Draws the curves that come in on standard input as JSON; run by __main__.py in the environment that has matplotlib.

python draw.py FOLDER      an SVG for each curve
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl  # type: ignore[import-not-found]

mpl.use("svg")
# The same input gives the same file: text as text, no date, no random ids.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "blotter", "font.size": 10})

from matplotlib import pyplot as plt  # noqa: E402


def main() -> None:
    for name, curve in json.load(sys.stdin).items():
        figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
        for label, points in curve["lines"].items():
            axes.plot(*zip(*points, strict=True), label=label)
        axes.set(
            title=curve["title"],
            xlabel="concurrent streams",
            ylabel=curve["y"],
            xscale="log",
            yscale="log",
        )
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        figure.savefig(Path(sys.argv[1]) / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
