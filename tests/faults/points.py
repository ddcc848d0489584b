"""Every numbered step of the pipeline, as its modules' docstrings list them: what tests kill processes at."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

PIPELINE = Path(__file__).parents[2] / "models" / "pipeline"
_LISTED = re.compile(r"^    ([a-z]+\.(?:\d+|bury)) +(\S.*)$", re.MULTILINE)


@lru_cache(maxsize=1)
def documented() -> dict[str, str]:
    """Step -> what its line says, in the order of modules and lines."""
    found: dict[str, str] = {}
    for path in sorted(PIPELINE.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
        for step, text in _LISTED.findall(docstring):
            assert step not in found, f"{step} is documented twice"
            found[step] = " ".join(text.split())
    return found


@lru_cache(maxsize=1)
def hooked() -> dict[str, list[str]]:
    """Step -> the places that call `reach` with it."""
    found: dict[str, list[str]] = {}
    for path in sorted(PIPELINE.parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach":
                (step,) = node.args
                assert isinstance(step, ast.Constant), (
                    f"{path.name}:{node.lineno}: a step is named by a constant"
                )
                found.setdefault(step.value, []).append(f"{path.name}:{node.lineno}")
    return found
