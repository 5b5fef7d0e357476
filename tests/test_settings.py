"""How the steps of a training are laid out: windows, time budgets, rates, and when it stops."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core.recipe import Geometry
from efficientad_stream.model.networks import PDN
from efficientad_stream.model.plateau import CHECK_STEPS, Plateau
from efficientad_stream.model.settings import (
    STUDENT_MOST,
    WARM_UP,
    Done,
    Plan,
    TrainSettings,
    Window,
    after_look,
    look_is_due,
    plan_ahead,
    rate_at,
)

FAST = TrainSettings("S", Geometry(256, 256), method="fast", steps=1000, autoencoder_steps=400)
PATIENT = replace(FAST, patience=4)
TIMED = replace(FAST, steps=0, autoencoder_steps=0, seconds=1000.0)

sides = st.integers(4, 16).map(lambda n: 32 * n)


@given(sides, sides, st.integers(12, 32).map(lambda n: 8 * n), st.integers(0, 10_000))
def test_a_window_lies_inside_and_its_pixels_give_its_positions(
    height: int, width: int, side: int, seed: int
) -> None:
    geometry = Geometry(height, width)
    window = Window.draw(geometry, side, np.random.default_rng(seed))
    rows, columns = geometry.map_size
    assert 0 <= window.top <= window.top + window.rows <= rows
    assert 0 <= window.left <= window.left + window.columns <= columns
    pixels = window.of_input(torch.empty(1, 1, height, width))
    assert pixels.shape[2] // 4 - 8 == window.rows
    assert pixels.shape[3] // 4 - 8 == window.columns


def test_what_a_student_says_of_a_window_is_what_it_says_there_of_the_image() -> None:
    torch.manual_seed(0)
    geometry, pdn = Geometry(128, 160), PDN("S").eval()
    x = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        whole = pdn(x, padding=False)
        for seed in range(4):
            window = Window.draw(geometry, 96, np.random.default_rng(seed))
            part = pdn(window.of_input(x), padding=False)
            assert torch.allclose(part, window.of_output(whole), atol=1e-5)


def test_edges_are_in_a_window_half_as_often_as_the_middle_at_least() -> None:
    geometry, rng = Geometry(256, 256), np.random.default_rng(0)
    seen = np.zeros(geometry.map_size)
    for _ in range(4000):
        w = Window.draw(geometry, 128, rng)
        seen[w.top : w.top + w.rows, w.left : w.left + w.columns] += 1
    share = seen / seen.mean()
    for edge in (share[0], share[-1], share[:, 0], share[:, -1]):
        assert edge.mean() > 0.5
    assert share.min() > 0.25


def test_a_time_budget_decides_each_phase_once() -> None:
    done = plan_ahead(TIMED, Done(WARM_UP - 1, 5.0, Plan(None, None)), [0.1] * 19, 50.0)
    assert done.plan == Plan(None, None)
    done = plan_ahead(TIMED, Done(WARM_UP, 10.0, Plan(None, None)), [0.1] * 20, 40.0)
    assert done.plan == Plan(int(0.3 * (1000 - 10 - 40) / 0.1), None)
    first = done.plan.autoencoder
    assert first is not None
    later = Done(first + WARM_UP, 300.0, done.plan)
    done = plan_ahead(TIMED, later, [0.5] * 20, 40.0)
    assert done.plan.student == WARM_UP + int((1000 - 300 - 40) / 0.5)
    assert plan_ahead(TIMED, done, [9.0] * 20, 40.0) == done


def test_no_budget_is_too_small_or_too_large_to_end() -> None:
    short = replace(TIMED, seconds=1.0)
    done = plan_ahead(short, Done(WARM_UP, 10.0, Plan(None, None)), [1.0] * 20, 40.0)
    assert done.plan.autoencoder == WARM_UP
    done = plan_ahead(short, Done(2 * WARM_UP, 30.0, done.plan), [1.0] * 20, 40.0)
    assert done.plan.student == WARM_UP
    long = replace(TIMED, seconds=1e9)
    done = plan_ahead(long, Done(30_000, 1.0, Plan(20_000, None)), [0.01] * 20, 0.0)
    assert done.plan.student == STUDENT_MOST


def test_the_rate_rises_and_falls_in_each_phase() -> None:
    plan = Plan(400, 1000)
    rates = [rate_at(FAST, plan, step) for step in range(1400)]
    assert rates[0] == pytest.approx(FAST.autoencoder_rate / WARM_UP)
    assert max(rates[:400]) == pytest.approx(FAST.autoencoder_rate)
    assert rates[399] < 1e-4 * FAST.autoencoder_rate
    assert max(rates[400:]) == pytest.approx(FAST.learning_rate)
    assert rates[-1] < 1e-4 * FAST.learning_rate
    assert rate_at(FAST, Plan(None, None), WARM_UP + 5) == FAST.autoencoder_rate


def test_looks_are_taken_in_the_students_phase_only() -> None:
    plan = Plan(400, 1000)
    due = [step for step in range(1401) if look_is_due(PATIENT, Done(step, 0.0, plan))]
    assert due == [400 + CHECK_STEPS * n for n in (1, 2, 3, 4)]
    assert not look_is_due(FAST, Done(due[0], 0.0, plan))
    assert not look_is_due(replace(TIMED, patience=4), Done(due[0], 0.0, Plan(400, None)))


def without_gains(settings: TrainSettings, plan: Plan) -> Done:
    done = Done(0, 0.0, plan)
    for index, loss in enumerate([1.0, 0.8, 0.799, 0.9, 0.7999, 0.85]):
        steps = (plan.autoencoder or 0) + CHECK_STEPS * (index + 1)
        done = after_look(settings, done._replace(steps=steps), loss)
    return done


def test_a_run_without_gains_ends_after_a_tenth_at_a_falling_rate() -> None:
    done = without_gains(PATIENT, Plan(400, 100_000))
    assert done.plateau == Plateau(0.8, 4)
    assert done.plan[:3] == (400, 1650, 1500)
    assert not look_is_due(PATIENT, done._replace(steps=400 + 7 * CHECK_STEPS))
    before = rate_at(PATIENT, Plan(400, 100_000), 1900)
    rates = [rate_at(PATIENT, done.plan, step) for step in range(1900, 2050)]
    assert rates[0] == pytest.approx(before)
    assert rates[75] == pytest.approx(before / 2)
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert 0 < rates[-1] < 1e-3 * before


def test_as_published_the_last_steps_are_at_a_tenth_of_the_rate() -> None:
    paper = replace(PATIENT, method="paper")
    done = without_gains(paper, Plan(0, 70_000))
    assert done.plan.student == 1650
    rates = [rate_at(paper, done.plan, step) for step in (1499, 1500, 1649)]
    assert rates == pytest.approx([1e-4, 1e-5, 1e-5])


def test_near_the_end_an_early_stop_changes_nothing() -> None:
    done = Done(1350, 0.0, Plan(400, 960), Plateau(0.5, 3))
    assert after_look(PATIENT, done, 0.6).plan == done.plan


def test_the_budget_pays_for_the_looks_and_waits_for_enough_steps() -> None:
    done = Done(500, 300.0, Plan(400, None))
    assert plan_ahead(TIMED, done, [0.5] * (WARM_UP - 1), 40.0, 125.0) == done
    planned = plan_ahead(TIMED, done, [0.5] * WARM_UP, 40.0, 125.0)
    assert planned.plan.student == 100 + int((1000 - 300 - 40) / (0.5 + 125 / CHECK_STEPS))
