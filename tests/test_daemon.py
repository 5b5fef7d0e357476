"""The daemon from end to end: a process, real images, a real network, real sockets."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from daemon_kit import (
    Run,
    decisions,
    listen,
    make_recipe,
    noise,
    plain,
    write_config,
    write_parts,
)

from efficientad_stream.backends.torch_cpu import TorchCpuBackend
from efficientad_stream.cli import main
from efficientad_stream.core.messages import Decision, Heartbeat, Heatmap
from efficientad_stream.core.sequencer import Start
from efficientad_stream.core.types import Frame, FrameMeta, Policy, Verdict
from efficientad_stream.model.artifact import MODEL_FILE, load_recipe
from efficientad_stream.model.data import read_image
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.pipeline import inspect
from efficientad_stream.subscriber import Silent, Subscriber


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("recipes") / "noise")


@pytest.fixture(scope="module")
def middle(recipe: Path) -> float:
    """A threshold that plain frames pass and noise does not, or the other way round."""
    backend = TorchCpuBackend(load_recipe(recipe))
    scores = [backend.collect(backend.submit([f]))[0].score for f in (noise(1), plain(3))]
    assert abs(scores[0] - scores[1]) > 0.01
    return sum(scores) / 2


def offline(recipe: Path, folder: Path) -> list[float]:
    """Scores of the readable images as ``evaluate`` gets them."""
    loaded = load_recipe(recipe)
    active = Active(loaded.recipe.id, Policy(1.0), TorchCpuBackend(loaded))
    paths = [p for p in sorted(folder.iterdir()) if p.stat().st_size > 100]
    batches = ((Frame(FrameMeta(n, 0, 0), read_image(p, 3)),) for n, p in enumerate(paths))
    found = inspect(batches, ActiveRef(active), 1, time.monotonic_ns)
    return [i.scores.score for i in found if i.scores is not None]


def seqs(found: list[Decision]) -> list[int]:
    return [d.header.seq for d in found]


def test_a_folder_gets_one_verdict_for_each_file(
    tmp_path: Path, recipe: Path, middle: float
) -> None:
    kinds = "ppnpunppunpp"
    parts = write_parts(tmp_path / "parts", kinds)
    config = write_config(
        tmp_path, recipe, {"kind": "images", "path": "parts", "fps": 8},
        threshold=middle, heatmaps={"when": "all"}, batch={"max_frames": 3, "max_wait_us": 200_000},
    )  # fmt: skip
    with Run(config) as run:
        subscriber = Subscriber(run.where(), start=Start.RUN, heatmaps=True)
        events = listen(subscriber)
        run.end()
        subscriber.close()
    assert run.process.returncode == 0
    found = decisions(events)
    assert seqs(found) == list(range(1, len(kinds) + 1))
    assert [d.body.part_id for d in found] == [f"{n:03d}.png" for n in range(len(kinds))]
    wanted = iter(offline(recipe, parts))
    for decision, kind in zip(found, kinds, strict=True):
        verdict, body = decision.header.verdict, decision.body
        assert body.recipe == "noise"
        if kind == "u":
            assert (verdict, body.reason, body.score) == (Verdict.INVALID, "unreadable", None)
            continue
        score = next(wanted)
        assert body.score == pytest.approx(score, abs=1e-4)
        assert verdict is (Verdict.PASS if score < middle else Verdict.FAIL)
        assert body.reason is None
    assert {d.header.verdict for d in found} == {Verdict.PASS, Verdict.FAIL, Verdict.INVALID}
    beats = [e for e in events if isinstance(e, Heartbeat)]
    assert beats[-1].body.state == "stopped"
    assert beats[-1].body.head == len(kinds)
    pictures = [e for e in events if isinstance(e, Heatmap)]
    readable = {n for n, kind in enumerate(kinds, 1) if kind != "u"}
    assert {p.header.seq for p in pictures} <= readable
    assert pictures


def test_killed_in_the_middle_it_goes_on_where_it_was(
    tmp_path: Path, recipe: Path, middle: float
) -> None:
    write_parts(tmp_path / "parts", "pn")
    source = {"kind": "images", "path": "parts", "fps": 40, "loop": True}
    config = write_config(tmp_path, recipe, source, threshold=middle)
    with Run(config) as first:
        subscriber = Subscriber(first.where(), start=Start.RUN)
        before = decisions(listen(subscriber, until_decisions=10))
        first.end(signal.SIGKILL)
        before += decisions(subscriber.poll(0.5))
        subscriber.close()
    assert first.process.returncode == -signal.SIGKILL
    assert seqs(before) == list(range(1, len(before) + 1))
    with Run(config) as second:
        subscriber = Subscriber(second.where(), start=Start.ALL)
        after = decisions(listen(subscriber, until_decisions=len(before) + 10))
        second.end(signal.SIGTERM)
        subscriber.close()
    assert second.process.returncode == 0
    assert seqs(after) == list(range(1, len(after) + 1))
    assert {d.header.epoch for d in (*before, *after)} == {before[0].header.epoch}
    assert after[: len(before)] == before  # every published decision was in the journal
    assert after[-1].header.seq > len(before)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_it_within_two_seconds(
    tmp_path: Path, recipe: Path, signum: signal.Signals
) -> None:
    """A camera far too fast for the network, so that the ring is full when the signal comes."""
    write_parts(tmp_path / "parts", "pn")
    source = {"kind": "images", "path": "parts", "fps": 300, "loop": True}
    config = write_config(tmp_path, recipe, source)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        with Run(config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as run:
            subscriber = Subscriber(run.where(), start=Start.RUN)
            assert systemd.recv(100) == b"READY=1"
            events = listen(subscriber, until_decisions=30)
            run.process.send_signal(signum)
            start = time.monotonic()
            events += listen(subscriber)
            run.end()
            took = time.monotonic() - start
            subscriber.close()
        assert systemd.recv(100) == b"STOPPING=1"
    assert run.process.returncode == 0
    assert took < 2.0
    found = decisions(events)
    assert seqs(found) == list(range(1, len(found) + 1))
    frames = [d.body.frame_id for d in found]
    assert frames == list(range(1, len(found) + 1))  # overruns included, none skipped
    assert "overrun" in {d.body.reason for d in found}
    states = [e.body.state for e in events if isinstance(e, Heartbeat)]
    assert states[0] in ("starting", "running")
    assert states[-1] == "stopped"
    assert not any(isinstance(e, Silent) for e in events)
    stopped = run.said("stopped")
    assert stopped["pass"] + stopped["fail"] + stopped["invalid"] == len(found)


class TestBadInput:
    """Each ends before anything runs, with a line that says what, where, and what to do."""

    @pytest.fixture
    def config(self, tmp_path: Path, recipe: Path) -> Path:
        write_parts(tmp_path / "parts", "p")
        return write_config(tmp_path, recipe, {"kind": "images", "path": "parts"})

    @pytest.fixture
    def in_empty_folder(
        self, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """The configuration; the working directory is an empty folder."""
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        return config

    @pytest.fixture(autouse=True)
    def _quiet(self) -> Iterator[None]:
        yield
        import structlog

        structlog.reset_defaults()

    def refuse(
        self, config: Path, capsys: pytest.CaptureFixture[str], *overrides: str
    ) -> tuple[int, str]:
        arguments = [word for text in overrides for word in ("--set", text)]
        code = main(["run", str(config), *arguments])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return code, lines[0]

    @pytest.mark.parametrize(
        ("overrides", "code", "words"),
        [
            (["source.path=nowhere"], 2, "source.path: "),
            (["source.path=."], 2, "holds no image"),
            (["source.grey=true"], 2, "source.grey: true, but recipe 'noise' was made from colour"),
            (["source={kind: file, path: none.mp4}"], 2, "none.mp4: no such video file"),
            (["source={kind: v4l2, device: /dev/video99}"], 2, "/dev/video99: no such camera"),
            (["threshold=.nan"], 2, "threshold"),
            (["recipe=nowhere"], 3, "is not a recipe"),
        ],
    )
    def test_one_line(
        self, in_empty_folder: Path, capsys: pytest.CaptureFixture[str], *, overrides: list[str],
        code: int, words: str,
    ) -> None:  # fmt: skip
        got, line = self.refuse(in_empty_folder, capsys, *overrides)
        assert (got, words in line) == (code, True), line
        assert not (in_empty_folder.parent / "journal").exists()

    def test_port_in_use(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with zmq.Context() as context, context.socket(zmq.PUB) as other:
            port = other.bind_to_random_port("tcp://127.0.0.1")
            taken = f"publish.control=tcp://127.0.0.1:{port}"
            code, line = self.refuse(config, capsys, taken)
        assert code == 4
        assert f"publish.control: tcp://127.0.0.1:{port} is in use" in line

    def test_truncated_model(
        self, config: Path, capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken"
        broken.mkdir()
        for file in recipe.iterdir():
            data = file.read_bytes()
            (broken / file.name).write_bytes(data[:-7] if file.name == MODEL_FILE else data)
        code, line = self.refuse(config, capsys, f"recipe={broken}")
        assert code == 3
        assert "truncated or changed" in line

    def test_journal_in_use(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from efficientad_stream.app import open_journal
        from efficientad_stream.config import load

        journal = open_journal(load(config).journal)
        code, line = self.refuse(config, capsys)
        journal.close()
        assert code == 4
        assert "journal" in line
