"""YAML, read strictly: plain values, and the line that each of them stands on.

The scalars are those of YAML 1.2 (core schema), so that ``off`` and ``no`` are words and ``1e3`` is
a number. Duplicate keys, aliases, tags, and numbers that are not finite are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Key = str | int
Path = tuple[Key, ...]
"""Where in a document: keys and list positions from the root."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
INT_LIMIT = 1 << 63

TAG = "tag:yaml.org,2002:"
RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)


class YamlError(Exception):
    """What is wrong with a document, and where."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass
class Document:
    """A parsed document: its plain value, and the line of each key (1 is the first)."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of ``path``, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """Composes nodes with the scalars of YAML 1.2; aliases are refused where they stand."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's name

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise YamlError(mark.line + 1, "aliases (*name) are not supported; write it out")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what ``_Loader`` would take for something else."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's name


for _name, _pattern, _first in RESOLVERS:
    for _class in (_Loader, _Dumper):
        _starts = [c if c != "\0" else "" for c in _first]
        _class.add_implicit_resolver(TAG + _name, re.compile(_pattern), _starts)


def parse(data: bytes) -> Document:
    """The document in ``data``.

    Raises:
        YamlError: not UTF-8, not YAML, empty, too large or too deep, or refused as said above.
    """
    node = _compose(_text(data))
    if node is None:
        raise YamlError(1, "the file is empty")
    document = Document(None)
    document.value = _plain(node, (), document.lines)
    return document


def parse_value(text: str) -> Any:
    """A single value as it would stand behind a key.

    Raises:
        YamlError: as ``parse``; an empty text is null.
    """
    node = _compose(text)
    return None if node is None else _plain(node, (), {})


def dump(value: Any) -> str:
    """``value`` as YAML that ``parse`` reads back as the same."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True
    )
    return text


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise YamlError(1, f"larger than {MAX_BYTES >> 20} MiB; this is no configuration")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError(line, f"not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def _compose(text: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"not YAML: {error.problem or error.context}"
        raise YamlError(mark.line + 1 if mark else 1, problem) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"not YAML: character {chr(error.character)!r} is not allowed"
        raise YamlError(line, problem) from None
    except RecursionError:
        raise YamlError(1, "nested too deeply") from None
    except (ValueError, OverflowError, AttributeError, IndexError) as error:
        # PyYAML lets these through, e.g. for "\UFFFFFFFF" and for a version of 5000 digits
        line = loader.line + 1 if loader is not None else 1
        raise YamlError(line, f"not YAML: {error}") from None


def _plain(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    """Plain value of ``node``; notes the lines of what is inside."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(path) > MAX_DEPTH:
        raise YamlError(line, "nested too deeply")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.tag.removeprefix(TAG), node.value, line)
    if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
        return {k: _plain(v, (*path, k), lines) for k, v in _items(node, path, lines)}
    if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
        return [_plain(v, (*path, i), lines) for i, v in enumerate(node.value)]
    raise YamlError(line, f"the tag {node.tag.removeprefix(TAG)} is not supported")


def _items(
    node: yaml.MappingNode, path: Path, lines: dict[Path, int]
) -> Iterator[tuple[str, yaml.Node]]:
    """Keys and nodes of a mapping; a key is text, once."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(line, "a key must be a word")
        name = _scalar("str", key.value, line)
        here = (*path, name)
        if name in seen:
            raise YamlError(
                line, f"{'.'.join(map(str, here))}: given twice, first in line {seen[name]}"
            )
        seen[name] = line
        lines[here] = line
        yield name, value


def _scalar(kind: str, text: str, line: int) -> Any:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return _integer(text, line)
    if kind == "float":
        return _finite(text, line)
    if kind != "str":
        raise YamlError(line, f"the tag {kind} is not supported")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise YamlError(line, "half a surrogate pair is not text")
    if "\0" in text:
        raise YamlError(line, "a zero character is not text")
    return text


def _integer(text: str, line: int) -> int:
    try:
        value = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    except ValueError:
        raise YamlError(line, f"{text[:40]!r} is not a whole number") from None
    if not -INT_LIMIT <= value < INT_LIMIT:
        raise YamlError(line, f"{text[:40]} does not fit into 64 bits")
    return value


def _finite(text: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:  # .nan and .inf, which Python spells differently
        value = math.nan
    if not math.isfinite(value):
        raise YamlError(line, f"{text[:40]} is not a finite number")
    return value
