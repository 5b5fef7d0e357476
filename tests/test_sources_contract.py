"""One contract over every source, on real files; then what is particular to each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import structlog

from efficientad_stream import config
from efficientad_stream.core.errors import ConfigError, TransientError
from efficientad_stream.core.types import FrameMeta, PixelArray, Reason
from efficientad_stream.runtime.protocols import Source, SourceEnded
from efficientad_stream.runtime.slot import Slot
from efficientad_stream.sources.file import FileSource
from efficientad_stream.sources.images import ImagesSource
from efficientad_stream.sources.pacing import Clocks
from efficientad_stream.sources.simulated import SimulatedSource
from efficientad_stream.sources.v4l2 import V4l2Source

FRAMES, HEIGHT, WIDTH = 8, 64, 96


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def clock(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class V4l2OnFile(V4l2Source):
    """The camera's code on a file: there is no fake V4L2 device to be had."""

    def _is_camera(self, device: str) -> bool:
        return Path(device).is_file()

    def _configured(self, device: str) -> cv2.VideoCapture:
        return cv2.VideoCapture(device)


def picture(n: int) -> PixelArray:
    """Grey level 20 n, so that frame n is known again."""
    return np.full((HEIGHT, WIDTH, 3), 20 * n, np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))
    for n in range(1, FRAMES + 1):
        writer.write(picture(n))
    writer.release()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    for n in range(1, FRAMES + 1):
        place = root / ("crack" if n < 4 else "good")
        place.mkdir(exist_ok=True)
        cv2.imwrite(str(place / f"{n:02d}.png"), picture(n))
    return root


Make = Callable[..., Source]
KINDS = ["file", "file_grey", "images", "images_grey", "simulated", "simulated_grey", "v4l2"]


@pytest.fixture
def make(request: pytest.FixtureRequest, video: Path, folder: Path) -> Make:
    """Makes the source under test; keywords go to its settings."""
    kind, _, grey = str(request.param).partition("_")
    time = Time()
    clocks = Clocks(time.clock, time.sleep)

    def build(**more: object) -> Source:
        settings = {"grey": bool(grey), **more}
        if kind == "file":
            chosen = config.FileSource(path=str(video), **settings)  # type: ignore[arg-type]
            return FileSource(chosen, clocks)
        if kind == "images":
            return ImagesSource(
                config.ImagesSource(path=str(folder), **settings),  # type: ignore[arg-type]
                clocks,
            )
        if kind == "v4l2":
            return V4l2OnFile(config.V4l2Source(device=str(video), **settings))  # type: ignore[arg-type]
        size = {"parts": FRAMES, "width": WIDTH, "height": HEIGHT}
        return SimulatedSource(
            config.SimulatedSource(**{**size, **settings}),  # type: ignore[arg-type]
            clocks,
        )

    return build


def grab(source: Source, slot: Slot) -> FrameMeta:
    for _ in range(100):
        meta = source.grab_into(slot, 1.0)
        if meta is not None:
            return meta
    raise AssertionError("no frame came")


@pytest.mark.parametrize("make", KINDS, indirect=True)
class TestContract:
    def test_every_frame_once_in_order_then_the_end(self, make: Make) -> None:
        source, slot = make(), Slot(0)
        source.open()
        metas = [grab(source, slot) for _ in range(FRAMES)]
        first = metas[0].frame_id
        assert [m.frame_id for m in metas] == list(range(first, first + FRAMES))
        assert all(m.loss is None for m in metas)
        times = [m.captured_ns for m in metas]
        assert times == sorted(times)
        with pytest.raises((SourceEnded, TransientError)):
            grab(source, slot)
        source.close()

    def test_pixels_are_written_into_the_slot_in_place(self, make: Make) -> None:
        source = make()
        source.open()
        allocated: list[int] = []

        def allocate(nbytes: int) -> PixelArray:
            allocated.append(nbytes)
            return np.zeros(nbytes, np.uint8)

        slot = Slot(0, allocate)
        seen = []
        for _ in range(FRAMES):
            meta = grab(source, slot)
            assert slot.pixels is not None
            shape = (meta.height, meta.width) + ((3,) if meta.channels == 3 else ())
            assert slot.pixels.shape == shape
            seen.append(slot.pixels.copy())
        assert len([n for n in allocated if n]) == 1  # the same memory, frame after frame
        assert all((a != b).any() for a, b in zip(seen[1:], seen[:-1], strict=True))
        source.close()

    def test_close_twice_and_before_open(self, make: Make) -> None:
        source = make()
        source.close()
        source.open()
        grab(source, Slot(0))
        source.close()
        source.close()

    def test_closed_source_refuses(self, make: Make) -> None:
        with pytest.raises(RuntimeError, match="not open"):
            make().grab_into(Slot(0), 0.0)

    def test_reopened_source_goes_on(self, make: Make) -> None:
        source, slot = make(), Slot(0)
        source.open()
        before = [grab(source, slot).frame_id for _ in range(3)]
        source.close()
        source.open()
        assert grab(source, slot).frame_id == before[-1] + 1
        source.close()

    def test_stats_count_frames(self, make: Make) -> None:
        source, slot = make(), Slot(0)
        assert source.stats()["frames"] == 0
        source.open()
        for _ in range(4):
            grab(source, slot)
        assert source.stats()["frames"] == 4
        source.close()


