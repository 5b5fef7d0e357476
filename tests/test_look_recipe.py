"""A recipe with region, mask and letterbox, from the command that trains it to what it sees."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from daemon_kit import Run, listen, write_config, write_parts

from efficientad_stream import strict_yaml
from efficientad_stream.backends.torch_cpu import TorchCpuBackend
from efficientad_stream.cli import main
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.geometry import FITS, Geometry
from efficientad_stream.core.messages import Decision, Heatmap
from efficientad_stream.core.placement import Rect, over_frame
from efficientad_stream.core.recipe import Quantiles, Recipe, ThresholdChoice
from efficientad_stream.core.sequencer import Start
from efficientad_stream.core.types import Frame, FrameMeta, Inspection, PixelArray, Policy, Reason
from efficientad_stream.model.artifact import (
    MASK_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    LoadedRecipe,
    LoadedTeacher,
    load_recipe,
    round_to_half,
    save_recipe,
    save_teacher,
)
from efficientad_stream.model.augment import KINDS
from efficientad_stream.model.calibrate import calibrate, split
from efficientad_stream.model.data import list_images, read_image
from efficientad_stream.model.features import to_rgb
from efficientad_stream.model.frames import BLANK, blank_of, inspected, prepare
from efficientad_stream.model.mask import mask_bytes, read_mask, with_mask
from efficientad_stream.model.networks import PDN, EfficientAD
from efficientad_stream.model.plateau import held_back_loss
from efficientad_stream.model.settings import Method, TrainSettings, Window
from efficientad_stream.model.trainer import Trainer
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.pipeline import inspect
from efficientad_stream.sinks.heatmaps import grey_map, overlay, spread_out
from efficientad_stream.subscriber import Subscriber

SIZE = (150, 260)
"""Height and width of the frames."""
REGION = Rect(20, 20, 220, 100)
HOLE = Rect(60, 40, 90, 60)
"""Is not inspected."""


def part(seed: int) -> PixelArray:
    """A ramp with a little noise."""
    image = np.linspace(40, 200, SIZE[1])[None, :, None] * np.ones((SIZE[0], 1, 3))
    noisy = image + np.random.default_rng(seed).normal(0, 6, image.shape)
    return np.asarray(np.clip(noisy, 0, 255), dtype=np.uint8)


def blotted(frame: PixelArray, where: Rect, seed: int = 0) -> PixelArray:
    spoilt: PixelArray = frame.copy()
    shape = (where.height, where.width, 3)
    spoilt[where.slices] = np.random.default_rng(seed).integers(0, 2, shape, np.uint8) * 255
    return spoilt


def with_hole() -> np.ndarray:
    mask = np.ones(SIZE, np.bool_)
    mask[HOLE.slices] = False
    return mask


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("look")
    (root / "good").mkdir()
    for index in range(12):
        cv2.imwrite(str(root / "good" / f"{index:02d}.png"), part(index))
    cv2.imwrite(str(root / "mask.png"), np.where(with_hole(), 200, 0).astype(np.uint8))
    torch.manual_seed(0)
    save_teacher(root / "teacher.safetensors", PDN("S"), {})
    return root


def arguments(images: Path, out: Path, *more: str) -> list[str]:
    return [
        "train", "--images", str(images / "good"), "--no-penalty", "--out", str(out),
        "--teacher", str(images / "teacher.safetensors"), "--input", "128x160",
        "--precision", "fp32", "--steps", "3", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    out = images / "recipe"
    look = ("--fit", "letterbox", "--region", "20,20,220,100", "--mask", str(images / "mask.png"))
    assert main(arguments(images, out, *look)) == 0
    return out


def test_the_command_writes_what_it_was_asked_for(trained: Path) -> None:
    geometry = load_recipe(trained).recipe.geometry
    plain = Geometry(128, 160, 3, "level", "letterbox", REGION, SIZE)
    assert geometry == with_mask(plain, with_hole())
    assert geometry.mask is not None
    assert np.array_equal(geometry.mask, with_hole())
    assert (trained / MASK_FILE).read_bytes() == mask_bytes(with_hole())
    section = strict_yaml.parse((trained / RECIPE_FILE).read_bytes()).value["input"]
    assert section["fit"] == "letterbox"
    assert section["frame"] == {"height": 150, "width": 260}
    assert section["region"] == {"x": 20, "y": 20, "width": 220, "height": 100}


def test_the_backend_scores_as_the_calibration_did(images: Path, trained: Path) -> None:
    loaded = load_recipe(trained)
    recipe, counts = loaded.recipe, inspected(loaded.recipe.geometry)
    assert counts is not None
    assert 0.3 < counts.mean() < 0.8, "bars and mask together"
    paths = list_images(images / "good")
    held = [read_image(paths[index], 3) for index in split(len(paths), 0, in_order=False)[1]]
    prepared = [prepare(frame, recipe.geometry) for frame in held]
    found = calibrate(loaded.net, prepared, 1e-3, counts)
    assert found.quantiles == recipe.quantiles
    assert found.tail.threshold == recipe.threshold.value
    backend = TorchCpuBackend(loaded, 1, maps=True)
    scores = [backend.collect(backend.submit([frame]))[0] for frame in held]
    assert [s.score for s in scores] == pytest.approx(found.scores, rel=1e-4, abs=1e-5)
    with torch.inference_mode():
        for image, one in zip(prepared, scores, strict=True):
            rgb = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
            combined, _ = loaded.net(rgb, recipe.quantiles, torch.tensor(counts))
            assert float(combined.max()) == pytest.approx(one.score, rel=1e-4, abs=1e-4)
            assert one.anomaly_map is not None
            assert one.anomaly_map[counts].max() == one.score
            assert one.anomaly_map[~counts].max() < one.anomaly_map[counts].min()


def test_quantiles_are_of_what_is_inspected(images: Path, trained: Path) -> None:
    loaded = load_recipe(trained)
    prepared = [prepare(part(index), loaded.recipe.geometry) for index in range(3)]
    everywhere = calibrate(loaded.net, prepared, 1e-3)
    counted = calibrate(loaded.net, prepared, 1e-3, inspected(loaded.recipe.geometry))
    assert everywhere.quantiles != counted.quantiles


def trainer(geometry: Geometry, method: Method) -> Trainer:
    torch.manual_seed(0)
    teacher = LoadedTeacher(PDN("S").requires_grad_(False), "S", "0" * 64)
    settings = TrainSettings("S", geometry, steps=2, autoencoder_steps=1, method=method, window=96)
    made = Trainer(settings, teacher, [prepare(part(n), geometry) for n in range(2)], None)
    assert made.features.measure(lambda: False)
    return made


def test_training_mines_where_it_is_inspected() -> None:
    geometry = with_mask(Geometry(128, 160, frame=SIZE), with_hole())
    counts = inspected(geometry)
    assert counts is not None
    whole_view = trainer(geometry, "paper")._paper_view([0], np.random.default_rng(5))
    assert whole_view.inspected is not None
    assert np.array_equal(whole_view.inspected, counts)
    windows = trainer(geometry, "fast")
    found = windows._window_view([0], np.random.default_rng(5)).inspected
    place = Window.draw(geometry, 96, np.random.default_rng(5))
    rows, columns = slice(place.top, place.top + 16), slice(place.left, place.left + 16)
    assert found is not None
    assert not counts[rows, columns].all()
    assert np.array_equal(found, counts[rows, columns])
    assert trainer(replace(geometry, mask=None, mask_sha256=""), "fast")._inspected is None


def test_augmentation_leaves_what_is_not_inspected_blank() -> None:
    geometry = Geometry(128, 128, fit="letterbox", frame=SIZE)
    one = trainer(geometry, "fast")
    one.settings = replace(one.settings, augment=tuple(KINDS))
    blank = blank_of(geometry)
    assert blank is not None
    for seed in range(5):
        rgb = one._good_images([seed % 2], np.random.default_rng(seed))[0]
        hidden = rgb[:, torch.from_numpy(blank.hidden > 0)] * 255
        assert (hidden.round() == BLANK).all()


def test_a_look_is_at_what_is_inspected() -> None:
    geometry = Geometry(128, 128, fit="letterbox", frame=SIZE)
    one = trainer(geometry, "fast")
    counts, image = inspected(geometry), one._good[0]
    assert counts is not None
    where = torch.tensor(counts)
    found = held_back_loss(one.net, [image], "cpu", where, bfloat16=False)
    with torch.no_grad():
        maps = one.net.eval().raw_maps(to_rgb([image], "cpu"))
    both = (maps.local + maps.globl)[0]
    assert found == pytest.approx(float(both[where].mean()))
    assert found != pytest.approx(float(both.mean()), rel=1e-3)


def test_descriptors_are_normalised_over_what_is_inspected() -> None:
    geometry = with_mask(Geometry(128, 160, frame=SIZE), with_hole())
    counts = inspected(geometry)
    assert counts is not None
    made = trainer(geometry, "fast")
    seen = torch.cat([made.features[n][0][:, torch.tensor(counts)] for n in range(2)], 1)
    torch.testing.assert_close(seen.mean(1), torch.zeros(384), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(1), torch.ones(384), atol=1e-2, rtol=0)


def test_a_training_is_not_resumed_with_another_mask() -> None:
    plain = Geometry(128, 160, frame=SIZE)
    one = TrainSettings("S", with_mask(plain, with_hole()))
    other = TrainSettings("S", with_mask(plain, ~with_hole()))
    wrong = {k for k, v in one.identity().items() if v != other.identity()[k]}
    assert wrong == {"mask_sha256"}
    assert one.identity() == replace(one, geometry=with_mask(plain, with_hole())).identity()


def test_a_defect_under_the_mask_changes_nothing_and_one_beside_it_does(trained: Path) -> None:
    backend = TorchCpuBackend(load_recipe(trained), 1, maps=True)
    good = part(50)
    frames = [
        good,
        blotted(good, HOLE),
        blotted(good, Rect(0, 0, 260, 20)),  # outside of the region
        blotted(good, Rect(HOLE.x + HOLE.width + 20, HOLE.y, 20, 20)),
    ]
    plain, under, outside, beside = (backend.collect(backend.submit([f]))[0] for f in frames)
    for one in (under, outside):
        assert replace(one, anomaly_map=None) == replace(plain, anomaly_map=None)
        assert one.anomaly_map is not None
        assert plain.anomaly_map is not None
        assert np.array_equal(one.anomaly_map, plain.anomaly_map)
    assert beside.score > 2 * plain.score


def random_recipe(geometry: Geometry) -> LoadedRecipe:
    torch.manual_seed(3)
    net = EfficientAD("S").eval().requires_grad_(False)
    round_to_half(net)
    choice = ThresholdChoice(1.0, "manual", "by eye", 1)
    quantiles = Quantiles(0.0, 0.1, 0.0, 0.1)
    return LoadedRecipe(Recipe("r", 1, "S", geometry, quantiles, choice, "0" * 64), net)


def inspections(loaded: LoadedRecipe, frames: list[PixelArray]) -> list[Inspection]:
    backend = TorchCpuBackend(loaded, 1, maps=True)
    active = ActiveRef(
        Active(loaded.recipe.id, Policy(1.0), backend, loaded.recipe.geometry)
    )  # fmt: skip
    batches = [
        (Frame(FrameMeta(n, time.monotonic_ns(), 0), pixels),) for n, pixels in enumerate(frames)
    ]
    return list(inspect(batches, active, 1, time.monotonic_ns))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("region", [None, REGION])
def test_maps_and_heatmaps_show_the_defect_where_it_is(fit: str, region: Rect | None) -> None:
    spot = Rect(140, 60, 24, 16)
    frame = SIZE if region or fit == "letterbox" else None
    loaded = random_recipe(Geometry(128, 160, fit=fit, region=region, frame=frame))
    before, after = inspections(loaded, [part(1), blotted(part(1), spot)])
    assert before.scores is not None
    assert after.scores is not None
    assert before.scores.anomaly_map is not None
    assert after.scores.anomaly_map is not None
    assert after.placement is not None
    change = np.abs(after.scores.anomaly_map - before.scores.anomaly_map)
    grey = grey_map(change, float(change.max()))
    over = over_frame(grey, after.placement, SIZE)
    alone = spread_out(grey, after.placement)
    picture = np.abs(overlay(np.zeros((*SIZE, 3), np.uint8), grey, 260, after.placement)).sum(2)
    for shown in (over, alone, picture):
        hot = np.argwhere(shown >= 0.75 * shown.max()) + 0.5
        y, x = hot.mean(0) * SIZE / shown.shape
        assert abs(x - (spot.x + spot.width / 2)) < 12
        assert abs(y - (spot.y + spot.height / 2)) < 12
    if region is not None:
        assert not over[: region.y].any()
        assert not over[:, region.x + region.width :].any()


def test_evaluation_finds_the_defect_where_it_is_marked(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spot = Rect(180, 60, 24, 16)
    for name in ("test/good", "test/blot", "ground_truth/blot"):
        (tmp_path / name).mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"test/good/{index}.png"), part(60 + index))
        cv2.imwrite(str(tmp_path / f"test/blot/{index}.png"), blotted(part(70 + index), spot))
        marked = np.zeros(SIZE, np.uint8)
        marked[spot.slices] = 255
        cv2.imwrite(str(tmp_path / f"ground_truth/blot/{index}_mask.png"), marked)
    cv2.imwrite(str(tmp_path / "test/good/other.png"), part(1)[:140])
    out = tmp_path / "report.json"
    command = ["evaluate", "--dataset", str(tmp_path), "--recipe", str(trained)]
    assert main([*command, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["image_auroc"] == 1
    assert report["pixel_auroc"] > 0.98
    assert report["au_pro"] > 0.9
    assert report["invalid"] == 1
    assert "good/other.png: frame has 260 x 140 pixels" in capsys.readouterr().err


def test_a_station_with_such_a_recipe(tmp_path: Path) -> None:
    """Frames of 200 x 150: the heatmap covers the frame, and is black outside of the region."""
    loaded = random_recipe(Geometry(128, 128, region=Rect(100, 50, 100, 100), frame=(150, 200)))
    save_recipe(tmp_path / "recipe", loaded.recipe, loaded.net)
    parts = write_parts(tmp_path / "parts", "nnn")
    cv2.imwrite(str(parts / "001.png"), part(1))
    config = write_config(
        tmp_path, tmp_path / "recipe", {"kind": "images", "path": "parts", "fps": 8},
        heatmaps={"when": "all", "style": "map"}, threshold=1e-9,
    )  # fmt: skip
    with Run(config) as run:
        subscriber = Subscriber(run.where(), start=Start.RUN, heatmaps=True)
        events = listen(subscriber)
        run.end()
        subscriber.close()
    reasons = [e.body.reason for e in events if isinstance(e, Decision)]
    assert reasons == [None, "unreadable", None]
    pictures = [e for e in events if isinstance(e, Heatmap)]
    assert pictures
    for heatmap in pictures:
        grey = cv2.imdecode(np.frombuffer(heatmap.image, np.uint8), cv2.IMREAD_UNCHANGED)
        assert grey is not None
        assert (heatmap.body.height, heatmap.body.width) == grey.shape == (48, 64)
        assert not grey[:16].any()
        assert not grey[:, :32].any()
        assert grey[20:44, 36:60].all()


def test_a_frame_of_another_size_is_invalid_and_says_why(trained: Path) -> None:
    loaded, said = load_recipe(trained), list[str]()
    active = ActiveRef(Active(loaded.recipe.id, Policy(1.0), TorchCpuBackend(loaded, 1)))
    frame = Frame(FrameMeta(1, time.monotonic_ns(), 0), part(1)[:140])
    (found,) = inspect(
        [(frame,)], active, 1, time.monotonic_ns, lambda _meta, error: said.append(str(error))
    )
    assert found.reason is Reason.UNREADABLE
    assert said == ["frame has 260 x 140 pixels, the recipe is for frames of 260 x 150"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with a mask, without a training."""
    folder = tmp_path_factory.mktemp("saved") / "r"
    loaded = random_recipe(with_mask(Geometry(128, 128, frame=SIZE), with_hole()))
    assert loaded.recipe.geometry == save_recipe(folder, loaded.recipe, loaded.net).geometry
    return folder


