from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pytest
import zmq
from station_kit import FREE, Line, until

from efficientad_stream import cli
from efficientad_stream.core import wire
from efficientad_stream.core.endpoint import Endpoints
from efficientad_stream.core.messages import HEARTBEAT, HEATMAP, Header, HeartbeatBody, HeatmapBody
from efficientad_stream.core.types import Verdict

Process = subprocess.Popen[str]
PROGRAM = [sys.executable, "-m", "efficientad_stream"]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "journal")
    yield line
    line.close()


def arguments(where: Endpoints, *more: str) -> list[str]:
    return ["watch", where.decisions, "--control", where.control, *more]


def start(where: Endpoints, *more: str, out: int | IO[str] = subprocess.PIPE) -> Process:
    return subprocess.Popen(
        [*PROGRAM, *arguments(where, *more)], stdout=out, stderr=subprocess.PIPE, text=True
    )


def test_every_verdict_as_json_with_all_fields(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    line.decide(20)
    code = cli.main(arguments(line.where, "--all", "--json", "--count", "20"))
    out, err = capsys.readouterr()
    rows = [json.loads(row) for row in out.splitlines()]
    assert code == 0
    assert [row["seq"] for row in rows] == list(range(1, 21))
    assert rows[2] == {
        "seq": 3, "verdict": "FAIL", "epoch": line.journal.epoch, "trigger": 0,
        "deadline_us": None, "published_us": 0, "station": "st1", "frame_id": 3,
        "part_id": "part-3", "encoder": None, "score": 0.75, "threshold": 0.5, "reason": None,
        "recipe": "tile", "recipe_rev": 1, "model_sha256": "ab" * 32,
        "captured_at": 1_700_000_000_000_000, "latency_us": 5000,
        "local_score": 0.75, "global_score": 0.75, "truth": None,
    }  # fmt: skip
    assert rows[6]["verdict"] == "INVALID"
    assert rows[6]["score"] is None
    assert "20 parts  PASS 12  FAIL 6  INVALID 2" in err
    assert "latency p50 5.0 ms  p99 5.0 ms" in err
    assert "INVALID because of: non_finite 2" in err


def test_lines_for_people_count_escapes_and_false_rejects(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    line.decide(3, verdict=Verdict.PASS, truth="crack")
    line.decide(2, verdict=Verdict.FAIL, truth="good")
    line.decide(1, verdict=Verdict.INVALID, truth="good")
    assert cli.main(arguments(line.where, "--from", "2", "--count", "5")) == 0
    out, err = capsys.readouterr()
    rows = out.splitlines()
    assert len(rows) == 5
    assert rows[0].split() == [
        "2", "PASS", "part-2", "0.2500", "/", "0.5000", "5.0", "ms", "crack", "ESCAPE",
    ]  # fmt: skip
    assert rows[2].endswith("good  FALSE REJECT")
    assert "non_finite" in rows[4]
    assert "against the truth: 2 escapes of 2 defective, 2 false rejects of 3 good" in err
    assert "\x1b" not in out + err


def test_it_ends_with_the_station_and_has_everything(tmp_path: Path) -> None:
    line = Line(tmp_path / "journal")
    rows = tmp_path / "rows"
    with (
        rows.open("w") as file,
        start(line.where, "--from", "run", "--json", "--exit-on-stop", out=file) as process,
    ):
        until(lambda: line.control.stats()["requests"] >= 2)
        line.decide(500)
        line.doing = "draining"
        assert line.control.wait_for_acks(500, 10)
        line.close()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert [json.loads(row)["seq"] for row in rows.read_text().splitlines()] == list(range(1, 501))
    assert "station is running" in err


def test_a_station_that_only_says_goodbye_is_no_success(tmp_path: Path) -> None:
    line = Line(tmp_path / "journal")
    line.decide(3)
    assert line.control.stop(5)  # no HELLO is answered any more
    bye = Header(HEARTBEAT, Verdict.NONE, 3, line.journal.epoch)
    body = HeartbeatBody(station="st1", state="stopped", head=3, counters={})
    with start(line.where, "--from", "run", "--exit-on-stop") as process:

        def ended() -> bool:
            line.publisher.beat(*wire.encode_heartbeat(bye, body))
            return "stopped" in said() or process.poll() is not None

        def said() -> str:
            assert process.stderr is not None
            return process.stderr.readline()

        until(ended)
        out, err = process.communicate(timeout=20)
    line.close()
    assert process.returncode == 5
    assert out == ""
    assert "stopped before it could be asked for its decisions" in err


def test_decisions_that_are_gone_are_told_in_words_and_exit_code(tmp_path: Path) -> None:
    line = Line(tmp_path, segment_bytes=4096, keep_segments=2)
    line.decide(100)
    gone = line.journal.oldest - 1
    with start(line.where, "--from", "1", "--exit-on-stop") as process:
        until(lambda: line.control.wait_for_acks(100, 0) and line.control.stats()["requests"] > 2)
        line.close()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 5
    assert f"seq 1 to {gone} are no longer kept by the station" in err
    assert f"efficientad-stream: {gone} decisions of {line.where.decisions} are missing" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary(line: Line, number: signal.Signals) -> None:
    with start(line.where, "--all") as process:
        assert process.stdout is not None
        line.decide(4)
        for seq in "1234":
            assert process.stdout.readline().split()[0] == seq
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "4 parts" in err


def test_without_a_station_it_waits_or_gives_up(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert cli.main(["watch", "tcp://127.0.0.1:9", "--timeout", "0.6"]) == 5
    assert time.monotonic() - began < 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "waiting for a station at tcp://127.0.0.1:9" in err
    assert "no heartbeat from tcp://127.0.0.1:9 for 0.6 s" in err


def test_a_lost_heartbeat_is_said_when_it_goes_and_when_it_comes(tmp_path: Path) -> None:
    line = Line(tmp_path)
    with start(line.where) as process:
        assert process.stderr is not None
        until(lambda: line.control.stats()["requests"] >= 2)
        line.vanish()
        said = [process.stderr.readline() for _ in range(2)]
        line = Line(tmp_path, line.where)
        said.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    line.close()
    assert [words.split(":")[0].strip() for words in said] == [
        "station is running", "HEARTBEAT LOST", "station is running",
    ]  # fmt: skip


def test_when_nobody_reads_it_ends(line: Line) -> None:
    with start(line.where, "--all", "--json") as process:
        assert process.stdout is not None
        line.decide(1)
        process.stdout.readline()
        process.stdout.close()

        def gone() -> bool:
            line.decide(5)
            return process.poll() is not None

        until(gone)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 141


def test_on_a_terminal_verdicts_have_colours_and_a_status_line_stands_below(line: Line) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments(line.where, "--all")], stdout=theirs, stderr=theirs, stdin=theirs
    ) as process:
        os.close(theirs)
        line.decide(3)
        shown = b""

        def settled() -> bool:
            nonlocal shown
            shown += os.read(ours, 4096)
            return b"[running] 3 parts  PASS 2  FAIL 1  INVALID 0" in shown

        until(settled)
        process.terminate()
        process.wait(10)
    os.close(ours)
    assert b"\x1b[32mPASS   \x1b[0m" in shown
    assert b"\x1b[31;1mFAIL   \x1b[0m" in shown


def test_heatmaps_are_saved_under_seq_and_verdict(line: Line, tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with closing(context.socket(zmq.PUB)) as maps:
        maps.linger = 0
        maps.bind(FREE)
        endpoint = maps.getsockopt_string(zmq.LAST_ENDPOINT)
        folder = tmp_path / "maps"
        with start(line.where, "--heatmaps", endpoint, "--save-heatmaps", str(folder)) as process:

            def saved(epoch: int, files: int) -> bool:
                for seq, kind in ((7, "jpeg"), (8, "png8")):
                    maps.send_multipart(heatmap(seq, kind, epoch))
                return len(list(folder.glob("*_FAIL.*"))) == files

            until(lambda: saved(1, 2))
            until(lambda: saved(2, 4))
            process.terminate()
            _, err = process.communicate(timeout=20)
    context.term()
    assert sorted(path.name for path in folder.iterdir()) == [
        "2_7_FAIL.jpg", "2_8_FAIL.png", "7_FAIL.jpg", "8_FAIL.png",
    ]  # fmt: skip
    assert (folder / "7_FAIL.jpg").read_bytes() == b"image 7"
    assert f"heatmaps in {folder}" in err


def heatmap(seq: int, kind: Any, epoch: int = 1) -> list[bytes]:
    body = HeatmapBody(
        station="st1", frame_id=1, width=2, height=2, format=kind,
        scale_min=0, scale_max=1, score=1, threshold=0.5,
    )  # fmt: skip
    header = Header(HEATMAP, Verdict.FAIL, seq, epoch)
    return [wire.topic(HEATMAP, "st1"), *wire.encode_heatmap(header, body), b"image %d" % seq]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["127.0.0.1:5560"], "neither tcp://HOST:PORT nor"),
        (["ipc:///tmp/d"], "where control is does not follow"),
        (["ipc:///tmp/d", "--control", "ipc:///tmp/c", "--save-heatmaps", "x"], "--heatmaps"),
        (["tcp://h:1", "--all", "--from", "3"], "not allowed with"),
        (["tcp://h:1", "--from", "0"], "'0' is not a number from 1 up"),
        (["tcp://h:1", "--count", "-3"], "'-3' is not a number from 1 up"),
        (["tcp://h:1", "--timeout", "nan"], "'nan' is not a number of seconds"),
        (["tcp://h:1", "--save-heatmaps", "/dev/null/x"], "--save-heatmaps /dev/null/x: Not a"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(
    capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert cli.main(["watch", *more]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_another_station_is_refused(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments(line.where, "--station", "st2", "--timeout", "20")) == 2
    assert "this is station st1, not st2" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["watch", "journal"])
def test_it_starts_fast_and_without_an_engine(command: str) -> None:
    code = (
        "import sys, time; began = time.process_time()\n"
        f"import efficientad_stream.cli, efficientad_stream.commands.{command}\n"
        "heavy = {'torch', 'cv2', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(time.process_time() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert float(done.stdout) < 2  # seconds of the processor, whatever else it does