@pytest.mark.parametrize("make", ["file", "images", "simulated"], indirect=True)
class TestPace:
    def test_unpaced_until_a_rate_is_set(self, make: Make) -> None:
        assert make().paced is False
        assert make(fps=10.0).paced is True

    def test_frames_keep_an_absolute_schedule(self, make: Make) -> None:
        source, slot = make(fps=10.0), Slot(0)
        source.open()
        times = [grab(source, slot).captured_ns for _ in range(FRAMES)]
        assert np.diff(times).tolist() == [100_000_000] * (FRAMES - 1)
        source.close()

    def test_nothing_before_it_is_due(self, make: Make) -> None:
        source, slot = make(fps=0.5), Slot(0)
        source.open()
        grab(source, slot)
        assert source.grab_into(slot, 0.5) is None
        assert source.grab_into(slot, 0.5) is None
        assert source.grab_into(slot, 1.1) is not None
        source.close()


class TestFile:
    def open(self, video: Path, **settings: object) -> FileSource:
        source = FileSource(config.FileSource(path=str(video), **settings))  # type: ignore[arg-type]
        source.open()
        return source

    def all(self, source: Source) -> list[tuple[int, int]]:
        """(frame_id, the picture's number) of every frame to the end."""
        found: list[tuple[int, int]] = []
        slot = Slot(0)
        while len(found) < 100:
            try:
                meta = grab(source, slot)
            except SourceEnded:
                break
            assert slot.pixels is not None
            found.append((meta.frame_id, round(float(slot.pixels.mean()) / 20)))
        return found

    def test_start_and_end_choose_exact_frames(self, video: Path) -> None:
        source = self.open(video, start_frame=3, end_frame=6)
        assert self.all(source) == [(4, 4), (5, 5), (6, 6)]
        with pytest.raises(SourceEnded):  # an end stays one
            grab(source, Slot(0))

    @pytest.mark.parametrize(("end_frame", "said"), [(0, 1), (3, 0)])
    def test_a_video_that_breaks_off_is_said_to(
        self, video: Path, tmp_path: Path, end_frame: int, said: int
    ) -> None:
        cut, whole = tmp_path / "cut.avi", video.read_bytes()
        data = whole.index(b"movi")
        cut.write_bytes(whole[: data + 3 * (whole.rindex(b"idx1") - data) // 4])
        source = self.open(cut, end_frame=end_frame)
        with structlog.testing.capture_logs() as lines:
            read = len(self.all(source))
        assert 3 <= read < FRAMES
        early = [line for line in lines if line["event"].startswith("video ended early")]
        assert [(line["read"], line["promised"]) for line in early] == [(read, FRAMES)] * said

    def test_loop_goes_round_and_counts_on(self, video: Path) -> None:
        source, slot = self.open(video, start_frame=6, loop=True), Slot(0)
        found = []
        for _ in range(5):
            meta = grab(source, slot)
            assert slot.pixels is not None
            found.append((meta.frame_id, round(float(slot.pixels.mean()) / 20)))
        assert found == [(7, 7), (8, 8), (9, 7), (10, 8), (11, 7)]

    def test_grey_is_what_training_reads(self, video: Path) -> None:
        source, slot = self.open(video, grey=True), Slot(0)
        grab(source, slot)
        capture = cv2.VideoCapture(str(video))
        _, colour = capture.read()
        assert slot.pixels is not None
        assert (slot.pixels == cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)).all()

    def test_start_behind_the_end_is_said(self, video: Path) -> None:
        source = self.open(video, start_frame=50, loop=True)
        with pytest.raises(ConfigError, match=r"start_frame: 50: .*ends after 8 frames"):
            grab(source, Slot(0))

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such video file"):
            self.open(tmp_path / "none.mp4")

    def test_not_a_video(self, tmp_path: Path) -> None:
        path = tmp_path / "text.mp4"
        path.write_text("no video at all")
        with pytest.raises(ConfigError, match="not a video"):
            self.open(path)

    def test_frame_of_another_size_than_announced_is_taken_whole(self, video: Path) -> None:
        source, slot = self.open(video), Slot(0)
        assert source._reader is not None
        source._reader.height, source._reader.width = 10, 10
        meta = grab(source, slot)
        assert (meta.height, meta.width) == (HEIGHT, WIDTH)
        assert slot.pixels is not None
        assert round(float(slot.pixels.mean()) / 20) == 1
        assert source._reader.resized == 1
        grab(source, slot)
        assert source._reader.resized == 1

    def test_real_video(self, data_dir: Path) -> None:
        source = self.open(data_dir / "video" / "plugs_on_belt.mp4", end_frame=5)
        slot = Slot(0)
        metas = [grab(source, slot) for _ in range(5)]
        assert {(m.height, m.width, m.channels) for m in metas} == {(540, 960, 3)}
        assert source._reader is not None
        assert source._reader.resized == 0  # every frame was written in place


class TestImages:
    def open(self, folder: Path, **settings: object) -> ImagesSource:
        source = ImagesSource(config.ImagesSource(path=str(folder), **settings))  # type: ignore[arg-type]
        source.open()
        return source

    def test_part_id_and_truth(self, folder: Path) -> None:
        source, slot = self.open(folder, labelled=True), Slot(0)
        metas = [grab(source, slot) for _ in range(FRAMES)]
        assert metas[0].part_id == "crack/01.png"
        assert [m.truth for m in metas] == ["crack"] * 3 + ["good"] * 5
        source = self.open(folder)
        assert grab(source, slot).truth is None

    def test_unreadable_file_is_a_marker_in_its_place(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), picture(1))
        (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
        (tmp_path / "c.jpg").write_bytes(b"")
        cv2.imwrite(str(tmp_path / "d.webp"), picture(2))
        source, slot = self.open(tmp_path), Slot(0)
        metas = [grab(source, slot) for _ in range(4)]
        assert [(m.frame_id, m.loss) for m in metas] == [
            (1, None), (2, Reason.UNREADABLE), (3, Reason.UNREADABLE), (4, None),
        ]  # fmt: skip
        assert metas[1].part_id == "b.png"
        assert source.stats()["unreadable"] == 2

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
    def test_formats(self, tmp_path: Path, suffix: str) -> None:
        cv2.imwrite(str(tmp_path / f"part{suffix}"), picture(5))
        slot = Slot(0)
        assert grab(self.open(tmp_path), slot).loss is None
        assert slot.pixels is not None
        assert abs(float(slot.pixels.mean()) - 100) < 3

    def test_sixteen_bits_keep_the_upper_eight(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "deep.png"), np.full((8, 8), 0x7FAB, np.uint16))
        slot = Slot(0)
        meta = grab(self.open(tmp_path, grey=True), slot)
        assert meta.channels == 1
        assert slot.pixels is not None
        assert (slot.pixels == 0x7F).all()

    def test_sizes_may_differ(self, tmp_path: Path) -> None:
        for n, size in enumerate([(20, 30), (40, 10), (5, 5)]):
            cv2.imwrite(str(tmp_path / f"{n}.png"), np.zeros((*size, 3), np.uint8))
        source, slot = self.open(tmp_path), Slot(0)
        metas = [grab(source, slot) for _ in range(3)]
        assert [(m.height, m.width) for m in metas] == [(20, 30), (40, 10), (5, 5)]

    def test_loop_goes_round_and_counts_on(self, tmp_path: Path) -> None:
        for n in (1, 2):
            cv2.imwrite(str(tmp_path / f"{n}.png"), picture(n))
        source, slot = self.open(tmp_path, loop=True), Slot(0)
        metas = [grab(source, slot) for _ in range(5)]
        assert [(m.frame_id, m.part_id) for m in metas] == [
            (1, "1.png"), (2, "2.png"), (3, "1.png"), (4, "2.png"), (5, "1.png"),
        ]  # fmt: skip

    def test_long_and_odd_names_fit_the_wire(self, tmp_path: Path) -> None:
        place = tmp_path / ("x" * 100) / os.fsdecode(b"caf\xe9.png")
        place.parent.mkdir()
        place.write_bytes(cv2.imencode(".png", picture(1))[1].tobytes())
        part_id = grab(self.open(tmp_path), Slot(0)).part_id
        assert part_id is not None
        assert len(part_id) == 64
        assert part_id.endswith("x/caf\ufffd.png")
        part_id.encode()

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"source\.path: .*is not a folder"):
            self.open(tmp_path / "none")

    def test_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(ConfigError, match=r"source\.path: .*holds no image"):
            self.open(tmp_path)