def changed(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (changed, "is not the file that recipe.yaml vouches for"),
        (cut, "is not the file that recipe.yaml vouches for"),
        (Path.unlink, "cannot be read: No such file"),
    ],
)
def test_a_mask_that_was_tampered_with_or_lost_is_refused(
    saved: Path, tmp_path: Path, change: object, complaint: str
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "r"))
    assert callable(change)
    change(folder / MASK_FILE)
    with pytest.raises(ArtifactError) as error:
        load_recipe(folder)
    assert str(error.value).startswith(f"{folder / MASK_FILE}: {complaint}")
    assert "\n" not in str(error.value)


def test_a_mask_that_nothing_vouches_for_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "r"))
    text = (folder / RECIPE_FILE).read_text()
    kept = [line for line in text.splitlines() if "mask_sha256" not in line]
    (folder / RECIPE_FILE).write_text("\n".join(kept) + "\n")
    with pytest.raises(ArtifactError, match=r"holds mask\.png, but recipe\.yaml has no"):
        load_recipe(folder)


@pytest.mark.parametrize("name", [MASK_FILE, MODEL_FILE])
def test_a_pipe_in_the_place_of_a_file_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "r"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ArtifactError, match="is not an ordinary file"):
        load_recipe(folder)


def test_a_dark_grey_of_a_drawn_mask_is_black(tmp_path: Path) -> None:
    picture = np.full((40, 60), 255, np.uint8)
    picture[:20] = 9
    cv2.imwrite(str(tmp_path / "m.png"), picture)
    assert np.array_equal(read_mask(tmp_path / "m.png"), picture == 255)


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (b"no picture", "is no picture of eight bits a pixel"),
        (np.full((*SIZE, 3), 255, np.uint8), "is no picture of eight bits a pixel"),
        (np.full(SIZE, 255, np.uint16), "is no picture of eight bits a pixel"),
        (np.full((9, 9), 255, np.uint8), "the mask has 9 x 9 pixels, the frame 260 x 150"),
        (np.zeros(SIZE, np.uint8), "leaves nothing to inspect"),
    ],
)
def test_a_mask_that_is_vouched_for_and_still_wrong(
    saved: Path, tmp_path: Path, picture: bytes | np.ndarray, complaint: str
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "r"))
    data = picture if isinstance(picture, bytes) else cv2.imencode(".png", picture)[1].tobytes()
    old = hashlib.sha256((folder / MASK_FILE).read_bytes()).hexdigest()
    (folder / MASK_FILE).write_bytes(data)
    text = (folder / RECIPE_FILE).read_text()
    (folder / RECIPE_FILE).write_text(text.replace(old, hashlib.sha256(data).hexdigest()))
    with pytest.raises(ArtifactError) as error:
        load_recipe(folder)
    assert str(error.value).startswith(f"{folder / MASK_FILE}: ")
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "case",
    [
        (("--region", "1,2,3"), 2, "--region 1,2,3: give X,Y,WIDTH,HEIGHT"),
        (("--region", "0,0,-5,9"), 2, "--region 0,0,-5,9: give"),
        (
            ("--region", "100,0,161,150"),
            2,
            "--region 100,0,161,150: 161 x 150 pixels from",
        ),
        (("--region", "0,0,0,9"), 2, "--region 0,0,0,9: 0 x 9 pixels from (0, 0) do not lie"),
        (("--fit", "squeeze"), 2, "invalid choice: 'squeeze'"),
        (("--mask", "/nowhere.png"), 3, "/nowhere.png: cannot be read"),
        (("--mask", "{root}/deep.png"), 3, "deep.png: is no picture of eight bits a colour"),
        (("--mask", "{root}/black.png"), 3, "black.png: the mask leaves nothing to inspect"),
        (("--mask", "{root}/glass.png"), 3, "glass.png: is transparent in places"),
        (("--mask", "{root}/small.png"), 3, "small.png: has 9 x 8 pixels, the frames of"),
        (("--fit", "letterbox", "--images", "{root}/mixed"), 3, "12.png: frame has 9 x 8 pixels"),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_line(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[tuple[str, ...], int, str],
) -> None:
    cv2.imwrite(str(images / "black.png"), np.zeros(SIZE, np.uint8))
    cv2.imwrite(str(images / "small.png"), np.full((8, 9), 255, np.uint8))
    cv2.imwrite(str(images / "deep.png"), np.full(SIZE, 100, np.uint16))
    cv2.imwrite(str(images / "glass.png"), np.full((*SIZE, 4), (255, 255, 255, 0), np.uint8))
    mixed = images / "mixed"
    shutil.copytree(images / "good", mixed, dirs_exist_ok=True)
    cv2.imwrite(str(mixed / "12.png"), np.full((8, 9), 255, np.uint8))
    more, code, complaint = case
    filled = [word.format(root=images) for word in more]
    assert main(arguments(images, tmp_path / "r", *filled)) == code
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()
