from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from station_kit import until

from efficientad_stream.core import segment as fmt
from efficientad_stream.core.errors import ArtifactError, FatalError
from efficientad_stream.sinks.journal import Journal, reader

NOW = 1_700_000_000_000_000
SMALL = 2048


def header(seq: int) -> bytes:
    return f"{seq:032d}".encode()


def body(seq: int, size: int = 100) -> bytes:
    return f'{{"n":{seq},"x":"{"." * size}"}}'.encode()


def begin(
    path: Path, *, size: int = SMALL, sync_ms: int = 50, keep: int = 1000, now: int = NOW
) -> Journal:
    return Journal.open(path, size, sync_ms, keep, now)


def fill(journal: Journal, count: int) -> None:
    for seq in range(journal.head + 1, journal.head + 1 + count):
        journal.append(seq, header(seq), body(seq))


def content(journal: Journal) -> list[tuple[int, bytes, bytes]]:
    return list(journal.read(journal.oldest, journal.head, 10**6))


def expected(first: int, last: int) -> list[tuple[int, bytes, bytes]]:
    return [(seq, header(seq), body(seq)) for seq in range(first, last + 1)]


def abandon(journal: Journal) -> None:
    """Leave ``journal`` as a killed process leaves it: nothing synced, nothing noted."""
    journal._syncer._current = None
    journal._syncer.close()
    os.close(journal._fd)
    journal._file_lock.release()
    journal._fd = -1


def after_power_failure(path: Path) -> None:
    """Make the lock file say that another boot of the machine left it open."""
    lock = path / "lock"
    note = json.loads(lock.read_text()) | {"boot": "an-earlier-one"}
    lock.write_text(json.dumps(note))


def newest(path: Path) -> Path:
    return sorted(path.glob("*.esj"))[-1]


def test_a_new_journal_is_empty_and_its_epoch_is_now(tmp_path: Path) -> None:
    journal = begin(tmp_path / "deep" / "j")
    assert (journal.epoch, journal.head, journal.oldest) == (NOW, 0, 1)
    assert list(journal.read(1, 10, 10)) == []
    journal.close()
    journal.close()


def test_records_come_back_over_segments_and_restarts(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 40)
    assert journal.stats()["segments"] > 2
    assert content(journal) == expected(1, 40)
    journal.close()
    journal = begin(tmp_path, now=NOW + 5)
    assert (journal.epoch, journal.head, journal.oldest) == (NOW, 40, 1)
    fill(journal, 10)
    assert content(journal) == expected(1, 50)
    assert list(journal.read(38, 45, 100)) == expected(38, 45)
    assert list(journal.read(38, 45, 3)) == expected(38, 40)
    assert list(journal.read(51, 60, 3)) == []
    journal.close()


def test_reading_in_the_middle_of_a_long_segment_uses_the_marks(tmp_path: Path) -> None:
    journal = begin(tmp_path, size=1 << 20)
    fill(journal, 1500)
    assert len(journal._segments[0].marks) == 6
    assert list(journal.read(1300, 1302, 3)) == expected(1300, 1302)
    journal.close()
    journal = begin(tmp_path, size=1 << 20)
    assert len(journal._segments[0].marks) == 6
    assert list(journal.read(1025, 1026, 3)) == expected(1025, 1026)
    journal.close()


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 2**32 + 3])
def test_only_the_next_seq_may_follow(tmp_path: Path, seq: int) -> None:
    journal = begin(tmp_path)
    fill(journal, 2)
    with pytest.raises(FatalError, match=f"record {seq} cannot follow 2"):
        journal.append(seq, header(seq), b"{}")
    journal.close()


