from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientad_stream.core.errors import (
    EfficientADError,
    FatalError,
    FormatError,
    TransientError,
)
from efficientad_stream.core.types import (
    Batch,
    Frame,
    FrameMeta,
    Inspection,
    PixelArray,
    Policy,
    Reason,
    RecipeId,
    Scores,
    Verdict,
)
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.pipeline import inspect


class Means:
    """A backend whose score is the mean grey level; fails when told to. Black is 0, white 255."""

    def __init__(self) -> None:
        self.in_flight = self.most_in_flight = 0
        self.on_submit: dict[int, EfficientADError] = {}
        self.on_collect: dict[int, EfficientADError] = {}
        self.submitted = self.collected = 0
        self.sizes: list[int] = []

    def check(self, frame: PixelArray) -> None:
        if frame.ndim != 2:
            raise FormatError("frame is colour, the recipe wants grey")

    def submit(self, frames: Sequence[PixelArray]) -> tuple[PixelArray, ...]:
        self.submitted += 1
        if self.submitted in self.on_submit:
            raise self.on_submit[self.submitted]
        self.sizes.append(len(frames))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return tuple(frames)

    def collect(self, ticket: tuple[PixelArray, ...]) -> list[Scores]:
        self.collected += 1
        self.in_flight -= 1
        if self.collected in self.on_collect:
            raise self.on_collect[self.collected]
        return [Scores(float(f.mean()) if f.size else math.nan, 0.0, 0.0) for f in ticket]

    def close(self) -> None:
        pass


def frame(n: int, level: int | None = 0) -> Frame:
    """Frame ``n``, grey at ``level``; a marker if ``level`` is None."""
    if level is None:
        return Frame(FrameMeta(n, 0, 0, loss=Reason.LOST_FRAME))
    return Frame(FrameMeta(n, 0, 0), np.full((4, 4), level, np.uint8), n)


def active(
    backend: Means, threshold: float = 100.0, deadline_us: int = 0, rev: int = 1
) -> ActiveRef:
    return ActiveRef(Active(RecipeId("r", rev, "0" * 64), Policy(threshold, deadline_us), backend))


def run(
    batches: Sequence[Batch], backend: Means, depth: int = 1, threshold: float = 100.0
) -> list[Inspection]:
    return list(inspect(batches, active(backend, threshold), depth, lambda: 1_000))


def answers(found: Sequence[Inspection]) -> list[tuple[int, Verdict, Reason | None]]:
    return [(i.meta.frame_id, i.verdict, i.reason) for i in found]


P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INVALID  # noqa: E741


def test_scores_become_verdicts_in_order() -> None:
    found = run([(frame(1, 10), frame(2, 200)), (frame(3, 99),), (frame(4, 100),)], Means())
    assert answers(found) == [(1, P, None), (2, F, None), (3, P, None), (4, F, None)]
    assert [i.scores.score for i in found if i.scores] == [10, 200, 99, 100]
    assert found[1].slot == 2
    assert found[1].pixels is not None
    assert found[1].recipe == RecipeId("r", 1, "0" * 64)
    assert found[1].threshold == 100.0
    assert found[1].decided_ns == 1_000


def test_markers_come_out_invalid_in_their_place() -> None:
    backend = Means()
    found = run([(frame(1), frame(2, None), frame(3)), (frame(4, None),)], backend)
    lost = Reason.LOST_FRAME
    assert answers(found) == [(1, P, None), (2, I, lost), (3, P, None), (4, I, lost)]
    assert found[1].scores is None
    assert backend.sizes == [2]  # markers are never submitted


def test_what_the_recipe_cannot_score_is_unreadable_and_said() -> None:
    said: list[tuple[int, str]] = []
    colour = Frame(FrameMeta(2, 0, 0), np.zeros((4, 4, 3), np.uint8), 2)
    found = list(
        inspect(
            [(frame(1), colour, frame(3))],
            active(Means()),
            1,
            lambda: 0,
            lambda meta, error: said.append((meta.frame_id, str(error))),
        )
    )
    assert answers(found) == [(1, P, None), (2, I, Reason.UNREADABLE), (3, P, None)]
    assert said == [(2, "frame is colour, the recipe wants grey")]


def test_a_score_that_is_no_number_never_passes() -> None:
    empty = Frame(FrameMeta(1, 0, 0), np.zeros((0, 4), np.uint8), 1)
    with np.errstate(invalid="ignore"):
        assert answers(run([(empty,)], Means())) == [(1, I, Reason.NON_FINITE)]


