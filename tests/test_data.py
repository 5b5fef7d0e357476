from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.model.data import (
    Cached,
    list_images,
    load_good,
    memory_budget,
    read_image,
    spread,
)
from efficientad_stream.model.frames import prepare
from efficientad_stream.model.naturals import NaturalImages
from efficientad_stream.model.video import FrameRange, parse_frames, video_frames

GEOMETRY = Geometry(128, 128)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def folder_of(path: Path, count: int, shape: tuple[int, ...] = (40, 50, 3)) -> Path:
    for index in range(count):
        write(path / f"{index:03}.png", noise(*shape, seed=index))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames whose brightness is 20 times their number."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    for index in range(12):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_images_are_found_in_order_of_path(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/10.png", "a.tiff", "c.webp", "d.bmp"):
        write(tmp_path / name, noise(8, 8, 3))
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.tiff", "b/10.png", "b/2.JPG", "c.webp", "d.bmp"]


def test_no_folder_and_no_image(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="holds no image"):
        list_images(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_lossless_images_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    colour, grey = noise(30, 40, 3), noise(30, 40)
    assert np.array_equal(read_image(write(tmp_path / f"c.{suffix}", colour), 3), colour)
    path = write(tmp_path / f"g.{suffix}", grey)
    assert np.array_equal(read_image(path, 1), grey)
    assert np.array_equal(read_image(path, 3), np.stack([grey] * 3, axis=2))


def test_of_sixteen_bits_the_upper_eight_are_read(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (30, 40)).astype(np.uint16)
    for suffix in ("png", "tiff"):
        path = write(tmp_path / f"deep.{suffix}", deep)
        found = read_image(path, 1)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - deep / 257).max() <= 1


def test_a_transparent_image_loses_its_transparency(tmp_path: Path) -> None:
    path = write(tmp_path / "clear.png", noise(30, 40, 4))
    assert read_image(path, 3).shape == (30, 40, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"part.{suffix}", noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"can(not)? be decoded") as error:
        read_image(path, 3)
    assert str(path) in str(error.value)


