"""docs/contract.md is what others build on: it must say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from efficientad_stream.core import consumers, dialogue, messages, wire
from efficientad_stream.core.types import Reason

TEXT = (Path(__file__).parent.parent / "docs" / "contract.md").read_text()


def test_the_header_table_is_the_struct() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d) \| u(\d+) \| (\w+) \|", TEXT, re.MULTILINE)
    code = {"8": "B", "32": "I", "64": "Q"}
    assert "<" + "".join(code[bits] for _, _, bits, _ in rows) == wire._HEADER.format
    assert [int(offset) for offset, *_ in rows] == [
        sum(int(size) for _, size, *_ in rows[:i]) for i in range(len(rows))
    ]
    assert [name for *_, name in rows][3:] == list(messages.Header._fields[1:])


@pytest.mark.parametrize(
    "kind",
    [
        messages.DecisionBody, messages.HeartbeatBody, messages.HeatmapBody, dialogue.Hello,
        dialogue.Get, dialogue.Ack, dialogue.Welcome, dialogue.End, dialogue.Gap, dialogue.Acked,
        dialogue.Error,
    ],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_every_field_is_described(kind: type) -> None:
    missing = [
        name
        for name in kind.__struct_encode_fields__  # type: ignore[attr-defined]
        if not re.search(rf"\b{name}\b", TEXT)
    ]
    assert not missing


def test_reasons_and_limits_are_those_of_the_code() -> None:
    assert not [reason.value for reason in Reason if f"`{reason.value}`" not in TEXT]
    assert f"at most {dialogue.MAX_GET})" in TEXT
    assert f"at most {messages.PART_ID_CHARS} characters" in TEXT
    assert f"{messages.NO_DEADLINE}: there is no deadline" in TEXT
    assert f"at most {messages.MAX_BODY // 1024} KB" in TEXT
    assert f"more than {dialogue.MAX_CONTROL_BYTES // 1024} KB" in TEXT
    assert f"At most {consumers.MAX_CONSUMERS} consumers" in TEXT
    assert f"heard within {consumers.LIVE_NS // 10**9} s" in TEXT
