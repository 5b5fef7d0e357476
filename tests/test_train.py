from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import efficientad_stream.model.trainer as trainer_module
from efficientad_stream.backends.torch_cpu import TorchCpuBackend
from efficientad_stream.core.errors import ArtifactError, ConfigError, FatalError
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.model.artifact import (
    LoadedTeacher,
    load_recipe,
    round_to_half,
    save_teacher,
)
from efficientad_stream.model.augment import KINDS
from efficientad_stream.model.calibrate import calibrate, split
from efficientad_stream.model.curve import CURVE_FILE
from efficientad_stream.model.job import Listener, TrainJob, make_recipe
from efficientad_stream.model.memory import keep_freed_memory
from efficientad_stream.model.naturals import NaturalImages
from efficientad_stream.model.networks import PDN, EfficientAD
from efficientad_stream.model.settings import (
    Plan,
    TrainSettings,
    choose_bfloat16,
    choose_device,
    rate_at,
)
from efficientad_stream.model.train import Progress, train
from efficientad_stream.model.trainer import CHECKPOINT_FILE, Trainer

GEOMETRY = Geometry(128, 128)
SETTINGS = TrainSettings("S", GEOMETRY, steps=5, seed=3)
IDENTITY = {"seed": "3"}


def quiet(_: object) -> None:
    """Whoever listens to nothing."""


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop after so many steps."""
    left = iter([False] * (steps - 1) + [True])
    return lambda: next(left)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps spend more on waiting for each other's threads than on work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teacher() -> LoadedTeacher:
    torch.manual_seed(0)
    pdn = PDN("S").requires_grad_(False).eval()
    for value in pdn.state_dict().values():
        value.mul_(2).copy_(value.half())
    return LoadedTeacher(pdn, "S", "0" * 64)


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    """Twelve noisy pictures of one and the same ramp."""
    ramp = np.linspace(40, 200, 128)[None, :, None] * np.ones((128, 1, 3))
    rng = np.random.default_rng(0)
    return [
        np.clip(ramp + rng.normal(0, 8, ramp.shape), 0, 255).astype(np.uint8) for _ in range(12)
    ]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(1)
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (60, 80, 3), np.uint8))
    return folder


def weights(net: EfficientAD) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


FAST = replace(SETTINGS, method="fast", steps=3, autoencoder_steps=2, window=96)


AUGMENTED = replace(FAST, augment=tuple(KINDS), autoencoder_steps=1, steps=2)


@pytest.mark.parametrize(
    ("settings", "halt_after"), [(SETTINGS, 2), (FAST, 1), (FAST, 2), (FAST, 4), (AUGMENTED, 2)]
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(  # noqa: PLR0917
    settings: TrainSettings,
    halt_after: int,
    teacher: LoadedTeacher,
    good: list[np.ndarray],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer_module, "SOLVED_POSITIONS", 600)

    def fresh() -> Trainer:
        return Trainer(settings, teacher, good, NaturalImages(photographs, GEOMETRY))

    whole = fresh()
    whole.features.measure(never)
    assert train(whole, tmp_path / "whole", IDENTITY, quiet, never)
    first = fresh()
    first.features.measure(never)
    assert not train(first, tmp_path / "parts", IDENTITY, quiet, after(halt_after))
    assert first.done.steps == halt_after
    second = fresh()
    second.load(tmp_path / "parts", IDENTITY)
    assert second.done == first.done
    assert train(second, tmp_path / "parts", IDENTITY, quiet, never)
    one, other = weights(whole.net), weights(second.net)
    assert all(torch.equal(one[name], other[name]) for name in one)
    curves = [(tmp_path / name / CURVE_FILE).read_text() for name in ("whole", "parts")]
    assert curves[0] == curves[1]
    rows = list(csv.DictReader(curves[0].splitlines()))
    assert [row["step"] for row in rows] == [str(i + 1) for i in range(whole.done.steps)]
    alone = settings.autoencoder_steps
    assert all((float(row["penalty"]) > 0) == (int(row["step"]) > alone) for row in rows)


def test_a_run_has_its_seed(teacher: LoadedTeacher, good: list[np.ndarray]) -> None:
    rows = []
    for seed in (3, 3, 4):
        trainer = Trainer(replace(SETTINGS, seed=seed), teacher, good, None)
        rows.append(trainer.step())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_the_loss_falls(teacher: LoadedTeacher, good: list[np.ndarray], tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=20, learning_rate=1e-3)
    trainer = Trainer(settings, teacher, good, None)
    trainer.features.measure(never)
    seen: list[Progress] = []
    assert train(trainer, tmp_path, IDENTITY, seen.append, never)
    rows = list(csv.DictReader((tmp_path / CURVE_FILE).read_text().splitlines()))
    for part in ("hard", "autoencoder"):
        values = [float(row[part]) for row in rows]
        assert np.mean(values[-4:]) < 0.9 * np.mean(values[:4])
    assert [progress.step for progress in seen] == [10, 20]
    assert seen[-1].eta_s == 0.0
    assert seen[0].eta_s == pytest.approx(10 / seen[0].steps_per_s)


def test_every_good_image_is_seen_once_an_epoch(
    teacher: LoadedTeacher, good: list[np.ndarray]
) -> None:
    numbered = [np.full((128, 128, 3), index, np.uint8) for index in range(len(good))]
    trainer = Trainer(SETTINGS, teacher, numbered, None)
    drawn = [trainer._draw(index) for index in range(36)]
    for epoch in range(3):
        assert sorted(drawn[12 * epoch : 12 * epoch + 12]) == list(range(12))
    assert drawn[:12] != drawn[12:24]


def test_the_teacher_is_normalised_over_all_good_pixels(
    teacher: LoadedTeacher, good: list[np.ndarray]
) -> None:
    trainer = Trainer(SETTINGS, teacher, good[:7], None)
    assert trainer.features.measure(never)
    rgb = torch.from_numpy(np.stack(good[:7])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        out = trainer.net.teach(trainer.net.normalise_input(rgb)).transpose(0, 1).flatten(1)
    assert out.mean(1).abs().max() < 1e-2
    assert (out.std(1) - 1).abs().max() < 1e-2
    assert not trainer.features.measure(lambda: True)


def test_a_channel_that_never_changes_does_not_divide_by_zero(
    teacher: LoadedTeacher, good: list[np.ndarray]
) -> None:
    trainer = Trainer(SETTINGS, teacher, good[:2], None)
    with torch.no_grad():
        trainer.net.teacher.conv4.weight[7] = 0
    trainer.features.measure(never)
    assert (trainer.net.std > 0).all()
    assert torch.isfinite(trainer.step()).all()


def test_the_learning_rate_drops_at_95_percent() -> None:
    settings = TrainSettings("S", GEOMETRY)
    plan = Plan.of(settings)
    rates = [rate_at(settings, plan, step) for step in (0, 66_499, 66_500, 69_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_a_loss_that_is_not_a_number_ends_the_run(
    teacher: LoadedTeacher, good: list[np.ndarray], tmp_path: Path
) -> None:
    trainer = Trainer(replace(SETTINGS, steps=1), teacher, good, None)
    trainer.net.student.conv4.weight.data[0] = float("nan")
    with pytest.raises(FatalError, match="no longer a number"):
        train(trainer, tmp_path, IDENTITY, quiet, never)
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_a_checkpoint_of_another_run_is_refused(
    teacher: LoadedTeacher, good: list[np.ndarray], tmp_path: Path
) -> None:
    trainer = Trainer(SETTINGS, teacher, good, None)
    trainer.save(tmp_path, IDENTITY)
    with pytest.raises(ArtifactError, match=r"another --seed \(3, not 4\)"):
        trainer.load(tmp_path, {"seed": "4"})
    path = tmp_path / CHECKPOINT_FILE
    whole = path.read_bytes()
    for damaged in (whole[:5000], b"", b"x" * 5000):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"{CHECKPOINT_FILE}: is damaged.*begin anew"):
            trainer.load(tmp_path, IDENTITY)
    save_teacher(path, PDN("S"), {})
    with pytest.raises(ArtifactError, match="is not a checkpoint"):
        trainer.load(tmp_path, IDENTITY)


def test_a_teacher_of_another_size_is_refused(
    teacher: LoadedTeacher, good: list[np.ndarray]
) -> None:
    with pytest.raises(ConfigError, match="teacher is of size S, not M"):
        Trainer(replace(SETTINGS, size="M"), teacher, good, None)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_tenth_is_held_back(in_order: bool) -> None:
    for count, held in ((10, 3), (30, 3), (40, 4), (101, 10), (762, 76)):
        learn, back = split(count, 0, in_order)
        assert len(back) == held
        assert sorted(learn + back) == list(range(count))
        assert back == sorted(back)
    assert (split(762, 0, in_order) == split(762, 1, in_order)) is in_order


def test_of_a_video_stretches_all_over_it_are_held_back() -> None:
    def back(count: int) -> list[int]:
        return split(count, 0, in_order=True)[1]

    assert back(10) == [7, 8, 9]
    assert back(40) == [18, 19, 38, 39]
    assert back(100) == [18, 19, 38, 39, 58, 59, 78, 79, 98, 99]
    assert back(300) == [end - 6 + i for end in (60, 120, 180, 240, 300) for i in range(6)]


def test_calibration_is_over_all_pixels_of_the_plain_maps(
    teacher: LoadedTeacher, good: list[np.ndarray]
) -> None:
    trainer = Trainer(SETTINGS, teacher, good, None)
    trainer.features.measure(never)
    net = trainer.net.eval()
    round_to_half(net)
    found = calibrate(net, good[:4], 1e-3)
    rgb = torch.from_numpy(np.stack(good[:4])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        maps = net.raw_maps(rgb)
        combined, _ = net(rgb, found.quantiles)
    q = found.quantiles
    for values, a, b in ((maps.local, q.qa_st, q.qb_st), (maps.globl, q.qa_ae, q.qb_ae)):
        assert a == pytest.approx(np.quantile(values.numpy(), 0.9), rel=1e-4)
        assert b == pytest.approx(np.quantile(values.numpy(), 0.995), rel=1e-4)
    assert found.exact
    assert np.allclose(found.scores, combined.amax((1, 2)).numpy(), atol=1e-4)
    assert found.tail.threshold > max(found.scores)


def test_networks_without_a_finite_map_are_not_calibrated(good: list[np.ndarray]) -> None:
    net = EfficientAD("S")
    net.student.conv1.weight.data.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="no finite map"):
        calibrate(net, good[:1], 1e-3)


def test_a_whole_job_and_a_second_one_into_the_same_folder(
    teacher: LoadedTeacher, good: list[np.ndarray], photographs: Path, tmp_path: Path
) -> None:
    images = tmp_path / "good"
    images.mkdir()
    for index, one in enumerate(good):
        cv2.imwrite(str(images / f"{index:02}.png"), one[..., ::-1])
    save_teacher(tmp_path / "t.safetensors", teacher.pdn, {})
    out = tmp_path / "recipe"
    job = TrainJob(
        images, photographs, out, "ramps", GEOMETRY, method="paper", steps=2,
        teacher=tmp_path / "t.safetensors",
    )  # fmt: skip
    said: list[str] = []
    assert make_recipe(job, Listener(said.append, quiet, after(10))) is None
    recipe = make_recipe(job, Listener(said.append, quiet, never))
    assert recipe is not None
    assert "going on after step 1" in said
    assert not (out / CHECKPOINT_FILE).exists()
    loaded = load_recipe(out)
    assert loaded.recipe == recipe
    assert recipe.training["steps"] == 2
    assert recipe.training["held_back"] == recipe.threshold.good_parts == 3
    held = split(12, 0, in_order=False)[1]
    backend = TorchCpuBackend(loaded)
    frames = [np.ascontiguousarray(good[index][..., ::-1]) for index in held]
    live = [backend.collect(backend.submit([frame]))[0].score for frame in frames]
    backend.close()
    assert max(live) == pytest.approx(recipe.training["held_back_worst_score"], abs=1e-4)
    assert max(live) < recipe.threshold.value
    with pytest.raises(ArtifactError, match="holds a recipe already"):
        make_recipe(job, Listener(quiet, quiet, never))


def test_devices_and_precisions() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_bfloat16("bf16", "cpu")
    assert not choose_bfloat16("fp32", "cpu")
    assert isinstance(choose_bfloat16("auto", "cpu"), bool)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        choose_device("cuda")


def test_memory_can_be_kept_on_glibc() -> None:
    assert keep_freed_memory()
