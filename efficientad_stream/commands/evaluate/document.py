"""Tables and sentences, for a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first of each row names it, all others are figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Document:
    """A title, and below it tables and sentences in order."""

    title: str
    blocks: list[Table | str] = field(default_factory=list)


def as_text(document: Document) -> str:
    """For a terminal."""
    parts = [document.title]
    parts.extend(b if isinstance(b, str) else "\n".join(_text_rows(b)) for b in document.blocks)
    return "\n\n".join(parts)


def _text_rows(table: Table) -> list[str]:
    rows = [(table.title, *table.header[1:]), *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[0] = max(widths[0], 24)
    lines = []
    for row in rows:
        cells = zip(row[1:], widths[1:], strict=True)
        figures = "".join(cell.rjust(wide + 2) for cell, wide in cells)
        lines.append((row[0].ljust(widths[0]) + figures).rstrip())
    return lines


def as_markdown(documents: Sequence[Document]) -> str:
    """For a report; one section a document."""
    return "\n".join(line for document in documents for line in _markdown_lines(document))


def _markdown_lines(document: Document) -> list[str]:
    lines = [f"## {_escaped(document.title)}", ""]
    for block in document.blocks:
        if isinstance(block, str):
            lines += [_escaped(line) + "  " for line in block.splitlines()]
        else:
            lines += _markdown_table(block)
        lines.append("")
    return lines


def _markdown_table(table: Table) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(_escaped(cell) for cell in cells)} |"

    rule = "|---" + "|---:" * (len(table.header) - 1) + "|"
    return [row((table.title, *table.header[1:])), rule, *map(row, table.rows)]


def _escaped(text: str) -> str:
    """Names of files and folders must not become markup or split a cell."""
    text = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text
