"""The mask of a recipe as a file, and the geometry that a training is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.placement import Rect
from efficientad_stream.model.data import list_images, read_image
from efficientad_stream.model.frames import inspected
from efficientad_stream.model.video import VIDEO_SUFFIXES, FrameRange, video_frames

LIGHT = 128
"""From this value on, of any colour, a pixel of a drawn mask is inspected."""
OPAQUE = 255


def mask_bytes(mask: NDArray[np.bool_]) -> bytes:
    """``mask`` (true where it is inspected) as a PNG: 255 there, else 0."""
    done, data = cv2.imencode(".png", np.where(mask, 255, 0).astype(np.uint8))
    if not done:
        raise ArtifactError(f"a mask of {mask.shape} cannot be written as PNG")
    return data.tobytes()


def known_mask(geometry: Geometry, data: bytes, path: Path) -> Geometry:
    """``geometry`` with the mask that it knows by its hash; ``data`` is the file ``path``.

    Raises:
        ArtifactError: no picture of eight bits a pixel, or as ``with_mask``.
    """
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        picture = None
    if picture is None or picture.dtype != np.uint8 or picture.ndim != 2:
        raise ArtifactError(f"{path}: is no picture of eight bits a pixel; train again")
    try:
        found = replace(geometry, mask=_as_mask(np.asarray(picture, np.uint8)))
        inspected(found)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}; train again") from error
    return found


def _as_mask(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    mask = picture > 0
    mask.setflags(write=False)
    return mask


def read_mask(path: Path) -> NDArray[np.bool_]:
    """The mask that a user has drawn: false where all colours are in the darker half.

    So what a JPEG makes of black is still black.

    Raises:
        ArtifactError: it cannot be read, has more than eight bits a colour, of which the lower
            ones would be lost, or is transparent somewhere, which could mean either.
    """
    read_image(path, 3)  # says what is wrong with the file
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.dtype != np.uint8:
        raise ArtifactError(f"{path}: is no picture of eight bits a colour; save it as one")
    planes = np.asarray(picture, np.uint8).reshape(*picture.shape[:2], -1)
    if planes.shape[2] == 4 and (planes[..., 3] < OPAQUE).any():
        raise ArtifactError(f"{path}: is transparent in places; save it black and white")
    return _as_mask(np.asarray(planes[..., :3].max(2) >= LIGHT, np.uint8))


def with_mask(geometry: Geometry, mask: NDArray[np.bool_]) -> Geometry:
    """``geometry`` with ``mask`` and the hash of its file.

    Raises:
        ArtifactError: it is not of the frame's size, or leaves nothing to inspect.
    """
    digest = hashlib.sha256(mask_bytes(mask)).hexdigest()
    found = replace(geometry, mask=mask, mask_sha256=digest)
    inspected(found)
    return found


def make_geometry(
    plain: Geometry,
    images: Path,
    frames: FrameRange | None,
    *,
    fit: str,
    region: Rect | None,
    mask: Path | None,
) -> Geometry:
    """The geometry of a recipe that is made from ``images``.

    Args:
        plain: input size, channels and exposure.
        images: folder of good images, or a video; the first says what size frames have, where that
            matters.
        frames: of a video, which.
        fit: see ``geometry.FITS``.
        region: of the frame; None: all of it.
        mask: picture of the frame's size, black where nothing is inspected.

    Raises:
        ArtifactError: images or mask cannot be read, or do not go together.
    """
    if fit != "letterbox" and region is None and mask is None:
        return replace(plain, fit=fit)
    size = _first_size(images, frames or FrameRange(), plain.channels)
    geometry = replace(plain, fit=fit, region=region, frame=size)
    if mask is None:
        return geometry
    found = read_mask(mask)
    if found.shape != size:
        raise ArtifactError(
            f"{mask}: has {found.shape[1]} x {found.shape[0]} pixels, the frames of {images} "
            f"{size[1]} x {size[0]}"
        )
    try:
        return with_mask(geometry, found)
    except ArtifactError as error:
        raise ArtifactError(f"{mask}: {error}") from error


def _first_size(images: Path, frames: FrameRange, channels: int) -> tuple[int, int]:
    """Height and width of the first image."""
    if images.suffix.lower() in VIDEO_SUFFIXES and not images.is_dir():
        height, width = next(video_frames(images, frames, channels)).shape[:2]
    else:
        height, width = read_image(list_images(images)[0], channels).shape[:2]
    return height, width
