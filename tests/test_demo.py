"""The demo: its account and picture, its processes, and the whole of it with real ones."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from daemon_kit import make_recipe
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.commands import demo
from efficientad_stream.commands.demo import account, picture, station
from efficientad_stream.commands.demo.children import Child
from efficientad_stream.config import SimulatedSource, load
from efficientad_stream.core import text
from efficientad_stream.core.errors import ArtifactError, ConfigError, FatalError
from efficientad_stream.core.messages import DECISION, Decision, DecisionBody, Header
from efficientad_stream.core.types import Verdict
from efficientad_stream.model.artifact import load_recipe
from efficientad_stream.sources.rendering.defects import LOGICAL

ROOT = Path(__file__).resolve().parent.parent


def decision(seq: int, truth: str = "good", verdict: Verdict = Verdict.PASS) -> Decision:
    """The verdict on part ``seq - 1``, a quarter of a second after the one before."""
    score = {Verdict.PASS: 0.2, Verdict.FAIL: 0.9, Verdict.INVALID: None}[verdict]
    body = DecisionBody(
        station="demo",
        frame_id=seq,
        part_id=f"sim-{seq - 1:06d}",
        encoder=None,
        score=score,
        threshold=0.5,
        reason="overrun" if verdict is Verdict.INVALID else None,
        recipe="demo",
        recipe_rev=1,
        model_sha256="0" * 64,
        captured_at=1_000_000 * seq,
        latency_us=100_000 + seq,
        truth=truth,
    )
    return Decision(Header(DECISION, verdict, seq, 77, published_us=250_000 * seq), body)


@given(st.integers(1, 2**32 - 1), st.sampled_from(["good", "crack"]), st.sampled_from(Verdict))
def test_a_line_of_watch_is_read_back_as_the_decision_it_was(
    seq: int, truth: str, verdict: Verdict
) -> None:
    if verdict is not Verdict.NONE:
        before = decision(seq, truth, verdict)
        assert account.read(text.decision_json(before)) == before


@pytest.mark.parametrize(
    "line", ["", "12 parts", "[]", "{}", '{"verdict": "MAYBE"}', '{"verdict":"PASS","seq":1}']
)
def test_anything_else_is_no_decision(line: str) -> None:
    with pytest.raises(ValueError, match="not a decision"):
        account.read(line)


@given(st.integers(1, 40))
def test_one_verdict_a_part_in_order_is_the_promise_kept(parts: int) -> None:
    assert account.problems([decision(seq) for seq in range(1, parts + 1)], parts) == []


@given(st.integers(2, 40), st.data())
def test_a_verdict_too_few_too_many_or_out_of_order_is_noticed(
    parts: int, data: st.DataObject
) -> None:
    kept = [decision(seq) for seq in range(1, parts + 1)]
    at = data.draw(st.integers(0, parts - 1))
    assert account.problems(kept[:at] + kept[at + 1 :], parts)
    assert account.problems([*kept[: at + 1], *kept[at:]], parts)
    if at:
        swapped = [*kept[: at - 1], kept[at], kept[at - 1], *kept[at + 1 :]]
        assert account.problems(swapped, parts)


def test_two_verdicts_for_one_part_are_noticed_though_the_seq_is_whole() -> None:
    twice = [decision(1), decision(2), Decision(decision(3).header, decision(2).body)]
    assert account.problems(twice, 3) == [
        "no verdict for part 2",
        "more than one verdict for part 1",
    ]


def test_the_summary_counts_against_the_truth() -> None:
    seen = [
        decision(1),
        decision(2, "crack", Verdict.FAIL),
        decision(3, "stain"),
        decision(4, "good", Verdict.FAIL),
        decision(5, "good", Verdict.INVALID),
    ]
    assert account.summary(seen) == [
        "parts          5: 3 good, 2 defective",
        "verdicts       2 PASS, 2 FAIL, 1 INVALID (overrun 1)",
        "escapes        1 of 2 defective: stain 1",
        "false rejects  1 of 3 good: part 3",
        "latency        p50 100 ms, p99 100 ms",
        "rate           4.0 parts/s",
    ]
    assert account.summary(seen, 4.0)[-1] == "rate           4.0 parts/s"
    assert account.summary(seen, 5.0)[-1].startswith("rate           4.0 parts/s, less than the 5 ")
    assert account.summary([])[0] == "parts          0: 0 good, 0 defective"


def test_the_picture_shows_right_and_wrong_of_every_kind() -> None:
    seen = [decision(seq) for seq in range(1, 30)]
    seen += [decision(30 + k, "dent", Verdict.FAIL) for k in range(9)]
    seen += [decision(40, "missing_screw", Verdict.FAIL), decision(41, "stain")]
    seen += [decision(42, "good", Verdict.FAIL), decision(43, "crack", Verdict.FAIL)]
    chosen = account.choose(seen, LOGICAL, 6)
    assert [d.body.truth for d in chosen] == [
        *("good", "good", "dent", "missing_screw", "crack", "stain")
    ]
    assert [d.header.seq for d in chosen[:2]] == [1, 42]
    assert account.choose(seen[:3], LOGICAL, 6) == seen[:3]
    assert account.choose([], LOGICAL, 6) == []


def test_the_picture_has_a_card_for_every_part(tmp_path: Path) -> None:
    frame = np.full((480, 640, 3), (200, 30, 40), np.uint8)
    heatmap = np.full((90, 120, 3), (10, 220, 30), np.uint8)
    shown = [
        picture.Shown(decision(k + 1, "crack", verdict), frame, heatmap)
        for k, verdict in enumerate([Verdict.PASS, Verdict.FAIL, Verdict.INVALID])
    ]
    picture.save(tmp_path / "page.png", picture.draw(shown))
    page = picture.read_heatmap(tmp_path / "page.png")
    assert page.shape[0] == 2 * (picture.PANEL[0] + picture.BAR) + picture.GAP
    assert (page[100, 100] == frame[0, 0]).all()
    assert (page[100, picture.PANEL[1] + 100] == heatmap[0, 0]).all()
    assert (page[picture.PANEL[0] + 3, 3] == picture.VERDICTS[Verdict.PASS]).all()
    with pytest.raises(ArtifactError, match="cannot be written"):
        picture.save(tmp_path / "nowhere" / "page.png", page)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ArtifactError, match=r"bad\.jpg"):
        picture.read_heatmap(tmp_path / "bad.jpg")


def test_captions_say_why_and_what_is_wrong() -> None:
    assert picture.why(decision(1)) == "score 0.200 < 0.500"
    assert picture.why(decision(1, "crack", Verdict.FAIL)) == "score 0.900 >= 0.500"
    assert picture.why(decision(1, "good", Verdict.INVALID)) == "overrun"
    assert picture.truth(decision(1, "missing_screw"))[0] == "escape: missing screw"
    assert picture.truth(decision(1, "good", Verdict.FAIL))[0] == "false reject: good"
    assert picture.truth(decision(1, "crack", Verdict.FAIL))[0] == "crack"


def test_a_child_gives_its_lines_and_ends_well(tmp_path: Path) -> None:
    with Child("schema", ["config", "schema"], tmp_path / "log") as child:
        lines = []
        while child.running:
            lines += list(child.lines(5.0))
        lines += list(child.lines(0))
        child.expect_success()
    assert "properties" in msgspec.json.decode("\n".join(lines))["$defs"]["Config"]


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    child = Child("the daemon", ["run", "nowhere.yaml"], tmp_path / "log")
    why = pytest.raises(FatalError, match=r"the daemon ended with code 2: .*nowhere\.yaml")
    with child, why:
        child.expect_success(30.0)


def test_a_child_is_stopped_when_its_block_ends(tmp_path: Path) -> None:
    with Child("watch", ["watch", "tcp://127.0.0.1:9"], tmp_path / "log") as child:
        with pytest.raises(FatalError, match="watch does not end"):
            child.expect_success(0.1)
        assert child.running
    assert not child.running


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("words", ["--parts=0", "--fps=nan", "--defect-rate=2", "--seed=-1"])
def test_a_bad_argument_is_named(words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words.partition('=')[0]} "):
        demo.run(parse(words))


def test_without_a_recipe_or_a_folder_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="none: is not a recipe"):
        demo.run(parse("--recipe", str(tmp_path / "none"), "--out", str(tmp_path / "out")))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file: cannot be used"):
        demo.run(parse("--out", str(tmp_path / "file")))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("recipe") / "noise")


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    words = ["demo", "--recipe", str(recipe), "--out", str(out), "--defect-rate", "0.5", *more]
    return [sys.executable, "-m", "efficientad_stream", *words]


def test_the_whole_demo_twice_into_the_same_folder(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for parts in ("7", "4"):
        done = subprocess.run(
            command(recipe, out, "--parts", parts, "--fps", "0"),
            cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + (out / "daemon.log").read_text()
        assert f"{parts}/{parts}" in done.stdout
        assert f"parts          {parts}: " in done.stdout
        assert "promise kept" in done.stdout
        assert len(list((out / "heatmaps").iterdir())) <= int(parts)
    config = load(out / "station.yaml")
    assert isinstance(config.source, SimulatedSource)
    assert config.source.parts == 4
    page = picture.read_heatmap(out / "demo.png")
    assert page.shape[0] >= picture.PANEL[0] + picture.BAR


def test_a_terminated_demo_leaves_no_process_behind(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        command(recipe, out, "--parts", "10000", "--fps", "2"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        while "1/10000" not in (line := running.stdout.readline()):
            assert line, running.communicate()
        assert len(processes(out)) == 3
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
    assert running.returncode == 130
    assert processes(out) == []


def processes(out: Path) -> list[int]:
    """Those that have ``out`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:  # it has just ended
                continue
            if str(out).encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not station.RECIPE.exists(), reason="no demo recipe in this checkout")
def test_the_recipe_that_comes_along_fits_the_simulated_line() -> None:
    recipe = load_recipe(station.RECIPE).recipe
    assert (recipe.geometry.height, recipe.geometry.width) == (128, 160)
    assert recipe.geometry.channels == 3