def test_deadline_is_measured_from_capture() -> None:
    early = inspect([(frame(1),)], active(Means(), deadline_us=10), 1, lambda: 9_999)
    assert answers(list(early)) == [(1, P, None)]
    late = inspect([(frame(1),)], active(Means(), deadline_us=10), 1, lambda: 10_000)
    assert answers(list(late)) == [(1, I, Reason.LATE)]


class TestDepth:
    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_so_many_tickets_and_no_more(self, depth: int) -> None:
        backend = Means()
        found = run([(frame(n),) for n in range(1, 8)], backend, depth)
        assert [i.meta.frame_id for i in found] == list(range(1, 8))
        assert backend.most_in_flight == depth

    def test_an_empty_batch_drains(self) -> None:
        backend = Means()
        feed: list[Batch] = [(frame(1),), (frame(2),), ()]
        flow = inspect(iter(feed), active(backend), 4, lambda: 0)
        assert [next(flow).meta.frame_id, next(flow).meta.frame_id] == [1, 2]
        assert backend.in_flight == 0

    def test_a_lone_frame_does_not_wait_for_the_next(self) -> None:
        def feed() -> Iterator[Batch]:
            yield (frame(1),)
            yield ()
            raise AssertionError("asked for more before answering")

        flow = inspect(feed(), active(Means()), 4, lambda: 0)
        assert next(flow).meta.frame_id == 1


class TestSwap:
    def test_a_batch_is_judged_by_what_was_active_when_it_began(self) -> None:
        old, new = Means(), Means()
        ref = active(old, threshold=100.0)

        def feed() -> Iterator[Batch]:
            yield (frame(1, 50),)
            ref.swap(Active(RecipeId("r", 2, "1" * 64), Policy(10.0), new))
            yield (frame(2, 50),)

        found = list(inspect(feed(), ref, 2, lambda: 0))
        assert answers(found) == [(1, P, None), (2, F, None)]
        assert [i.recipe.revision for i in found if i.recipe] == [1, 2]
        assert (old.collected, new.collected) == (1, 1)


class TestFailure:
    @pytest.mark.parametrize("where", ["on_submit", "on_collect"])
    def test_a_transient_failure_costs_its_batch_only(self, where: str) -> None:
        backend = Means()
        getattr(backend, where)[2] = TransientError("hiccup")
        found = run([(frame(1),), (frame(2), frame(3)), (frame(4),)], backend)
        bad = Reason.BACKEND
        assert answers(found) == [(1, P, None), (2, I, bad), (3, I, bad), (4, P, None)]

    @pytest.mark.parametrize("where", ["on_submit", "on_collect"])
    @pytest.mark.parametrize("depth", [1, 3])
    def test_a_broken_backend_ends_it_after_everybody_was_answered(
        self, where: str, depth: int
    ) -> None:
        backend = Means()
        getattr(backend, where)[2] = FatalError("engine broken")
        read: list[int] = []

        def feed() -> Iterator[Batch]:
            for n in range(1, 10):
                read.append(n)
                yield (frame(n),)

        found: list[Inspection] = []
        flow = inspect(feed(), active(backend), depth, lambda: 0)
        with pytest.raises(FatalError, match="engine broken"):  # noqa: PT012
            for inspection in flow:
                found.append(inspection)
        assert [i.meta.frame_id for i in found] == read
        assert answers(found)[0] == (1, P, None)
        assert {(i.verdict, i.reason) for i in found[1:]} == {(I, Reason.BACKEND)}

    def test_scores_that_are_missing_are_invalid(self) -> None:
        class Short(Means):
            def collect(self, ticket: tuple[PixelArray, ...]) -> list[Scores]:
                return super().collect(ticket)[:-1]

        found = run([(frame(1), frame(2))], Short())
        assert answers(found) == [(1, P, None), (2, I, Reason.BACKEND)]


levels = st.one_of(st.none(), st.integers(0, 255))
batch_levels = st.lists(st.lists(levels, max_size=5), max_size=12)


@given(batch_levels, st.integers(1, 4), st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_one_answer_for_each_frame_in_order(
    shape: list[list[int | None]], depth: int, threshold: int
) -> None:
    """Whatever batches and depth: as many answers as frames, in order, each by its own level."""
    counted, batches = 0, []
    for group in shape:
        batches.append(tuple(frame(counted + k + 1, level) for k, level in enumerate(group)))
        counted += len(group)
    backend = Means()
    found = run(batches, backend, depth, float(threshold))
    assert [i.meta.frame_id for i in found] == list(range(1, counted + 1))
    assert backend.most_in_flight <= depth
    assert backend.in_flight == 0
    for inspection, level in zip(found, (x for group in shape for x in group), strict=True):
        wanted = I if level is None else (P if level < threshold else F)
        assert inspection.verdict is wanted