def test_empty_missing_and_foreign_files(tmp_path: Path) -> None:
    for name, data in (("empty.png", b""), ("text.png", b"this is text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArtifactError, match="is not an image"):
            read_image(tmp_path / name, 3)
    with pytest.raises(ArtifactError, match="No such file"):
        read_image(tmp_path / "none.png", 3)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ArtifactError, match="not an ordinary file"):  # and does not wait for it
        read_image(tmp_path / "pipe.png", 3)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(ArtifactError, match="no right to read it"):
        list_images(folder_of(tmp_path, 1))


def test_good_images_are_prepared(tmp_path: Path) -> None:
    good = load_good(folder_of(tmp_path, 12), GEOMETRY)
    assert len(good) == 12
    assert good.size_warning(GEOMETRY) is None
    assert not good.in_order
    first = read_image(tmp_path / "000.png", 3)
    assert np.array_equal(good[0], prepare(first, GEOMETRY))


def test_images_of_several_sizes_are_used_with_a_warning(tmp_path: Path) -> None:
    folder_of(tmp_path, 10)
    write(tmp_path / "wide.png", noise(30, 200, 3))
    good = load_good(tmp_path, GEOMETRY)
    assert len(good) == 11
    warning = good.size_warning(GEOMETRY)
    assert warning is not None
    assert "50 to 200 wide, 30 to 40 high" in warning
    assert "128 x 128" in warning


def test_too_few_good_images(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="9 good images are too few") as error:
        load_good(folder_of(tmp_path, 9), GEOMETRY)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(ArtifactError, match="5 good images are too few"):
        load_good(folder_of(tmp_path, 20), GEOMETRY, limit=5)


def test_unreadable_good_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, 12)
    for name in ("003.png", "007.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ArtifactError, match=r"003\.png.*\(2 such files\); repair or remove"):
        load_good(tmp_path, GEOMETRY)


def test_the_digest_knows_every_pixel(tmp_path: Path) -> None:
    before = load_good(folder_of(tmp_path, 10), GEOMETRY).digest
    assert load_good(tmp_path, GEOMETRY).digest == before
    write(tmp_path / "005.png", noise(40, 50, 3, seed=99))
    assert load_good(tmp_path, GEOMETRY).digest != before


def test_spread() -> None:
    assert spread(5, 0) == spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(10, 4) == [0, 2, 5, 7]


def test_images_beyond_the_budget_are_read_again() -> None:
    reads: list[str] = []

    def read(path: Path) -> np.ndarray:
        reads.append(path.name)
        return np.zeros(100, np.uint8)

    images = Cached([Path("a"), Path("b"), Path("c")], read, budget_bytes=250)
    images.read_all()
    assert [image.nbytes for image in images] == [100, 100, 100]
    assert reads == ["a", "b", "c", "c"]
    assert memory_budget() > 1 << 20


def test_natural_images_are_doubled_and_cut_to_their_centre(tmp_path: Path) -> None:
    path = write(tmp_path / "one.png", noise(256, 256, 3))
    natural = NaturalImages(tmp_path, GEOMETRY)
    rng = np.random.default_rng(0)
    drawn = [natural.draw(rng) for _ in range(200)]
    centre = read_image(path, 3)[64:192, 64:192, ::-1]
    grey = [bool((one == one[..., :1]).all()) for one in drawn]
    assert 0.2 < np.mean(grey) < 0.4
    colour = next(one for one, is_grey in zip(drawn, grey, strict=True) if not is_grey)
    assert np.array_equal(colour, centre)


def test_natural_images_are_grey_for_a_grey_recipe(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    natural = NaturalImages(tmp_path, Geometry(128, 160, 1))
    rng = np.random.default_rng(0)
    for _ in range(20):
        one = natural.draw(rng)
        assert one.shape == (128, 160, 3)
        assert (one == one[..., :1]).all()


def test_a_few_unreadable_natural_images_are_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path, 6)
    (tmp_path / "002.png").write_bytes(b"no image")
    natural = NaturalImages(tmp_path, GEOMETRY)
    rng = np.random.default_rng(0)
    for _ in range(50):
        natural.draw(rng)
    assert natural.unreadable == {2}


def test_nothing_but_unreadable_natural_images(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ArtifactError, match="is not an image"):
        NaturalImages(tmp_path, GEOMETRY).draw(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0:400:2", FrameRange(0, 400, 2)),
        (":400", FrameRange(0, 400, 1)),
        ("5:", FrameRange(5, 0, 1)),
        (":", FrameRange()),
    ],
)
def test_frame_ranges(text: str, wanted: FrameRange) -> None:
    assert parse_frames(text) == wanted
    assert parse_frames(str(wanted)) == wanted


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3:4", "-1:5", "5:5", "9:3", "0:9:0"])
def test_what_is_no_frame_range(text: str) -> None:
    with pytest.raises(ConfigError, match="--frames"):
        parse_frames(text)


def test_video_frames_are_those_asked_for(video: Path) -> None:
    def brightness(frames: FrameRange) -> list[int]:
        return [round(float(f.mean()) / 20) for f in video_frames(video, frames, 3)]

    assert brightness(FrameRange()) == list(range(12))
    assert brightness(FrameRange(3, 9, 2)) == [3, 5, 7]
    assert brightness(FrameRange(10, 99)) == [10, 11]
    grey = list(video_frames(video, FrameRange(0, 2), 1))
    assert [frame.shape for frame in grey] == [(48, 64), (48, 64)]


def test_videos_that_cannot_be(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has only 12 frames"):
        list(video_frames(video, FrameRange(50, 60), 3))
    with pytest.raises(ArtifactError, match="is not a video"):
        list(video_frames(tmp_path / "none.mp4", FrameRange(), 3))


def test_good_frames_of_a_video(video: Path, tmp_path: Path) -> None:
    good = load_good(video, GEOMETRY, FrameRange(1, 12))
    assert len(good) == 11
    assert good.in_order
    with pytest.raises(ArtifactError, match="too few"):
        load_good(video, GEOMETRY, FrameRange(0, 5))
    with pytest.raises(ConfigError, match="--frames is for videos"):
        load_good(folder_of(tmp_path, 10), GEOMETRY, FrameRange())
