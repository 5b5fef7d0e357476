"""What a real line does to the frames of a good part, done to the training images on purpose.

Each kind can be had by itself. They change bytes, before anything becomes a float, as a camera
would; strengths are drawn anew for every image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import cv2
import numpy as np

from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.types import PixelArray

GAIN = 1.25
"""Largest factor, up or down, that a lamp or an exposure time changes all values by."""
GAMMA = 1.2
BLUR_SIGMA = 0.8
"""Pixels of the input size."""
BLUR_SHARE = 0.3
"""Of the images that are blurred at all."""
SHIFT_PX = 5
"""Largest shift along either axis, in pixels of the input size."""
NOISE_SIGMA = 4.0
"""Grey values."""


def gain(image: PixelArray, rng: np.random.Generator) -> PixelArray:
    """All values times one factor."""
    factor = GAIN ** rng.uniform(-1, 1)
    return _bytes(cv2.convertScaleAbs(image, alpha=factor))


def gamma(image: PixelArray, rng: np.random.Generator) -> PixelArray:
    """All values to one power, black and white kept."""
    power = GAMMA ** rng.uniform(-1, 1)
    table = np.round(255 * (np.arange(256) / 255) ** power).astype(np.uint8)
    return _bytes(cv2.LUT(image, table))


def blur(image: PixelArray, rng: np.random.Generator) -> PixelArray:
    """Slightly out of focus, now and then."""
    blurred, sigma = rng.random() < BLUR_SHARE, rng.uniform(0.2, BLUR_SIGMA)
    return _bytes(cv2.GaussianBlur(image, (0, 0), sigma)) if blurred else image


def shift(image: PixelArray, rng: np.random.Generator) -> PixelArray:
    """The part a few pixels off; what enters at an edge repeats the edge."""
    right, down = (int(rng.integers(-SHIFT_PX, SHIFT_PX + 1)) for _ in range(2))
    height, width = image.shape[:2]
    b = SHIFT_PX
    framed = cv2.copyMakeBorder(image, b, b, b, b, cv2.BORDER_REPLICATE)
    return _bytes(framed[b - down : b - down + height, b - right : b - right + width])


def noise(image: PixelArray, rng: np.random.Generator) -> PixelArray:
    """Gaussian noise, the same in all channels of a grey image."""
    sigma = rng.uniform(0, NOISE_SIGMA)
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
    shape = (*image.shape[:2], 1) if grey else image.shape
    added = rng.standard_normal(shape, np.float32) * np.float32(sigma)
    return _bytes(np.clip(np.rint(image + added), 0, 255))


KINDS: dict[str, Callable[[PixelArray, np.random.Generator], PixelArray]] = {
    "shift": shift,
    "blur": blur,
    "gamma": gamma,
    "gain": gain,
    "noise": noise,
}
"""In the order of the light's way: the part, the lens, the lamp, the sensor."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """The kinds of "all", "none", or a list such as "gain,shift", in the order of ``KINDS``.

    Raises:
        ConfigError: an unknown kind.
    """
    if text == "none":
        return ()
    if text == "all":
        return tuple(KINDS)
    wanted = {word.strip() for word in text.split(",")}
    unknown = sorted(wanted - KINDS.keys())
    if unknown:
        raise ConfigError(
            f"--augment {unknown[0] or text!r}: unknown; give all, none, or some of "
            + ", ".join(KINDS)
        )
    return tuple(kind for kind in KINDS if kind in wanted)


def augment(image: PixelArray, kinds: Collection[str], rng: np.random.Generator) -> PixelArray:
    """``image`` (h x w x 3, uint8) after all ``kinds``; ``image`` itself is left as it is."""
    for name, change in KINDS.items():
        if name in kinds:
            image = change(image, rng)
    return np.ascontiguousarray(image)


def _bytes(array: object) -> PixelArray:
    return np.asarray(array, dtype=np.uint8)
