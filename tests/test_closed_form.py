"""A student begun in closed form: on good parts it says what the teacher does, elsewhere not."""

from __future__ import annotations

import pytest
import torch

from efficientad_stream.core.errors import FatalError
from efficientad_stream.model.closed_form import Pair, begin_student, solve_student, solved_layer
from efficientad_stream.model.networks import PDN, TEACHER_CHANNELS, Size


def pictures(count: int, seed: int) -> torch.Tensor:
    """Waves of a few directions and phases, N x 3 x 96 x 96."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    phase = torch.rand(count, 3, 1, 1, generator=rng) * 6.28
    return torch.sin(0.3 * x + 0.1 * y + phase) + 0.1 * torch.randn(count, 3, 96, 96, generator=rng)


def begun(size: Size) -> tuple[PDN, PDN]:
    torch.manual_seed(1)
    teacher, student = PDN(size).eval(), PDN(size, 2 * TEACHER_CHANNELS).eval()
    begin_student(student, teacher, pictures(4, 0))
    return teacher, student


def wanted(teacher: PDN, x: torch.Tensor) -> torch.Tensor:
    """The teacher's descriptors at unit scale, twice."""
    with torch.no_grad():
        out = teacher(x, padding=False)
    out = (out - out.mean((0, 2, 3), keepdim=True)) / out.std((0, 2, 3), keepdim=True)
    return torch.cat([out, -out], 1)


@pytest.mark.parametrize("size", ["S", "M"])
def test_it_says_what_it_was_solved_for_and_nothing_of_noise(size: Size) -> None:
    teacher, student = begun(size)
    x = pictures(8, 2)
    target = wanted(teacher, x)
    pairs = [Pair(x[i : i + 1], target[i : i + 1]) for i in range(len(x))]
    solve_student(student, pairs, 256, 0, bfloat16=False)
    with torch.no_grad():
        found = student(x, padding=False)
        strange = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(3))
        teacher_raw, _ = torch.split(wanted(teacher, strange), TEACHER_CHANNELS, 1)
        elsewhere = student(strange, padding=False)[:, :TEACHER_CHANNELS]
    known = (found - target).square().mean()
    unknown = (elsewhere - teacher_raw).square().mean()
    assert known < 0.3
    assert unknown > 3 * known


def test_the_same_seed_solves_the_same() -> None:
    found = []
    for seed in (5, 5, 6):
        teacher, student = begun("S")
        x = pictures(4, 2)
        target = wanted(teacher, x)
        solve_student(student, [Pair(x, target)], 300, seed, bfloat16=False)
        found.append(solved_layer(student).weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_it_begins_with_the_teachers_stem() -> None:
    teacher, student = begun("M")
    for name in ("conv1", "conv2"):
        assert torch.equal(getattr(student, name).weight, getattr(teacher, name).weight)
    assert not torch.equal(student.conv3.weight, teacher.conv3.weight)


def test_nothing_to_solve_for_is_said() -> None:
    _, student = begun("S")
    with pytest.raises(FatalError, match="no good image"):
        solve_student(student, [], 10, 0, bfloat16=False)
    with torch.no_grad():
        student.conv3.weight.zero_()
        student.conv3.bias.zero_()  # type: ignore[union-attr]
    x = torch.zeros(1, 3, 96, 96)
    nothing = Pair(x, torch.zeros(1, 2 * TEACHER_CHANNELS, 16, 16))
    with pytest.raises(FatalError, match="all alike"):
        solve_student(student, [nothing], 10, 0, bfloat16=False)
