"""decide: scores and policy in, verdict out. The only place where PASS is said."""

from __future__ import annotations

import math

from efficientad_stream.core.types import Policy, Reason, Scores, Verdict


def decide(scores: Scores, policy: Policy, age_us: int = 0) -> tuple[Verdict, Reason | None]:
    """The verdict on one scored frame.

    Args:
        scores: what the backend said.
        policy: the station's threshold and deadline.
        age_us: microseconds since capture.

    Returns:
        PASS only for a finite score below the threshold, before the deadline; otherwise FAIL, or
        INVALID with its reason. At the deadline is late, as for the ledger.
    """
    if policy.deadline_us and age_us >= policy.deadline_us:
        return Verdict.INVALID, Reason.LATE
    if not math.isfinite(scores.score):
        return Verdict.INVALID, Reason.NON_FINITE
    if scores.score < policy.threshold:
        return Verdict.PASS, None
    return Verdict.FAIL, None
