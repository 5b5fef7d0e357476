"""Diagnostics: lines for people and machines, and events that do not flood."""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_time_level_station_and_fields() -> None:
    stream = io.StringIO()
    logs.setup(station="st1", stream=stream)
    logs.get(camera="left").warning("camera_lost", path=object, error=None)
    (line,) = lines(stream)
    assert line["timestamp"].endswith("Z")
    assert line["event"] == "camera_lost"
    assert (line["level"], line["station"], line["camera"]) == ("warning", "st1", "left")
    assert line["path"] == "<class 'object'>"


def test_level_filters() -> None:
    stream = io.StringIO()
    logs.setup(level="warning", stream=stream)
    logs.get().info("quiet")
    logs.get().error("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_console_lines_are_for_people() -> None:
    stream = io.StringIO()
    logs.setup(fmt="console", station="st1", stream=stream)
    logs.get().info("started", fps=30)
    text = stream.getvalue()
    assert "started" in text
    assert "fps=30" in text
    assert "station=st1" in text
    assert "\x1b" not in text


def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as end, os.fdopen(writer, "w", encoding="utf-8") as stream:
        out = logs.setup(stream=stream)
        for n in range(300):
            logs.get().warning("flood", text="ä" * 3000, n=n)
        assert 0 < out.lost < 300  # a pipe holds 64 KiB
        os.set_blocking(reader, False)
        while end.read(1 << 20):
            pass
        before = out.lost
        logs.get().warning("there again")
        assert out.lost == before
        line = end.read(1 << 20).splitlines()[-1]
        assert json.loads(line)["event"] == "there again"


def test_an_exception_is_written_as_text() -> None:
    stream = io.StringIO()
    logs.setup(stream=stream)
    try:
        raise KeyError("spam")
    except KeyError:
        logs.get().exception("died")
    (line,) = lines(stream)
    assert "KeyError: 'spam'" in line["exception"]


def test_a_closed_stream_is_counted_and_not_raised() -> None:
    stream = io.StringIO()
    out = logs.setup(stream=stream, fmt="json")
    stream.close()
    logs.get().error("nobody hears")
    assert out.lost > 0


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.ns = 5

    def __call__(self) -> int:
        return self.ns


def test_hot_events_are_logged_once_a_second_with_their_count() -> None:
    stream = io.StringIO()
    logs.setup(stream=stream)
    clock = Clock()
    overrun = logs.RateLimited("overrun", clock=clock)
    for step in range(21):  # two seconds, ten a second
        clock.ns = 5 + step * logs.SECOND_NS // 10
        overrun.hit(frame_id=step)
    overrun.flush()
    overrun.flush()
    said = [(line["count"], line["total"], line["frame_id"]) for line in lines(stream)]
    assert said == [(1, 1, 0), (10, 11, 10), (10, 21, 20)]
    overrun.hit()
    overrun.flush()
    assert lines(stream)[3]["count"] == 1


@given(st.lists(st.integers(0, 3 * logs.SECOND_NS), max_size=50))
def test_no_hit_is_lost_and_no_second_has_two_lines(gaps: list[int]) -> None:
    stream = io.StringIO()
    logs.setup(stream=stream)
    clock = Clock()
    limited = logs.RateLimited("late", clock=clock, level="error")
    seconds = []
    for gap in gaps:
        clock.ns += gap
        before = stream.tell()
        limited.hit()
        if stream.tell() > before:
            seconds.append(clock.ns)
    limited.flush()
    assert sum(line["count"] for line in lines(stream)) == len(gaps) == limited.total
    assert all(b - a >= logs.SECOND_NS for a, b in itertools.pairwise(seconds))
