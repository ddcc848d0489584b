"""One row of the API: what it is called, what it takes and may answer, and the function that does it.

The table in `web.routes` is made of these. From it come the routes, the checks before a view, and the OpenAPI document;
so none of the three can forget what the others know. All that can be worked out once is worked out when the
application starts: a request meets closures, no schemas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from flask import Request, Response
from pydantic import BaseModel

from models.settings import Settings
from web.problems import invalid

Parsed: TypeAlias = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Query:
    """One query parameter. ``minimum`` and ``maximum``: of an integer; ``pattern``: of a text."""

    name: str
    type: Literal["integer", "boolean", "text"]
    description: str
    default: Parsed = None
    minimum: int = 0
    maximum: int = 2**53 - 1
    pattern: str = r"[!-~]{1,4096}"
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Parsed:
        """The value of ``text``; raises Problem (422, naming the parameter)."""
        if self.type == "integer":
            if re.fullmatch(r"[0-9]{1,16}", text, re.ASCII) and self.minimum <= int(text) <= self.maximum:
                return int(text)
            raise invalid(self.name, f"Must be an integer from {self.minimum} to {self.maximum}.")
        if self.type == "boolean":
            if text in ("true", "false"):
                return text == "true"
            raise invalid(self.name, "Must be true or false.")
        if self.choices:
            if text in self.choices:
                return text
            raise invalid(self.name, f"Must be {' or '.join(self.choices)}.")
        if re.fullmatch(self.pattern, text):
            return text
        raise invalid(self.name, "Must be a value that an answer gave.")

    def schema(self) -> dict[str, Any]:
        """JSON schema of the parameter."""
        if self.type == "integer":
            schema: dict[str, Any] = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        elif self.type == "boolean":
            schema = {"type": "boolean"}
        else:
            allowed = {"enum": list(self.choices)} if self.choices else {"pattern": f"^(?:{self.pattern})$"}
            schema = {"type": "string", **allowed}
        return schema if self.default is None else {**schema, "default": self.default}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation may answer with one status: a model, another media type, or both; and headers worth naming."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path. ``view`` takes the Call and the path's ids; operations without auth take nothing else."""

    id: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    summary: str
    view: Callable[..., Response]
    tag: str
    answers: Mapping[int, Answer]
    problems: tuple[str, ...] = ()
    body: type[BaseModel] | None = None
    query: tuple[Query, ...] = ()
    auth: Literal["owner", "operator", "none"] = "owner"
    description: str = ""
    #: Names under which clients know this call.
    methods: tuple[str, ...] = ()
    prefer: bool = False
    #: Whether the view may run on the event loop: all that may block in it goes aside (models/core/strands.py).
    strand: bool = False
    max_bytes: Callable[[Settings], int] = field(
        default=lambda settings: settings.max_item_bytes + BODY_SLACK_BYTES
    )

    @property
    def names(self) -> Mapping[str, str]:
        """The view's argument -> the path's parameter: the first id is the conversation's, the second the item's."""
        parameters = re.findall(r"{(\w+)}", self.path)
        arguments = ("conversation_id", "item_id") if self.auth != "none" else parameters
        return dict(zip(arguments, parameters, strict=False))

    @property
    def rule(self) -> str:
        """The path as Flask writes it."""
        rule = self.path
        for argument, parameter in self.names.items():
            rule = rule.replace(f"{{{parameter}}}", f"<{argument}>")
        return rule


#: A body may be larger than its item: names, quotes, escapes.
BODY_SLACK_BYTES = 64 * 1024


def query_reader(parameters: tuple[Query, ...]) -> Callable[[Request], Mapping[str, Parsed]]:
    """A function from a request to its parameters by name, defaults filled in.

    Unknown and repeated parameters are refused (422): a mistyped `limt=5` should not look as if it worked.
    """
    known = {parameter.name: parameter for parameter in parameters}
    defaults: Mapping[str, Parsed] = {parameter.name: parameter.default for parameter in parameters}

    def read(request: Request) -> Mapping[str, Parsed]:
        if not request.query_string:
            return defaults
        values = dict(defaults)
        for name, texts in request.args.lists():
            if name not in known:
                raise invalid(name, "Unknown parameter.")
            if len(texts) != 1:
                raise invalid(name, "Given more than once.")
            values[name] = known[name].parse(texts[0])
        return values

    return read
