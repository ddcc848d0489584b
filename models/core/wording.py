"""How a fault in what was given is said, and how things are counted: the same words wherever they are said."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

#: pydantic's kind of fault → our words, filled in from its context. They never repeat what was given.
_FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "is needed",
        "extra_forbidden": "is no field that can be given here",
        "string_type": "must be a text",
        "string_too_short": "must not be empty",
        "string_too_long": "must have at most {max_length} characters",
        "string_pattern_mismatch": "must have only characters of A-Z a-z 0-9 _ . ~ : @ -",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a whole number, and not that large",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be 0 or 1",
        "greater_than": "must be greater than {gt:,.16g}",
        "greater_than_equal": "must be at least {ge:,.16g}",
        "less_than": "must be less than {lt:,.16g}",
        "less_than_equal": "must be at most {le:,.16g}",
        "literal_error": "must be {expected}",
        "list_type": "must be a list",
        "too_long": "must have at most {max_length:,} entries",
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "model_attributes_type": "must be an object",
    }
)


def fault(kind: str, context: Mapping[str, Any]) -> str:
    """What is wrong with a value, as the rest of a sentence that begins with its name."""
    if kind == "value_error":
        return str(context["error"])
    return _FAULTS.get(kind, "is not what is expected here").format_map(context)


def counted(number: int, thing: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