def test_a_record_that_nothing_could_read_is_refused(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    with pytest.raises(FatalError, match="header of 31 bytes"):
        journal.append(1, bytes(31), b"{}")
    with pytest.raises(FatalError, match="body of 40000"):
        journal.append(1, bytes(32), bytes(40_000))
    journal.append(1, bytes(32), b"x" * 32_768)
    assert list(journal.read(1, 1, 1)) == [(1, bytes(32), b"x" * 32_768)]
    journal.close()


def test_retention_removes_the_oldest_files(tmp_path: Path) -> None:
    journal = begin(tmp_path, keep=3)
    fill(journal, 100)
    assert len(list(tmp_path.glob("*.esj"))) == 3
    assert 1 < journal.oldest < 100
    assert list(journal.read(1, 100, 1000)) == expected(journal.oldest, 100)
    journal.close()
    journal = begin(tmp_path, keep=3)
    assert journal.head == 100
    assert content(journal) == expected(journal.oldest, 100)
    journal.close()


def test_two_daemons_cannot_write_one_journal(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    with pytest.raises(FatalError, match="another daemon is writing it"):
        begin(tmp_path)
    journal.close()
    begin(tmp_path).close()


Step = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 900)),
    st.tuples(st.just("close"), st.just(0)),
    st.tuples(st.just("kill"), st.just(0)),
    st.tuples(st.just("torn"), st.integers(1, 200)),
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(Step, max_size=25))
def test_any_life_of_a_journal_keeps_exactly_what_was_appended(
    steps: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        journal, written = begin(path), []
        for action, number in steps:
            if action == "append":
                seq = journal.head + 1
                journal.append(seq, header(seq), body(seq, number))
                written.append((seq, header(seq), body(seq, number)))
                continue
            if action == "close":
                journal.close()
            else:
                seq, end, file = journal.head + 1, journal._end, newest(path)
                abandon(journal)
                if action == "torn":
                    tear(file, end, fmt.pack_record(seq, header(seq), body(seq, 200))[:number])
            journal = begin(path, now=NOW + 1)
            assert journal.epoch == NOW
            assert journal.head == len(written)
            assert content(journal) == written
        journal.close()
        assert [r.seq for r in reader.records(path)] == [seq for seq, _, _ in written]
        assert all(found.note is None for found in reader.check(path))


def tear(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


WRITER = """
import sys
from efficientad_stream.sinks.journal import Journal
journal = Journal.open(sys.argv[1], 65536, 20, 1000, 7)
while True:
    seq = journal.head + 1
    journal.append(seq, b"%032d" % seq, b'{"n":%d,"x":"' % seq + b"." * 300 + b'"}')
    sys.stdout.write(f"{seq}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_nothing_that_was_said(tmp_path: Path) -> None:
    said = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(500):
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split("\n")
        said = max([said, *(int(line) for line in rest[:-1])])
        journal = begin(tmp_path, size=65536)
        assert journal.epoch == 7
        assert said <= journal.head <= said + 1
        records = content(journal)
        assert [seq for seq, _, _ in records] == list(range(1, journal.head + 1))
        assert all(b'"n":%d,' % seq in text for seq, _, text in records)
        abandon(journal)
    assert said >= 1500


def test_after_a_power_failure_a_new_epoch_begins(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 20)
    abandon(journal)
    after_power_failure(tmp_path)
    journal = begin(tmp_path, now=NOW - 10)
    assert (journal.epoch, journal.head, journal.oldest) == (NOW + 1, 0, 1)
    fill(journal, 3)
    assert content(journal) == expected(1, 3)
    journal.close()
    assert [r.seq for r in reader.records(tmp_path, epoch=NOW)] == list(range(1, 21))
    assert [r.seq for r in reader.records(tmp_path)] == [1, 2, 3]
    assert begin_and_close(tmp_path) == NOW + 1


def begin_and_close(path: Path) -> int:
    journal = begin(path)
    journal.close()
    return journal.epoch


def test_switching_off_after_a_proper_close_changes_nothing(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 5)
    journal.close()
    after_power_failure(tmp_path)
    journal = begin(tmp_path, now=NOW + 9)
    assert (journal.epoch, journal.head) == (NOW, 5)
    journal.close()


def test_earlier_epochs_are_the_first_to_go(tmp_path: Path) -> None:
    journal = begin(tmp_path, keep=4)
    fill(journal, 40)
    abandon(journal)
    after_power_failure(tmp_path)
    journal = begin(tmp_path, keep=4, now=NOW + 9)
    fill(journal, 20)
    assert {s.epoch for s in reader.existing(tmp_path)} == {NOW, NOW + 9}
    assert content(journal) == expected(1, 20)
    fill(journal, 40)
    assert {s.epoch for s in reader.existing(tmp_path)} == {NOW + 9}
    assert len(reader.existing(tmp_path)) == 4
    journal.close()


def test_a_changed_byte_is_found_with_file_and_offset(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 30)
    journal.close()
    file = newest(tmp_path)
    first = int(file.stem.split("-")[1])
    tear(file, fmt.SEGMENT_HEADER_BYTES + 60, b"!")
    words = f"{file.name}: offset 32: record {first} is damaged"
    with pytest.raises(ArtifactError, match=words):
        begin(tmp_path)
    with pytest.raises(ArtifactError, match=words):
        list(reader.check(tmp_path))


def test_a_changed_last_record_of_a_closed_journal_is_found(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 30)
    end = journal._end
    journal.close()
    tear(newest(tmp_path), end - 4, b"!")
    with pytest.raises(ArtifactError, match="record 30 is damaged"):
        begin(tmp_path)


def test_damage_in_an_older_file_is_found_when_it_is_read(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 60)
    oldest = sorted(tmp_path.glob("*.esj"))[0]
    tear(oldest, 32 + 400, b"!")
    with pytest.raises(ArtifactError, match=rf"{oldest.name}: offset \d+: record 3 is damaged"):
        journal.read(1, 60, 60)
    assert list(journal.read(50, 60, 60)) == expected(50, 60)
    journal.close()
    with pytest.raises(ArtifactError, match="record 3 is damaged"):
        list(reader.check(tmp_path))


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 60)
    journal.close()
    assert [c.last_seq for c in reader.check(tmp_path)][-1] == 60
    sorted(tmp_path.glob("*.esj"))[1].unlink()
    with pytest.raises(ArtifactError, match=r"records \d+ to \d+ of epoch \d+ are missing between"):
        list(reader.check(tmp_path))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "offset 0: not a journal segment"),
        (b"PNG" * 20, "offset 0: not a journal segment"),
        (fmt.MAGIC + b"\x09" + bytes(40), "format 9"),
        (fmt.pack_segment_header(fmt.SegmentHeader(1, 1))[:-1] + b"\xff", "header is damaged"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "0000000000000001-0000000001.esj").write_bytes(data)
    with pytest.raises(ArtifactError, match=words):
        begin(tmp_path)


def test_a_lock_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("pid 7")
    with pytest.raises(ArtifactError, match="not the lock file of a journal"):
        begin(tmp_path)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("")
    with pytest.raises(FatalError, match="File exists"):
        begin(tmp_path / "j")


def test_what_a_kill_left_half_made_is_cleared_away(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    fill(journal, 3)
    abandon(journal)
    (tmp_path / "new.tmp").write_bytes(bytes(100))
    journal = begin(tmp_path)
    assert content(journal) == expected(1, 3)
    assert not (tmp_path / "new.tmp").exists()
    journal.close()


LIMITED = """
import resource, sys
from efficientad_stream.core.errors import FatalError
from efficientad_stream.sinks.journal import Journal
journal = Journal.open(sys.argv[1], 4096, 20, 1000, 7)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    for seq in range(1, 1000):
        journal.append(seq, b"%032d" % seq, b"{}")
except FatalError as error:
    print(journal.head, error)
journal.close()
"""


@pytest.mark.parametrize(
    ("limit", "words"),
    [(4090, "4096 bytes are needed for the next segment"), (2048, "offset 2048: File too large")],
)
def test_a_disk_that_takes_no_more_keeps_what_it_has(
    tmp_path: Path, limit: int, words: str
) -> None:
    """A limit on file size stands for the full disk: in the allocation, or within a record."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    head, said = done.stdout.split(" ", 1)
    assert words in said
    assert not (tmp_path / "new.tmp").exists()
    journal = begin(tmp_path)
    assert journal.head == int(head) > 20
    journal.close()


def test_reading_beside_the_writer_sees_only_whole_records_in_order(tmp_path: Path) -> None:
    journal = begin(tmp_path, keep=4)
    seen: list[int] = []
    failed: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set() or not seen:
            records = list(journal.read(journal.oldest, journal.head, 50))
            first = records[0][0] if records else 0
            if records != expected(first, first + len(records) - 1):
                failed.append(f"{first}")
            seen.extend(r[0] for r in records[-1:])

    thread = threading.Thread(target=read)
    thread.start()
    fill(journal, 3000)
    done.set()
    thread.join(10)
    journal.close()
    assert not thread.is_alive()
    assert not failed
    assert seen


@pytest.mark.parametrize("sync_ms", [0, 1])
def test_records_are_forced_to_the_disk(tmp_path: Path, sync_ms: int) -> None:
    journal = begin(tmp_path, sync_ms=sync_ms, size=1 << 20)
    before = journal.stats()["syncs"]
    fill(journal, 10)
    if sync_ms == 0:
        assert journal.stats()["syncs"] == before + 10
    journal.close()
    assert journal.stats()["syncs"] > before


def test_a_record_that_is_forced_to_the_disk_shows_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begin(tmp_path, sync_ms=0)
    fill(journal, 2)
    sync, seen = os.fdatasync, []

    def look(fd: int) -> None:
        seen.append((journal.head, [seq for seq, *_ in journal.read(1, 9, 9)]))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", look)
    fill(journal, 1)
    assert seen == [(2, [1, 2])]
    assert content(journal) == expected(1, 3)
    journal.close()


@pytest.mark.parametrize("sync_ms", [0, 1])
def test_after_a_sync_that_failed_nothing_is_recorded_and_no_proper_end_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_ms: int
) -> None:
    """The kernel says once that it lost a write; the next sync succeeds."""
    journal = begin(tmp_path, sync_ms=sync_ms)
    fill(journal, 3)
    failed = threading.Event()
    sync = os.fdatasync

    def lose(fd: int) -> None:
        ours = Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(tmp_path)
        if failed.is_set() or not ours:  # a journal that another test has left open syncs too
            sync(fd)
            return
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", lose)
    with pytest.raises(FatalError, match=r"cannot sync: .*Input/output error"):
        fill(journal, 10**6)
    head = journal.head
    with pytest.raises(FatalError, match="cannot sync"):
        fill(journal, 1)
    assert journal.head == head
    assert [seq for seq, *_ in content(journal)] == list(range(1, head + 1))
    with pytest.raises(FatalError, match="cannot sync"):
        journal.close()
    assert json.loads((tmp_path / "lock").read_text())["closed_at"] is None
    begin(tmp_path).close()


@pytest.mark.parametrize("sync_ms", [0, 50])
def test_a_slow_disk_does_not_hold_up_the_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sync_ms: int,
) -> None:
    journal = begin(tmp_path, sync_ms=sync_ms)
    fill(journal, 30)
    sync, answer = os.fdatasync, threading.Event()

    def hang(fd: int) -> None:
        assert answer.wait(30)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", hang)
    began = time.monotonic()
    journal.close()
    assert time.monotonic() - began < 1
    assert "the disk has not confirmed the last records" in capsys.readouterr().out
    assert json.loads((tmp_path / "lock").read_text())["closed_at"] is None
    with pytest.raises(FatalError, match="another daemon"):
        begin(tmp_path)
    answer.set()
    until(lambda: json.loads((tmp_path / "lock").read_text())["closed_at"] == 30)
    until(lambda: not any(t.name == "journal-close" for t in threading.enumerate()))
    journal = begin(tmp_path)
    assert content(journal) == expected(1, 30)
    journal.close()


@pytest.mark.parametrize("sync_ms", [0, 1])
def test_a_file_that_was_removed_under_the_writer_ends_it(tmp_path: Path, sync_ms: int) -> None:
    journal = begin(tmp_path, size=16 << 20, sync_ms=sync_ms)
    fill(journal, 3)
    newest(tmp_path).unlink()
    with pytest.raises(FatalError, match="the file that is being written was removed"):
        fill(journal, 10**6)
    with pytest.raises(FatalError, match="was removed"):
        journal.close()
