"""Counting verdicts: how many of each, how fast, and how right where the truth is known. Pure."""

from __future__ import annotations

from collections import Counter, deque

from efficientad_stream.core.messages import Decision
from efficientad_stream.core.types import GOOD, Verdict

LATENCIES = 10_000
"""The newest latencies, from which percentiles are taken."""
RATE_S = 5.0
"""The rate is that of the last seconds."""


class Tally:
    """What a consumer has seen so far. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.reasons: Counter[str] = Counter()
        self.lost = 0
        """Decisions that the station no longer keeps."""
        self.escapes = 0
        """Defective parts that passed."""
        self.false_rejects = 0
        """Good parts that failed."""
        self.good = 0
        """Parts whose truth is known to be good."""
        self.defective = 0
        """Parts whose truth is known to be a defect."""
        self._latencies: deque[int] = deque(maxlen=LATENCIES)
        self._arrivals: deque[float] = deque()

    @property
    def parts(self) -> int:
        """All decisions."""
        return self.verdicts.total()

    def add(self, decision: Decision, now: float) -> None:
        """Count one decision that arrived ``now``."""
        verdict, body = decision.header.verdict, decision.body
        self.verdicts[verdict] += 1
        if body.reason is not None:
            self.reasons[body.reason] += 1
        if body.truth is not None:
            self.good += body.truth == GOOD
            self.defective += body.truth != GOOD
        self.escapes += is_escape(decision)
        self.false_rejects += is_false_reject(decision)
        self._latencies.append(body.latency_us)
        self._arrivals.append(now)
        self._forget(now)

    def rate(self, now: float) -> float:
        """Decisions a second over the last seconds."""
        self._forget(now)
        if len(self._arrivals) < 2:
            return 0.0
        span = max(now, self._arrivals[-1]) - self._arrivals[0]
        return (len(self._arrivals) - 1) / span if span > 0 else 0.0

    def latency_us(self, percent: float) -> int | None:
        """Percentile of the newest latencies (nearest rank); None before the first."""
        if not self._latencies:
            return None
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def _forget(self, now: float) -> None:
        while self._arrivals and now - self._arrivals[0] > RATE_S:
            self._arrivals.popleft()


def is_escape(decision: Decision) -> bool:
    """A part that is known to be defective has passed."""
    truth = decision.body.truth
    return truth not in (None, GOOD) and decision.header.verdict is Verdict.PASS


def is_false_reject(decision: Decision) -> bool:
    """A part that is known to be good has failed; INVALID is counted by itself."""
    return decision.body.truth == GOOD and decision.header.verdict is Verdict.FAIL
