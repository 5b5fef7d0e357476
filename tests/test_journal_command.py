from __future__ import annotations

import json
from pathlib import Path

import pytest
from station_kit import inspection

from efficientad_stream import cli
from efficientad_stream.core import wire
from efficientad_stream.sinks.journal import Journal


def filled(path: Path, count: int, epoch: int = 7) -> Journal:
    """A journal of ``count`` decisions, still open, in files of 8 KB."""
    journal = Journal.open(path, 8192, 50, 1000, epoch)
    for seq in range(journal.head + 1, journal.head + count + 1):
        message = wire.encode_decision(inspection(seq), "st1", journal.epoch, 5, None)
        journal.append(seq, *message)
    return journal


def test_ls_lists_the_files_beside_the_writer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = filled(tmp_path, 40)
    assert cli.main(["journal", "ls", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == journal.stats()["segments"] > 1
    assert rows[0].startswith("0000000000000007-0000000001.esj  epoch 7  seq 1 to ")
    assert rows[-1].endswith(" to 40")
    journal.close()


def test_show_prints_lines_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path, 40).close()
    assert cli.main(["journal", "show", str(tmp_path), "--from", "20", "--to", "33"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [int(row.split()[0]) for row in rows] == list(range(20, 34))
    assert rows[1].split()[:3] == ["21", "INVALID", "part-21"]
    assert cli.main(["journal", "show", str(tmp_path), "--json"]) == 0
    decisions = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [d["seq"] for d in decisions] == list(range(1, 41))
    assert decisions[0]["verdict"] == "PASS"


def test_verify_reads_everything_and_says_ok(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, 40).close()
    assert cli.main(["journal", "verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok: 40 decisions"


def test_verify_names_file_and_offset_of_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, 40).close()
    file = sorted(tmp_path.glob("*.esj"))[0]
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert cli.main(["journal", "verify", str(tmp_path)]) == 3
    err = capsys.readouterr().err
    assert f"{file}: offset 32: record 1 is damaged" in err
    assert err.count("\n") == 1


def test_verify_finds_a_record_that_is_whole_and_yet_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = filled(tmp_path / "a", 3)
    message = wire.encode_decision(inspection(9), "st1", 7, 5, None)
    journal.append(4, *message)
    journal.close()
    assert cli.main(["journal", "verify", str(tmp_path / "a")]) == 3
    assert "record 4 holds decision 9 of epoch 7" in capsys.readouterr().err
    journal = filled(tmp_path / "b", 3)
    journal.append(4, message.header, b"{}")
    journal.close()
    assert cli.main(["journal", "verify", str(tmp_path / "b")]) == 3
    assert "record 4: decision: Object missing required field" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["ls", "show", "verify"])
def test_where_there_is_no_journal_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert cli.main(["journal", action, str(tmp_path / "nowhere")]) == 3
    assert "no such folder, or no segments" in capsys.readouterr().err


def test_an_epoch_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path, 1).close()
    assert cli.main(["journal", "show", str(tmp_path), "--epoch", "9"]) == 3
    assert "no epoch 9; it has 7" in capsys.readouterr().err


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.esj"))


@pytest.mark.parametrize("how", ["cut", "removed"])
def test_verify_misses_the_end_of_a_journal_that_was_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    filled(tmp_path, 40).close()
    last = segments(tmp_path)[-1]
    if how == "cut":
        last.write_bytes(last.read_bytes()[:600])
    else:
        last.unlink()
    assert cli.main(["journal", "verify", str(tmp_path)]) == 3
    words = capsys.readouterr().err
    assert "but was closed after record 40: the end is missing" in words
    assert segments(tmp_path)[-1].name in words


def test_verify_beside_the_writer_and_after_a_kill_takes_the_end_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = filled(tmp_path, 40)
    assert cli.main(["journal", "verify", str(tmp_path)]) == 0
    journal.close()
    (tmp_path / "lock").unlink()
    assert cli.main(["journal", "verify", str(tmp_path)]) == 0
    (tmp_path / "lock").write_text("hello")
    assert cli.main(["journal", "verify", str(tmp_path)]) == 3
    assert "not the lock file of a journal" in capsys.readouterr().err


def test_verify_says_what_two_files_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, 40).close()
    (tmp_path / "copy.esj").write_bytes(segments(tmp_path)[0].read_bytes())
    assert cli.main(["journal", "verify", str(tmp_path)]) == 3
    assert "both hold record 1 of epoch 7" in capsys.readouterr().err


def test_show_prints_what_is_whole_and_then_names_the_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, 12).close()
    (only,) = segments(tmp_path)
    data = bytearray(only.read_bytes())
    data[data.index(b"part-9") + 1] ^= 1
    only.write_bytes(data)
    assert cli.main(["journal", "show", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 8
    assert "record 9 is damaged" in err
    assert cli.main(["journal", "show", str(tmp_path), "--to", "8"]) == 0
