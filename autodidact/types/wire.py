"""Dataclasses as JSON and back: what the learner and the study process tell each other.

Reading is strict: what does not fit is refused in one line that names the field, as
`job.json: lessons.0.examples.3.kind: Field required`. NaN and Infinity go through as `json` writes
them; lists become tuples where the type says so.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from autodidact.errors import Misfit

T = TypeVar("T")


def to_json(value: object) -> str:
    """A dataclass, or a sequence of them, on one line."""
    return json.dumps(_plain(value))


def from_json(kind: type[T], text: str | bytes, where: str) -> T:
    """The way back. Raises Misfit; `where` is what its line calls the text."""
    try:
        found: T = _adapter(cast(Hashable, kind)).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        what = " ".join(first["msg"].split())
        raise Misfit(": ".join(part for part in (where, place, what) if part)) from error
    return found


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
