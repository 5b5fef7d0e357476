"""Decisions and tallies in words, for people, and as JSON, for programs. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from efficientad_stream.core.messages import NO_DEADLINE, Decision
from efficientad_stream.core.tally import Tally, is_escape, is_false_reject
from efficientad_stream.core.types import Verdict

COLOURS = {Verdict.PASS: "32", Verdict.FAIL: "31;1", Verdict.INVALID: "33;1"}
"""Green, red, yellow (ECMA-48 select graphic rendition)."""


def decision_line(decision: Decision, colour: bool = False) -> str:
    """One line: seq, verdict, part, score and threshold or reason, latency, truth."""
    header, body = decision.header, decision.body
    verdict = f"{header.verdict.name:<7}"
    if colour:
        verdict = f"\x1b[{COLOURS[header.verdict]}m{verdict}\x1b[0m"
    what = body.reason or f"{_number(body.score)} / {_number(body.threshold)}"
    part = body.part_id if body.part_id is not None else f"frame {body.frame_id}"
    line = f"{header.seq:>8}  {verdict}  {printable(part):<24}  {printable(what):<17}"
    return f"{line}  {body.latency_us / 1000:8.1f} ms{_truth(decision)}"


def decision_json(decision: Decision) -> str:
    """One JSON object with all fields of header and body; no deadline is null."""
    header, body = decision.header, decision.body
    fields: dict[str, Any] = {
        "seq": header.seq,
        "verdict": header.verdict.name,
        "epoch": header.epoch,
        "trigger": header.trigger,
        "deadline_us": None if header.deadline_us == NO_DEADLINE else header.deadline_us,
        "published_us": header.published_us,
        **msgspec.to_builtins(body),
    }
    return msgspec.json.encode(fields).decode()


def status_line(tally: Tally, state: str, now: float) -> str:
    """The state of things in one line of less than 120 characters."""
    return f"[{printable(state)}] {_counts(tally)}  {tally.rate(now):.1f}/s{_latency(tally)}"


def summary(tally: Tally, seconds: float) -> str:
    """What was seen, in a few lines."""
    rate = tally.parts / seconds if seconds > 0 else 0.0
    lines = [f"{_counts(tally)}  in {seconds:.1f} s ({rate:.1f}/s){_latency(tally)}"]
    if tally.reasons:
        reasons = (f"{printable(name)} {count}" for name, count in tally.reasons.most_common())
        lines.append(f"INVALID because of: {', '.join(reasons)}")
    if tally.good or tally.defective:
        lines.append(
            f"against the truth: {tally.escapes} escapes of {tally.defective} defective, "
            f"{tally.false_rejects} false rejects of {tally.good} good"
        )
    if tally.lost:
        lines.append(f"{tally.lost} decisions were no longer kept by the station")
    return "\n".join(lines)


def printable(text: str) -> str:
    """``text`` without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _counts(tally: Tally) -> str:
    counts = "  ".join(f"{v.name} {tally.verdicts[v]}" for v in COLOURS)
    return f"{tally.parts} parts  {counts}"


def _latency(tally: Tally) -> str:
    p50, p99 = tally.latency_us(50), tally.latency_us(99)
    if p50 is None or p99 is None:
        return ""
    return f"  latency p50 {p50 / 1000:.1f} ms  p99 {p99 / 1000:.1f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _truth(decision: Decision) -> str:
    truth = decision.body.truth
    if truth is None:
        return ""
    mistake = "  ESCAPE" if is_escape(decision) else ""
    mistake = "  FALSE REJECT" if is_false_reject(decision) else mistake
    return f"  {printable(truth)}{mistake}"
