"""Plain values into msgspec structs, with words for people when they do not fit.

msgspec decides what is valid; this module finds unknown and missing keys first, in order to name
the nearest known one, and says in which line the problem stands.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as mi

from efficientad_stream.strict_yaml import Path

T = TypeVar("T")

PATH_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
OWN_KEY = re.compile(r"^([a-z_][a-z0-9_]*): (.*)$", re.DOTALL)
"""A struct's own check may blame one of its keys: ValueError("end_frame: ...")."""


class SchemaError(Exception):
    """What is wrong with a value, and where in the document."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(problem)
        self.path = path
        self.problem = problem


def convert(value: Any, target: type[T]) -> T:
    """``value`` as a ``target``.

    Raises:
        SchemaError: a key is unknown or missing, or a value is of the wrong type or out of range.
    """
    leaves: dict[Path, mi.Type] = {}
    _walk(mi.type_info(target), value, (), leaves)
    try:
        return msgspec.convert(value, target)
    except msgspec.ValidationError as error:
        raise _translate(error, value, leaves) from None


def _walk(info: mi.Type, value: Any, path: Path, leaves: dict[Path, mi.Type]) -> None:
    """Check the keys of ``value`` against ``info``, and note the type of every leaf."""
    leaves[path] = info
    if isinstance(info, mi.UnionType):
        structs = [t for t in info.types if isinstance(t, mi.StructType)]
        if structs and value is not None:
            _walk(_choose(structs, value, path), value, path, leaves)
    elif isinstance(info, mi.StructType):
        _walk_struct(info, _mapping(value, path), path, leaves)
    elif isinstance(info, mi.ListType | mi.VarTupleType) and isinstance(value, list):
        for i, item in enumerate(value):
            _walk(info.item_type, item, (*path, i), leaves)


def _walk_struct(
    info: mi.StructType, value: Mapping[str, Any], path: Path, leaves: dict[Path, mi.Type]
) -> None:
    fields = {f.encode_name: f for f in info.fields}
    known = [info.tag_field, *fields] if info.tag_field else list(fields)
    for key in value:
        if key not in known:
            raise SchemaError((*path, key), f"unknown key; {nearest(key, known)}")
    for name, described in fields.items():
        if name in value:
            _walk(described.type, value[name], (*path, name), leaves)
        elif described.required:
            raise SchemaError((*path, name), f"missing; expected {describe(described.type)}")


def _choose(structs: list[mi.StructType], value: Any, path: Path) -> mi.StructType:
    """The struct of a tagged union that ``value`` names."""
    tag_field = structs[0].tag_field
    if len(structs) == 1 or tag_field is None:
        return structs[0]
    tags = {str(s.tag): s for s in structs}
    given = _mapping(value, path).get(tag_field)
    if given is None:
        raise SchemaError((*path, tag_field), f"missing; expected one of {', '.join(tags)}")
    if not isinstance(given, str) or given not in tags:
        problem = f"unknown {path[-1] if path else ''} {tag_field} {given!r}"
        hint = nearest(str(given), tags)
        raise SchemaError((*path, tag_field), f"{problem}; {hint}")
    return tags[given]


def _mapping(value: Any, path: Path) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise SchemaError(path, f"expected keys and values, got {_show(value)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what was meant: the nearest of ``known``, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def describe(info: mi.Type) -> str:
    """What ``info`` accepts, in words."""
    if isinstance(info, mi.IntType):
        return "a whole number" + _range(info)
    if isinstance(info, mi.FloatType):
        return "a number" + _range(info)
    if isinstance(info, mi.StrType):
        return "text" + _text_bounds(info)
    if isinstance(info, mi.LiteralType):
        return "one of " + ", ".join(map(str, info.values))
    if isinstance(info, mi.UnionType):
        return " or ".join(dict.fromkeys(describe(t) for t in info.types))
    simple: dict[type[mi.Type], str] = {
        mi.BoolType: "true or false",
        mi.NoneType: "nothing",
        mi.StructType: "keys and values",
        mi.DictType: "keys and values",
    }
    return simple.get(type(info), "a list")


def _range(info: mi.IntType | mi.FloatType) -> str:
    low, high = info.ge, info.le
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of {low:g} or more"
    return "" if high is None else f" up to {high:g}"


def _text_bounds(info: mi.StrType) -> str:
    if info.pattern is not None:
        return f" like {info.pattern}"
    if info.min_length is not None and info.min_length == info.max_length:
        return f" of {info.min_length} characters"
    return " that is not empty" if info.min_length else ""


def _translate(
    error: msgspec.ValidationError, value: Any, leaves: dict[Path, mi.Type]
) -> SchemaError:
    """The message of msgspec as ours: it ends in `` - at `$.source.fps` ``."""
    problem, _, where = str(error).removesuffix("`").rpartition(" - at `$")
    if not problem:
        problem, where = where, ""
    path: Path = tuple(m[1] or int(m[2]) for m in PATH_PART.finditer(where) if m[2] != "...")
    if isinstance(error.__cause__, ValueError):
        own = OWN_KEY.match(problem)
        return SchemaError((*path, own[1]), own[2]) if own else SchemaError(path, problem)
    given = value
    for key in path:
        given = given[key]
    if path not in leaves:
        return SchemaError(path, problem)
    return SchemaError(path, f"expected {describe(leaves[path])}, got {_show(given)}")


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "keys and values" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
