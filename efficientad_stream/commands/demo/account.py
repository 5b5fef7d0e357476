"""What the verdicts of a demo amount to, against the truth that the simulator knows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import zip_longest

import msgspec

from efficientad_stream.core.messages import DECISION, NO_DEADLINE, Decision, DecisionBody, Header
from efficientad_stream.core.tally import Tally, is_escape, is_false_reject
from efficientad_stream.core.types import GOOD, Verdict

NAMED = 8
"""How many parts a line names before it says "and so many more"."""

KEPT_UP = 0.9
"""Below this share of the line's rate, parts had to wait for each other."""


def read(line: str) -> Decision:
    """A line of ``watch --json`` as the decision that it was printed from.

    Raises:
        ValueError: it is not such a line.
    """
    try:
        fields = msgspec.json.decode(line, type=dict)
        header = Header(
            type=DECISION,
            verdict=Verdict[fields["verdict"]],
            seq=fields["seq"],
            epoch=fields["epoch"],
            trigger=fields["trigger"],
            deadline_us=NO_DEADLINE if fields["deadline_us"] is None else fields["deadline_us"],
            published_us=fields["published_us"],
        )
        return Decision(header, msgspec.convert(fields, DecisionBody))
    except (msgspec.MsgspecError, KeyError) as error:
        raise ValueError(f"not a decision of watch --json: {line[:80]!r} ({error})") from error


def index(decision: Decision) -> int:
    """Number of the simulated part, from 0: the line counts its frames from 1."""
    return decision.body.frame_id - 1


def problems(decisions: Sequence[Decision], parts: int) -> list[str]:
    """How ``decisions`` break the promise: one verdict for each of ``parts``, seq from 1 up."""
    found = []
    if len(decisions) != parts:
        found.append(f"{parts} parts, {len(decisions)} verdicts")
    times = Counter(index(decision) for decision in decisions)
    silent = sorted(set(range(parts)) - times.keys())
    if silent:
        found.append(f"no verdict for part {_list(silent)}")
    twice = sorted(part for part, count in times.items() if count > 1)
    if twice:
        found.append(f"more than one verdict for part {_list(twice)}")
    expected = zip(range(1, len(decisions) + 1), decisions, strict=True)
    wrong = [decision.header.seq for seq, decision in expected if decision.header.seq != seq]
    if wrong:
        found.append(f"seq has a gap or is out of order, first at {wrong[0]}")
    return found


def summary(decisions: Sequence[Decision], fps: float = 0.0) -> list[str]:
    """The run on one screen; ``fps`` is the rate at which parts came, 0: as they were taken."""
    tally = Tally()
    for decision in decisions:
        tally.add(decision, 0.0)
    escapes = [d for d in decisions if is_escape(d)]
    rejects = [d for d in decisions if is_false_reject(d)]
    shown = (Verdict.PASS, Verdict.FAIL, Verdict.INVALID)
    counts = ", ".join(f"{tally.verdicts[v]} {v.name}" for v in shown)
    rows = [
        f"parts          {tally.parts}: {tally.good} good, {tally.defective} defective",
        f"verdicts       {counts}{_reasons(tally)}",
        f"escapes        {len(escapes)} of {tally.defective} defective{_kinds(escapes)}",
        f"false rejects  {len(rejects)} of {tally.good} good{_parts(rejects)}",
    ]
    p50, p99 = tally.latency_us(50), tally.latency_us(99)
    if p50 is not None and p99 is not None:
        rows.append(f"latency        p50 {p50 / 1000:.0f} ms, p99 {p99 / 1000:.0f} ms")
    slow = rate(decisions) < KEPT_UP * fps
    why = f", less than the {fps:g} that came: they waited, which is in the latency" if slow else ""
    rows.append(f"rate           {rate(decisions):.1f} parts/s{why}")
    return rows


def rate(decisions: Sequence[Decision]) -> float:
    """Parts a second from the first verdict to the last; 0 if there were not two."""
    times = [decision.header.published_us for decision in decisions]
    spent_us = max(times) - min(times) if times else 0
    return (len(times) - 1) * 1e6 / spent_us if spent_us else 0.0


def choose(decisions: Sequence[Decision], logical: Collection[str], count: int) -> list[Decision]:
    """A handful that shows what happened: right and wrong, of every kind.

    Args:
        decisions: to choose from.
        logical: names of the defects that are logical.
        count: how many at most.
    """
    passed = [d for d in decisions if d.body.truth == GOOD and d.header.verdict is Verdict.PASS]
    caught = _one_each([d for d in decisions if _caught(d)])
    damaged = [d for d in caught if d.body.truth not in logical]
    misbuilt = [d for d in caught if d.body.truth in logical]
    wrong = [d for d in decisions if is_escape(d)][:1]
    wrong += [d for d in decisions if is_false_reject(d)][:1]
    ranked = [*passed[:1], *damaged[:1], *misbuilt[:1], *wrong]
    for more in zip_longest(damaged[1:], misbuilt[1:], passed[1:]):
        ranked += [d for d in more if d is not None]
    return sorted(ranked[:count], key=lambda d: (d.body.truth != GOOD, is_escape(d), d.header.seq))


def _caught(decision: Decision) -> bool:
    return decision.body.truth not in (None, GOOD) and decision.header.verdict is Verdict.FAIL


def _one_each(decisions: Sequence[Decision]) -> list[Decision]:
    """The first of every defect, then the rest."""
    first = {d.body.truth: d for d in reversed(decisions)}
    leaders = [d for d in decisions if first[d.body.truth] is d]
    return leaders + [d for d in decisions if first[d.body.truth] is not d]


def _reasons(tally: Tally) -> str:
    reasons = ", ".join(f"{name} {count}" for name, count in tally.reasons.most_common())
    return f" ({reasons})" if reasons else ""


def _kinds(decisions: Sequence[Decision]) -> str:
    """Such as ": crack 2, stain 1", or nothing."""
    counts = Counter(decision.body.truth for decision in decisions).most_common()
    return ": " + ", ".join(f"{name} {count}" for name, count in counts) if counts else ""


def _parts(decisions: Sequence[Decision]) -> str:
    """Such as ": part 3, 8", or nothing."""
    return f": part {_list([index(d) for d in decisions])}" if decisions else ""


def _list(parts: Sequence[int]) -> str:
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return ", ".join(map(str, parts[:NAMED])) + more
