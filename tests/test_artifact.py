from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save_file

import efficientad_stream
from efficientad_stream import strict_yaml
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.recipe import Geometry, Quantiles, Recipe, ThresholdChoice
from efficientad_stream.model.artifact import (
    MODEL_FILE,
    RECIPE_FILE,
    default_teacher,
    file_bytes,
    load_recipe,
    load_teacher,
    refuse_overwrite,
    round_to_half,
    save_recipe,
    save_teacher,
)
from efficientad_stream.model.files import write_atomically
from efficientad_stream.model.networks import PDN, EfficientAD, Size

RECIPE = Recipe(
    name="tiles",
    revision=3,
    size="S",
    geometry=Geometry(256, 384),
    quantiles=Quantiles(0.1, 0.2, 1e-7, 3e-5),
    threshold=ThresholdChoice(0.4, "manual", "by eye", 0),
    model_sha256="",
    training={"steps": 5, "by": "somebody"},
)


@pytest.fixture(scope="module")
def net() -> EfficientAD:
    torch.manual_seed(0)
    made = EfficientAD("S")
    made.mean.normal_()
    made.std.uniform_(1e-6, 2.0)
    round_to_half(made)
    return made


@pytest.fixture(scope="module")
def made(net: EfficientAD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that no test may change."""
    folder = tmp_path_factory.mktemp("recipes") / "tiles"
    save_recipe(folder, RECIPE, net)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A recipe to be damaged."""
    copy = tmp_path / "tiles"
    copy.mkdir()
    for name in (RECIPE_FILE, MODEL_FILE):
        (copy / name).write_bytes((made / name).read_bytes())
    return copy


def vouch(folder: Path) -> None:
    """Make the YAML vouch for whatever model file there is: only deeper checks are left."""
    path = folder / RECIPE_FILE
    mapping = strict_yaml.parse(path.read_bytes()).value
    mapping["model_sha256"] = hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()
    path.write_text(strict_yaml.dump(mapping))


def one_line(error: pytest.ExceptionInfo[ArtifactError], path: Path) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_recipe_comes_back_as_it_was(made: Path, net: EfficientAD) -> None:
    loaded = load_recipe(made)
    sha256 = hashlib.sha256((made / MODEL_FILE).read_bytes()).hexdigest()
    assert loaded.recipe == replace(RECIPE, model_sha256=sha256)
    before, after = net.state_dict(), loaded.net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(value.dtype == torch.float32 for value in after.values())
    assert not loaded.net.training
    assert not any(p.requires_grad for p in loaded.net.parameters())


def test_convolutions_take_two_bytes_a_weight(made: Path) -> None:
    tensors = load_file(made / MODEL_FILE)
    assert {name for name, value in tensors.items() if value.dtype == torch.float32} == {
        "mean",
        "std",
    }
    assert {value.dtype for name, value in tensors.items() if "conv" in name} == {torch.float16}
    assert sorted(path.name for path in made.iterdir()) == [MODEL_FILE, RECIPE_FILE]
    assert stat.S_IMODE((made / MODEL_FILE).stat().st_mode) == 0o644


def test_what_was_not_rounded_before_calibration_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not rounded"):
        save_recipe(tmp_path / "r", RECIPE, EfficientAD("S"))
    assert not (tmp_path / "r").exists()


def test_weights_beyond_half_precision_are_refused() -> None:
    net = EfficientAD("S")
    net.student.conv2.weight.data[0, 0, 0, 0] = 1e6
    with pytest.raises(ArtifactError, match=r"student\.conv2\.weight"):
        round_to_half(net)


def test_a_recipe_is_never_overwritten(made: Path, net: EfficientAD) -> None:
    before = (made / RECIPE_FILE).read_bytes()
    with pytest.raises(ArtifactError, match="next revision into a folder beside it"):
        save_recipe(made, RECIPE, net)
    assert (made / RECIPE_FILE).read_bytes() == before


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.touch()
    with pytest.raises(ArtifactError, match="is not a folder"):
        refuse_overwrite(path)


def test_no_recipe_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"recipe\.yaml is missing") as error:
        load_recipe(tmp_path)
    one_line(error, tmp_path)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_changed_bit_is_found(folder: Path, made: Path, position: float, bit: int) -> None:
    data = bytearray((made / MODEL_FILE).read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    (folder / MODEL_FILE).write_bytes(data)
    with pytest.raises(
        ArtifactError, match=r"is not the file that recipe\.yaml vouches for"
    ) as error:
        load_recipe(folder)
    one_line(error, folder / MODEL_FILE)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("vouched", [False, True])
def test_a_truncated_model(folder: Path, share: float, vouched: bool) -> None:
    path = folder / MODEL_FILE
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    if vouched:
        vouch(folder)
    with pytest.raises(ArtifactError, match="truncated") as error:
        load_recipe(folder)
    assert "copy it again" in one_line(error, path)


def test_a_missing_model(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()
    with pytest.raises(ArtifactError, match="No such file"):
        load_recipe(folder)


Change = Callable[[dict[str, torch.Tensor]], None]


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["student.conv2.weight"]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["extra"] = torch.zeros(1)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["mean"] = torch.zeros(5)


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["teacher.conv1.bias"][0] = float("nan")


def count(tensors: dict[str, torch.Tensor]) -> None:
    tensors["std"] = torch.ones(384, dtype=torch.int64)


def flatten(tensors: dict[str, torch.Tensor]) -> None:
    tensors["std"][7] = 0.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop, "student.conv2.weight is missing"),
        (add, "extra does not belong here"),
        (reshape, "mean has the shape (5,), not (384,)"),
        (poison, "teacher.conv1.bias holds values that are not finite"),
        (count, "std holds values that are not finite"),
        (flatten, "std holds values that are not positive"),
    ],
)
def test_a_model_that_is_vouched_for_and_still_wrong(
    folder: Path, change: Change, complaint: str
) -> None:
    path = folder / MODEL_FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    vouch(folder)
    with pytest.raises(ArtifactError) as error:
        load_recipe(folder)
    assert complaint in one_line(error, path)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("height: 256", "height: 255", "line 6: input.height: 255"),
        ("qa_st: 0.1", "qa_st: .nan", "line 11: .nan is not a finite number"),
        ("value: 0.4", "value: [", "not YAML"),
        ("name: tiles", "nmae: tiles", "name: missing"),
        ("revision: 3", "revision: 3\nrevision: 4", "line 4: revision: given twice"),
        ("size: S", "size: M", "student.conv5.bias is missing"),
    ],
)
def test_a_damaged_yaml(folder: Path, old: str, new: str, complaint: str) -> None:
    path = folder / RECIPE_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ArtifactError) as error:
        load_recipe(folder)
    assert complaint in one_line(error, folder)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200), at=st.floats(0, 1))
