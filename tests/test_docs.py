"""The documentation names what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import inspect as mi

from efficientad_stream import cli
from efficientad_stream.config import Config
from efficientad_stream.core import errors

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *ROOT.glob("efficientad_stream/assets/*.md"),
)
PAGE = (ROOT / "docs" / "configuration.md").read_text()
ROWS = re.findall(r"^\| `([a-z0-9_.]+)` \|", PAGE, re.MULTILINE)


def keys(info: mi.Type, prefix: str = "") -> Iterator[str]:
    if isinstance(info, mi.UnionType):
        for option in info.types:
            yield from keys(option, prefix)
    elif isinstance(info, mi.StructType):
        if info.tag_field:
            yield prefix + info.tag_field
        for field in info.fields:
            yield from keys(field.type, f"{prefix}{field.encode_name}.")
    elif not isinstance(info, mi.NoneType):
        yield prefix.rstrip(".")


def test_every_key_is_explained_and_no_other() -> None:
    assert set(keys(mi.type_info(Config))) == set(ROWS)


def test_every_exit_code_is_explained() -> None:
    codes = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.EfficientADError)
    }
    codes |= {0, cli.EXIT_INTERNAL, 130, 141}
    table = PAGE.split("## Exit codes")[1]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == codes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [n for n in links if "://" not in n and not (page.parent / n).exists()]
    assert not missing
