"""Layouts of labelled data sets: told apart, read, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.dataset import find_datasets, read_regions
from efficientad_stream.model.layouts.labelled import Labelled, Saturation

SHAPE = (20, 30)


def write(path: Path, image: PixelArray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((*SHAPE, 3), np.uint8) if image is None else image)


def mask(value: int, *boxes: tuple[int, int, int, int]) -> PixelArray:
    marked = np.zeros(SHAPE, np.uint8)
    for top, bottom, left, right in boxes:
        marked[top:bottom, left:right] = value
    return marked


def mvtec(root: Path) -> Path:
    for name in ("good/0", "scratch/1", "scratch/2"):
        write(root / f"test/{name}.png")
    marked = mask(255, (2, 5, 2, 5), (5, 6, 5, 6))  # they touch by a corner
    marked[10:12, 20:25] = 1
    write(root / "ground_truth/scratch/1_mask.png", marked)
    return root


DEFECTS: list[dict[str, Any]] = [
    {
        "defect_name": "missing",
        "pixel_value": 255,
        "saturation_threshold": 0.5,
        "relative_saturation": True,
    },
    {
        "defect_name": "bent",
        "pixel_value": 254,
        "saturation_threshold": 4,
        "relative_saturation": False,
    },
]


def loco(root: Path, config: object = DEFECTS) -> Path:
    for name in ("good/000", "logical_anomalies/000", "structural_anomalies/000"):
        write(root / f"test/{name}.png")
    (root / "defects_config.json").write_text(json.dumps(config))
    truth = root / "ground_truth"
    # two areas, but one anomaly; and a second that overlaps it
    write(truth / "logical_anomalies/000/000.png", mask(255, (0, 2, 0, 5), (10, 12, 0, 5)))
    write(truth / "logical_anomalies/000/001.png", mask(254, (0, 3, 0, 3)))
    write(truth / "structural_anomalies/000/000.png", mask(254, (0, 1, 0, 3)))
    return root


ANNOTATED = "image,label,mask\n" + "".join(
    f"{name}/Data/Images/Anomaly/{index}.JPG,{label},{name}/Data/Masks/Anomaly/{index}.png\n"
    for name in ("candle", "fryum")
    for index, label in (("000", "chip"), ("001", '"chip,stuck together"'), ("002", ""))
)


def visa(root: Path) -> Path:
    rows = ["object,split,label,image,mask"]
    for name in ("candle", "fryum"):
        data = root / name / "Data"
        for index in range(3):
            write(data / f"Images/Normal/{index:04}.JPG")
            split = "train" if index == 0 else "test"
            rows.append(f"{name},{split},normal,{name}/Data/Images/Normal/{index:04}.JPG,")
        for index in range(3):
            write(data / f"Images/Anomaly/{index:03}.JPG")
            write(data / f"Masks/Anomaly/{index:03}.png", mask(index + 1, (3, 6, 3, 6)))
            image = f"{name}/Data/Images/Anomaly/{index:03}.JPG"
            rows.append(f"{name},test,anomaly,{image},{name}/Data/Masks/Anomaly/{index:03}.png")
        (root / name / "image_anno.csv").write_text(ANNOTATED)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def plain(root: Path) -> Path:
    for name in ("good/0", "good/1", "dent/0"):
        write(root / f"{name}.png")
    return root


def only(root: Path) -> list[Labelled]:
    (dataset,) = find_datasets(root)
    assert dataset.root == root
    return dataset.items


def test_mvtec(tmp_path: Path) -> None:
    items = only(mvtec(tmp_path))
    assert [(item.name, item.kind, item.defective) for item in items] == [
        ("good/0.png", "good", False),
        ("scratch/1.png", "scratch", True),
        ("scratch/2.png", "scratch", True),
    ]
    assert [len(item.masks) for item in items] == [0, 1, 0]
    regions = read_regions(items[1], *SHAPE)
    assert [region.inside.size for region in regions] == [10, 10]
    assert [region.saturation for region in regions] == [10, 10]
    assert set(regions[0].inside) == {y * 30 + x for y in (2, 3, 4) for x in (2, 3, 4)} | {155}
    assert read_regions(items[0], *SHAPE) == []


def test_a_mask_may_have_the_name_of_its_image(tmp_path: Path) -> None:
    truth = mvtec(tmp_path) / "ground_truth/scratch"
    (truth / "1_mask.png").rename(truth / "1.png")
    assert [item.masks for item in only(tmp_path)] == [(), (truth / "1.png",), ()]


def test_loco(tmp_path: Path) -> None:
    (dataset,) = find_datasets(loco(tmp_path))
    assert dataset.layout == "MVTec LOCO"
    good, logical, structural = dataset.items
    assert [good.kind, logical.kind, structural.kind] == [
        "good",
        "logical_anomalies",
        "structural_anomalies",
    ]
    assert [(r.inside.size, r.saturation) for r in read_regions(logical, *SHAPE)] == [
        (20, 10),  # half of its pixels
        (9, 4),  # four pixels
    ]
    (small,) = read_regions(structural, *SHAPE)
    assert (small.inside.size, small.saturation) == (3, 3), "never more than there are"
    assert read_regions(good, *SHAPE) == []


@given(st.integers(1, 10**6), st.floats(1e-9, 1e7), st.booleans())
def test_a_saturation_is_between_one_pixel_and_all(
    pixels: int, amount: float, relative: bool
) -> None:
    amount = min(amount, 1.0) if relative else amount
    assert 1 <= Saturation(amount, relative).of(pixels) <= pixels


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ([], "is not a list of defects"),
        ({}, "is not a list of defects"),
        ([3], "defect 0 needs pixel_value"),
        ([DEFECTS[0], {**DEFECTS[1], "pixel_value": 0}], "defect 1 needs"),
        ([{**DEFECTS[0], "saturation_threshold": 1.5}], "at most 1 if relative"),
        ([{**DEFECTS[0], "saturation_threshold": float("nan")}], "saturation_threshold"),
        ([{**DEFECTS[0], "relative_saturation": "yes"}], "true or false"),
    ],
)
def test_bad_saturation_thresholds(tmp_path: Path, config: object, problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem) as caught:
        find_datasets(loco(tmp_path, config))
    assert "\n" not in str(caught.value)


def test_saturation_thresholds_that_cannot_be_read(tmp_path: Path) -> None:
    path = loco(tmp_path) / "defects_config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="is not JSON"):
        find_datasets(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="comes with MVTec LOCO"):
        find_datasets(tmp_path)


def test_a_defect_that_the_configuration_does_not_know(tmp_path: Path) -> None:
    item = only(loco(tmp_path, DEFECTS[:1]))[2]
    with pytest.raises(ArtifactError, match="marks a defect with 254, which is not in"):
        read_regions(item, *SHAPE)


def test_visa_as_a_whole_and_by_category(tmp_path: Path) -> None:
    datasets = find_datasets(visa(tmp_path))
    assert [(d.name, d.layout) for d in datasets] == [("candle", "VisA"), ("fryum", "VisA")]
    items = only(tmp_path / "fryum")
    assert items == datasets[1].items
    assert [(item.name, item.kind) for item in items] == [
        ("Anomaly/000.JPG", "chip"),
        ("Anomaly/001.JPG", "several defects"),
        ("Anomaly/002.JPG", "anomaly"),
        ("Normal/0001.JPG", "good"),
        ("Normal/0002.JPG", "good"),
    ]
    assert [region.inside.size for region in read_regions(items[2], *SHAPE)] == [9]


def test_visa_without_its_split(tmp_path: Path) -> None:
    split = visa(tmp_path) / "split_csv/1cls.csv"
    text = split.read_text()
    split.write_text(text.replace("label", "labels", 1))
    with pytest.raises(ArtifactError, match="lacks the column 'label'"):
        find_datasets(tmp_path)
    split.write_text(text.replace("Anomaly/001.JPG", "Anomaly/009.JPG"))
    with pytest.raises(ArtifactError, match=r"Anomaly/009\.JPG', which is not there"):
        find_datasets(tmp_path)
    split.write_text(text.split("fryum")[0])
    with pytest.raises(ArtifactError, match="no good or no defective test images of 'fryum'"):
        find_datasets(tmp_path / "fryum")
    split.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="is not CSV"):
        find_datasets(tmp_path)
    split.unlink()
    with pytest.raises(ArtifactError, match="it comes with VisA"):
        find_datasets(tmp_path / "candle")


@given(st.text(max_size=200))
def test_no_split_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("visa")
    (root / "split_csv").mkdir()
    header = "object,split,label,image,mask\n"
    (root / "split_csv/1cls.csv").write_text(header + text, encoding="utf-8")
    with pytest.raises(ArtifactError):
        find_datasets(root)


def test_a_plain_folder(tmp_path: Path) -> None:
    (dataset,) = find_datasets(plain(tmp_path))
    assert dataset.layout == "plain folder"
    assert [(item.name, item.kind) for item in dataset.items] == [
        ("dent/0.png", "dent"),
        ("good/0.png", "good"),
        ("good/1.png", "good"),
    ]


def test_a_folder_of_categories(tmp_path: Path) -> None:
    plain(tmp_path / "b")
    mvtec(tmp_path / "a")
    loco(tmp_path / "c")
    (tmp_path / "license").mkdir()
    found = find_datasets(tmp_path)
    assert [(d.name, d.layout) for d in found] == [
        ("a", "MVTec AD"),
        ("b", "plain folder"),
        ("c", "MVTec LOCO"),
    ]


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    item = only(mvtec(tmp_path))[1]
    with pytest.raises(ArtifactError, match="has 30 x 20 pixels, its image 30 x 21"):
        read_regions(item, 21, 30)


def test_what_is_no_labelled_data_set(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="layout of MVTec AD"):
        find_datasets(tmp_path)
    write(tmp_path / "test/good/0.png")
    with pytest.raises(ArtifactError, match="in at least one folder named after a defect"):
        find_datasets(tmp_path)
