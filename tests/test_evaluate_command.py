"""Reports of ``evaluate`` as a user meets them, with the recipe that comes along."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import efficientad_stream
from efficientad_stream.cli import main
from efficientad_stream.commands.evaluate.histogram import WIDTH, histogram
from efficientad_stream.core.evaluation import auroc
from efficientad_stream.model.corruptions import CORRUPTIONS

RECIPE = Path(efficientad_stream.__file__).parent / "assets" / "demo_recipe"
SHAPE = (64, 80)
NASTY = "<b>&\"x'"
"""A defect's name that is markup; file names may be anything."""


def image(seed: int, blot: bool) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(90, 110, (*SHAPE, 3), dtype=np.uint8)
    if blot:
        pixels[20:40, 30:50] = 255
    return pixels


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def product(root: Path, *kinds: str) -> Path:
    """Three good images and two of each kind of defect, with masks, as MVTec AD has them."""
    for index in range(3):
        write(root / f"test/good/{index}.png", image(index, blot=False))
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:40, 30:50] = 255
    for kind in kinds:
        for index in range(2):
            write(root / f"test/{kind}/{index}.png", image(10 + index, blot=True))
            write(root / f"ground_truth/{kind}/{index}_mask.png", mask)
    return root


def loco(root: Path) -> Path:
    product(root, "logical_anomalies", "structural_anomalies")
    for kind in ("logical_anomalies", "structural_anomalies"):
        for index in range(2):
            mask = root / f"ground_truth/{kind}/{index}_mask.png"
            (mask.parent / str(index)).mkdir()
            mask.rename(mask.parent / str(index) / "000.png")
    entry = {"pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
    (root / "defects_config.json").write_text(json.dumps([entry]))
    return root


def evaluate(dataset: Path, recipe: Path, out: Path, *more: str) -> dict[str, Any]:
    files = [f"--{kind}={out / kind}" for kind in ("json", "markdown", "html")]
    words = ["evaluate", "--dataset", str(dataset), "--recipe", str(recipe), "--threads", "1"]
    assert main([*words, *files, *more]) == 0
    report: dict[str, Any] = json.loads((out / "json").read_text())
    return report


class Page(HTMLParser):
    """Collects what a page shows and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [v or "" for name, v in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_else_and_shows_what_went_wrong(tmp_path: Path) -> None:
    dataset = product(tmp_path / "part", NASTY)
    report = evaluate(dataset, RECIPE, tmp_path, "--threshold", "1e9")
    assert report["escapes"] == 2
    page = Page(tmp_path / "html")
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "url(" not in (tmp_path / "html").read_text()
    assert "b" in page.tags
    assert f"{NASTY}/0.png" in page.words
    assert "<b>&" not in (tmp_path / "html").read_text()
    assert "svg" in page.tags
    report = evaluate(dataset, RECIPE, tmp_path, "--threshold", "-1")
    assert report["false_rejects"] == 3
    page = Page(tmp_path / "html")
    assert len(page.sources) == 3
    shown = [word for word in page.words if word.startswith("good/")]
    worst_first = sorted((one for one in report["images"] if one["truth"] == "good"),
                         key=lambda one: -one["score"])  # fmt: skip
    assert shown == [one["path"] for one in worst_first]


def test_names_do_not_break_a_table(tmp_path: Path) -> None:
    evaluate(product(tmp_path / "part", "a|b"), RECIPE, tmp_path)
    rows = [r for r in (tmp_path / "markdown").read_text().splitlines() if r.startswith("|")]
    first = rows[: next(i for i, row in enumerate(rows) if "all defects" in row) + 1]
    assert any(row.startswith("| a\\|b |") for row in first)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in first}) == 1


def test_corruptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluate(product(tmp_path / "part", "blot"), RECIPE, tmp_path, "--corruptions")
    table = report["corruptions"]
    assert list(table) == ["clean", *(corruption.name for corruption in CORRUPTIONS)]
    assert table["clean"]["image_auroc"] == report["image_auroc"]
    assert table["clean"]["points_lost"] == 0
    for one in table.values():
        lost = 100 * (report["image_auroc"] - one["image_auroc"])
        assert one["points_lost"] == pytest.approx(lost)
        assert (one["defective"], one["good"]) == (2, 3)
    assert report["defects_marked"] == 2, "only the clean maps count"
    out = capsys.readouterr().out
    assert all(name in out and name in (tmp_path / "markdown").read_text() for name in table)
    plain = evaluate(tmp_path / "part", RECIPE, tmp_path)
    assert "corruptions" not in plain
    assert plain["images"] == report["images"]


def test_loco_reports_its_kinds_apart_and_their_mean(tmp_path: Path) -> None:
    report = evaluate(loco(tmp_path / "box"), RECIPE, tmp_path)
    kinds = report["per_defect"]
    assert list(kinds) == ["logical_anomalies", "structural_anomalies"]
    for key in ("image_auroc", "au_spro", "au_spro_0.3"):
        values = [one[key] for one in kinds.values()]
        assert report["mean_of_kinds"][key] == pytest.approx(np.mean(values))
    assert kinds["logical_anomalies"]["au_spro"] >= kinds["logical_anomalies"]["au_pro_0.05"]
    scores = {(one["truth"], one["score"]) for one in report["images"]}
    some = [pair for pair in scores if pair[0] in ("good", "logical_anomalies")]
    area = auroc([score for _, score in some], [kind != "good" for kind, _ in some])
    assert kinds["logical_anomalies"]["image_auroc"] == area


def test_several_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, recipes = tmp_path / "set", tmp_path / "recipes"
    product(root / "a", "blot")
    loco(root / "b")
    for name in "ab":
        shutil.copytree(RECIPE, recipes / name)
    report = evaluate(root, recipes, tmp_path)
    assert list(report["categories"]) == list(report["images"]) == ["a", "b"]
    areas = [one["image_auroc"] for one in report["categories"].values()]
    assert report["mean"]["image_auroc"] == pytest.approx(np.mean(areas))
    assert report["mean"]["au_spro"] is None, "only one of them has it"
    out = capsys.readouterr().out
    assert re.search(r"^mean +\d", out, re.MULTILINE)
    assert (tmp_path / "markdown").read_text().startswith("## 2 categories of ")
    assert Page(tmp_path / "html").tags.count("section") == 2
    shutil.rmtree(recipes / "b")
    words = ["evaluate", "--dataset", str(root), "--recipe", str(recipes)]
    assert main(words) == 3
    assert f"{recipes / 'b'}: is not a recipe" in capsys.readouterr().err


def test_images_of_a_plain_folder_have_no_pixel_figures(tmp_path: Path) -> None:
    for index in range(2):
        write(tmp_path / f"set/good/{index}.png", image(index, blot=False))
        write(tmp_path / f"set/blot/{index}.png", image(index, blot=True))
    report = evaluate(tmp_path / "set", RECIPE, tmp_path)
    assert report["layout"] == "plain folder"
    assert (report["pixel_auroc"], report["au_pro"], report["defects_marked"]) == (None, None, 0)
    assert report["image_auroc"] is not None


scores = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=20)


@given(scores, scores, st.floats(-1e6, 1e6))
def test_any_scores_can_be_drawn(good: list[float], bad: list[float], threshold: float) -> None:
    drawing = histogram(good, bad, threshold)
    finite = [score for score in good + bad if math.isfinite(score)]
    assert bool(drawing) == bool(finite)
    if not drawing:
        return
    root = ElementTree.fromstring(drawing)  # noqa: S314 - made right here
    assert ("threshold" in "".join(root.itertext())) == bool(finite)
    for kind, values in (("good", good), ("bad", bad)):
        bars = [bar for bar in root.iter("rect") if bar.get("class") == kind]
        assert bool(bars) == any(math.isfinite(value) for value in values)
        assert all(0 <= float(bar.get("x", "-1")) <= WIDTH for bar in bars)
