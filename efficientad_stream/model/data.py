"""Images for training and evaluation: found, read, prepared and held in memory while they fit.

Nothing here needs torch. Images are read as the daemon reads them: eight bits a channel (of sixteen
the upper eight), colour as BGR, or grey where the recipe is grey.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from efficientad_stream.core.errors import ArtifactError, ConfigError, FormatError
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.frames import prepare
from efficientad_stream.model.video import VIDEO_SUFFIXES, FrameRange, video_frames

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
SMALLEST_RANGE = 3
"""Grey values between the darkest and the brightest pixel of all images that show something."""
FEWEST_GOOD = 10
"""Below this neither a student nor a threshold comes out of it."""


def list_images(folder: Path) -> list[Path]:
    """All images below ``folder`` in order of path; hidden files are left out.

    Raises:
        ArtifactError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: is not a folder; give a folder of images")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ArtifactError(f"{folder}: no right to read it")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise ArtifactError(f"{folder}: holds no image ({kinds}); give another folder")
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def names_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the names of files, in order: says which set of photographs was used."""
    return hashlib.sha256(os.fsencode("\0".join(path.name for path in paths))).hexdigest()


def read_image(path: Path, channels: int) -> PixelArray:
    """The image as a camera would deliver it: H x W if ``channels`` is 1, else H x W x 3 BGR.

    Raises:
        ArtifactError: it cannot be read or decoded.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise ArtifactError(f"{path}: cannot be read: is not an ordinary file")
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error
    image = None
    if data.size:
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
        try:
            image = cv2.imdecode(data, flag)
        except cv2.error as error:
            raise ArtifactError(f"{path}: is not an image that can be decoded") from error
    if image is None:
        raise ArtifactError(f"{path}: is not an image that can be decoded, or it is truncated")
    return np.asarray(image, dtype=np.uint8)


class GoodImages(Sequence[PixelArray]):
    """The good parts of one product, prepared (h x w x 3 RGB, uint8), in memory while they fit."""

    def __init__(
        self,
        images: Sequence[PixelArray],
        sizes: frozenset[tuple[int, int]],
        digest: str,
        in_order: bool,
    ) -> None:
        self._images = images
        self.sizes = sizes
        """Every (width, height) that occurred, in pixels."""
        self.digest = digest
        """SHA-256 over all prepared pixels, in order."""
        self.in_order = in_order
        """True for a video: neighbours are nearly the same."""

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> PixelArray:  # type: ignore[override]
        return self._images[index]

    def size_warning(self, geometry: Geometry) -> str | None:
        """One line if the images differ in size; each is resized, so they are all used."""
        if len(self.sizes) < 2:
            return None
        widths, heights = zip(*self.sizes, strict=True)
        return (
            f"images differ in size ({min(widths)} to {max(widths)} wide, {min(heights)} to "
            f"{max(heights)} high); each is resized to {geometry.width} x {geometry.height}"
        )


class Subset(Sequence[PixelArray]):
    """Some of a sequence of images, which stay where they are."""

    def __init__(self, images: Sequence[PixelArray], indices: Sequence[int]) -> None:
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> PixelArray:  # type: ignore[override]
        return self._images[self._indices[index]]


def load_good(
    source: Path, geometry: Geometry, frames: FrameRange | None = None, limit: int = 0
) -> GoodImages:
    """Every good image of a folder, or frame of a video, read once to see that it can be.

    Args:
        source: folder of images, or video file.
        geometry: what they are prepared for.
        frames: of a video, which frames.
        limit: if not 0, only so many, evenly spread.

    Raises:
        ArtifactError: fewer than ten, any of them unreadable, or all of one colour.
        ConfigError: a frame range for a folder.
    """
    sizes: set[tuple[int, int]] = set()
    digest = hashlib.sha256()
    extremes: set[int] = set()

    def take(image: PixelArray) -> PixelArray:
        prepared = prepare(image, geometry)
        extremes.update((int(prepared.min()), int(prepared.max())))
        sizes.add((image.shape[1], image.shape[0]))
        digest.update(prepared.data)
        return prepared

    def read(path: Path) -> PixelArray:
        image = read_image(path, geometry.channels)
        try:
            return take(image)
        except FormatError as error:
            raise ArtifactError(f"{path}: {error}") from error

    images: Sequence[PixelArray]
    is_video = source.suffix.lower() in VIDEO_SUFFIXES and not source.is_dir()
    if is_video:
        kept = _keep_video(source, frames or FrameRange(), geometry, take)
        images = [kept[index] for index in spread(len(kept), limit)]
    elif frames is not None:
        raise ConfigError(f"--frames is for videos, and {source} is none")
    else:
        paths = list_images(source)
        paths = [paths[index] for index in spread(len(paths), limit)]
        images = Cached(paths, read)
        images.read_all()
    if len(images) < FEWEST_GOOD:
        raise ArtifactError(
            f"{source}: {len(images)} good images are too few to learn from; give at least "
            f"{FEWEST_GOOD}, better 100 or more"
        )
    if max(extremes) - min(extremes) < SMALLEST_RANGE:
        raise ArtifactError(
            f"{source}: the good images show one colour and nothing else; is the lens cap on, or "
            "the region wrong?"
        )
    return GoodImages(images, frozenset(sizes), digest.hexdigest(), is_video)


def _keep_video(
    path: Path, frames: FrameRange, geometry: Geometry, take: Callable[[PixelArray], PixelArray]
) -> list[PixelArray]:
    """The prepared frames of a video, all of them in memory: a video is only read forwards."""
    kept: list[PixelArray] = []
    room = memory_budget() // (3 * geometry.height * geometry.width)
    for frame in video_frames(path, frames, geometry.channels):
        if len(kept) >= room:
            raise ConfigError(
                f"{path}: more frames than memory has room for ({room}); give --frames "
                "START:STOP:STEP with a larger step"
            )
        kept.append(take(frame))
    return kept


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` indices below ``count``, evenly spread; all if ``limit`` is 0."""
    if not limit or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


class Cached(Sequence[PixelArray]):
    """Prepared images, read when first asked for and kept as long as memory allows."""

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[Path], PixelArray],
        budget_bytes: int | None = None,
    ) -> None:
        self._paths, self._read = paths, read
        self._kept: dict[int, PixelArray] = {}
        self._left = memory_budget() if budget_bytes is None else budget_bytes

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> PixelArray:  # type: ignore[override]
        image = self._kept.get(index)
        if image is None:
            image = self._read(self._paths[index])
            if image.nbytes <= self._left:
                self._left -= image.nbytes
                self._kept[index] = image
        return image

    @property
    def digest(self) -> str:
        """SHA-256 over the file names, in order."""
        return names_digest(self._paths)

    def read_all(self) -> None:
        """Read every image once.

        Raises:
            ArtifactError: some cannot be read; says how many and names the first.
        """
        bad = [error for index in range(len(self)) if (error := self._try(index))]
        if bad:
            more = f" ({len(bad)} such files)" if len(bad) > 1 else ""
            raise ArtifactError(f"{bad[0]}{more}; repair or remove it") from bad[0]

    def _try(self, index: int) -> ArtifactError | None:
        try:
            self[index]
        except ArtifactError as error:
            return error
        return None


def memory_budget() -> int:
    """Bytes that prepared images may take: a third of the memory that the system has left."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 1 << 30
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 // 3 if match else 1 << 30