def test_no_yaml_gets_past_with_anything_but_one_line(
    folder: Path, made: Path, data: bytes, at: float
) -> None:
    whole = (made / RECIPE_FILE).read_bytes()
    cut = int(at * len(whole))
    (folder / RECIPE_FILE).write_bytes(whole[:cut] + data + whole[cut + len(data) :])
    try:
        loaded = load_recipe(folder)
    except ArtifactError as error:
        assert "\n" not in str(error)
        assert str(folder) in str(error)
    else:
        assert loaded.recipe.model_sha256


def test_a_teacher_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pdn = PDN("M")
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, pdn, {"steps": "7", "kind": "cannot be overridden"})
    loaded = load_teacher(path)
    assert loaded.size == loaded.pdn.size == "M"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.info["steps"] == "7"
    assert loaded.info["kind"] == "teacher"
    for name, value in pdn.state_dict().items():
        assert torch.equal(loaded.pdn.state_dict()[name], value.half().float())
    assert not any(p.requires_grad for p in loaded.pdn.parameters())


def test_a_teacher_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    pdn = PDN("S")
    pdn.conv1.weight.data[3] = float("inf")
    with pytest.raises(ArtifactError, match=r"conv1\.weight"):
        save_teacher(tmp_path / "t.safetensors", pdn, {})
    assert not list(tmp_path.iterdir())


def test_what_is_no_teacher(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a teacher of this package"):
        load_teacher(made / MODEL_FILE)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"conv1.weight": torch.zeros(3)}, foreign, {"kind": "teacher", "size": "S"})
    with pytest.raises(ArtifactError, match="is missing"):
        load_teacher(foreign)
    save_file({"conv1.weight": torch.zeros(3)}, foreign, {"kind": "teacher", "size": "XL"})
    with pytest.raises(ArtifactError, match="neither S nor M"):
        load_teacher(foreign)
    foreign.write_bytes(b"not safetensors at all")
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        load_teacher(foreign)
    with pytest.raises(ArtifactError, match="No such file"):
        load_teacher(tmp_path / "nowhere")


@pytest.mark.parametrize("size", ["S", "M"])
def test_the_shipped_teachers_are_those_of_their_cards(size: Size) -> None:
    teacher = default_teacher(size)
    assert teacher.pdn.size == size
    card = Path(efficientad_stream.__file__).parent / "assets" / f"teacher_{size.lower()}.md"
    assert f"`{teacher.sha256}`" in card.read_text()


def test_a_package_without_teachers_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    with pytest.raises(ArtifactError, match=r"no teacher of size M .*--teacher"):
        default_teacher("M")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"a file where a folder is wanted")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_atomically(blocked / "model", b"x")
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_atomically(target, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_the_same_content_is_the_same_bytes() -> None:
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    notes = {"kind": 'é \\ "', "size": "S", "more": "x" * 50, "and": "so on"}
    files = {file_bytes(tensors, dict(reversed(list(notes.items())))) for _ in range(20)}
    files |= {file_bytes(tensors, notes) for _ in range(20)}
    assert len(files) == 1
    data = files.pop()
    found = load(data)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"] == notes
