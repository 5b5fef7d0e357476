from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from station_kit import inspection

from efficientad_stream.core import text, wire
from efficientad_stream.core.messages import Decision
from efficientad_stream.core.tally import Tally
from efficientad_stream.core.types import Verdict


def decision(verdict: Verdict, truth: str | None = None, latency_us: int = 5000) -> Decision:
    made = wire.decode_decision(
        *wire.encode_decision(inspection(1, verdict, truth), "st1", 1, 0, None)
    )
    fields = {name: getattr(made.body, name) for name in made.body.__struct_fields__}
    return Decision(made.header, type(made.body)(**fields | {"latency_us": latency_us}))


@pytest.mark.parametrize(
    ("verdict", "truth", "escapes", "false_rejects"),
    [
        (Verdict.PASS, "good", 0, 0),
        (Verdict.PASS, "crack", 1, 0),
        (Verdict.PASS, None, 0, 0),
        (Verdict.FAIL, "good", 0, 1),
        (Verdict.FAIL, "crack", 0, 0),
        (Verdict.INVALID, "good", 0, 0),
        (Verdict.INVALID, "crack", 0, 0),
    ],
)
def test_what_counts_as_a_mistake(
    verdict: Verdict, truth: str | None, escapes: int, false_rejects: int
) -> None:
    tally = Tally()
    tally.add(decision(verdict, truth), 0.0)
    assert (tally.escapes, tally.false_rejects) == (escapes, false_rejects)
    assert tally.good + tally.defective == (truth is not None)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    tally = Tally()
    assert tally.rate(0.0) == 0.0
    for i in range(101):
        tally.add(decision(Verdict.PASS), i / 10)
    assert tally.rate(10.0) == pytest.approx(10.0)
    assert tally.rate(12.5) == pytest.approx(25 / 5.0, rel=0.1)
    assert tally.rate(60.0) == 0.0
    assert tally.parts == 101


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_percentiles_are_latencies_that_occurred_and_ordered(latencies: list[int]) -> None:
    tally = Tally()
    for latency in latencies:
        tally.add(decision(Verdict.PASS, latency_us=latency), 0.0)
    p0, p50, p99, p100 = (tally.latency_us(p) for p in (0, 50, 99, 100))
    assert {p0, p50, p99, p100} <= set(latencies)
    assert (p0, p100) == (min(latencies), max(latencies))
    assert min(latencies) <= (p50 or 0) <= (p99 or 0) <= max(latencies)


def test_nothing_that_a_terminal_would_obey_is_printed() -> None:
    assert text.printable("a\x1b[2Jb\n\u202ec") == "a?[2Jb??c"
    made = decision(Verdict.PASS, truth="cr\x1back\n")
    line = text.decision_line(made)
    assert "\x1b" not in line
    assert "\n" not in line
    assert text.summary(Tally(), 0.0).startswith("0 parts  PASS 0")