class TestV4l2:
    def test_a_camera_that_never_was_is_a_mistake(self) -> None:
        with pytest.raises(ConfigError, match="/dev/video77: no such camera"):
            V4l2Source(config.V4l2Source(device="/dev/video77")).open()

    def test_a_camera_that_went_away_may_come_back(self, video: Path, tmp_path: Path) -> None:
        device = tmp_path / "video0"
        device.write_bytes(video.read_bytes())
        source = V4l2OnFile(config.V4l2Source(device=str(device)))
        source.open()
        source.close()
        device.unlink()
        with pytest.raises(TransientError, match="no such camera"):
            source.open()

    def test_a_device_that_does_not_answer_may_do_so_later(self, tmp_path: Path) -> None:
        device = tmp_path / "video0"
        device.write_bytes(b"not a camera")
        with pytest.raises(TransientError, match="cannot be opened"):
            V4l2OnFile(config.V4l2Source(device=str(device))).open()

    @pytest.mark.parametrize("name", ["file", "folder", "/dev/null"])
    def test_what_is_no_camera_never_becomes_one(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_bytes(b"not a camera")
        (tmp_path / "folder").mkdir()
        device = str(tmp_path / name)
        with pytest.raises(ConfigError, match=f"{device}: is no video device"):
            V4l2Source(config.V4l2Source(device=device)).open()
