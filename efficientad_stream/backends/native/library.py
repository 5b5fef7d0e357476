"""The compiled kernels as Python sees them; every call lets other Python threads run."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import FatalError

Array = NDArray[np.float32]
CONVOLUTION_TILES = ((4, 3), (6, 3), (4, 4), (6, 4))
SQUARES_TILES = ((4, 4), (6, 4), (7, 4))
"""(m, r), as in ``kernels.inl``."""
MOST_CHANNELS, MOST_TAPS = 4096, 64
"""As in ``context.h`` and ``direct.inl``."""
DIGEST_LENGTH = 64
REBUILD = "build them again: make venv, or python setup.py build_ext --inplace"
LINEAR, RELU, RELU_POOL = 0, 1, 2
"""What follows a convolution, as in ``api.h``."""


class Packed(NamedTuple):
    """A convolution's numbers as the kernels read them: ``packing``'s, and one bias a channel."""

    weight: Array
    bias: Array

    def fit(self, numbers: int, out: Array) -> bool:
        """Are they so many for each output channel of ``out``?"""
        channels: int = out.shape[3]
        return len(self.bias) == channels and len(self.weight) == numbers * channels


class NativeUnavailableError(RuntimeError):
    """The kernels were not built, or cannot be loaded; the text says which."""


@functools.cache
def load() -> tuple[Any, Any]:
    """Cffi's ``ffi`` and the library.

    Raises:
        NativeUnavailableError: the kernels are not there.
    """
    package = __name__.rpartition(".")[0]
    found = importlib.util.find_spec(f"{package}._kernels")
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise NativeUnavailableError("the native kernels were not built (no C++ compiler?)")
    try:
        from cffi import FFI

        ffi = FFI()
        header = Path(__file__).with_name("api.h").read_bytes()
        ffi.cdef(re.sub(r"//.*", "", header.decode()))
        lib: Any = ffi.dlopen(found.origin)
        built_from: Any = ffi.unpack(lib.ea_api(), DIGEST_LENGTH)
    except Exception as error:  # a foreign library: missing symbols, damaged files, no cffi, ...
        raise NativeUnavailableError(_cannot_load(error)) from error
    if built_from != hashlib.sha256(header).hexdigest().encode():
        raise NativeUnavailableError(f"the native kernels are of another version; {REBUILD}")
    return ffi, lib


def _cannot_load(error: Exception) -> str:
    why = str(error).partition("  Additionally")[0] or type(error).__name__
    return f"the native kernels cannot be loaded ({' '.join(why.split())}); {REBUILD}"


def levels() -> list[str]:
    """Instruction sets that this processor can run, the fastest last.

    Raises:
        NativeUnavailableError: as ``load``.
    """
    ffi, lib = load()
    return [ffi.string(lib.ea_kind(level)).decode() for level in range(lib.ea_best() + 1)]


def _expect(holds: bool, what: str) -> None:
    """The kernels look at nothing: what does not fit would be read and written all the same."""
    if not holds:
        raise ValueError(f"kernels: unfit {what}")


class Call:
    """A call of a kernel with all that it is given, made once and run for every batch."""

    __slots__ = ("_arguments", "_function", "_kept", "_tensors")

    def __init__(
        self, function: Any, arguments: Sequence[Any], tensors: Sequence[Any], kept: Sequence[Array]
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._tensors = tensors
        self._kept = kept
        """Arrays that the arguments point into."""

    def only(self, images: int) -> None:
        """From now on for the first so many images of the arrays."""
        for tensor in self._tensors:
            tensor.n = images

    def __call__(self) -> None:
        """Run it; other Python threads run meanwhile."""
        self._function(*self._arguments)


class Kernels:
    """Threads and an instruction set; the methods plan the calls of ``api.h``.

    Arrays are N x h x w x c, float32, with channels side by side; slices of the channels, and
    windows, are taken as they are. The calls of an instance are for one thread at a time.

    Args:
        threads: that work on each call, the caller among them.
        kind: instruction set, one of ``levels()``; None: the fastest.

    Raises:
        NativeUnavailableError: as ``load``.
        FatalError: no memory for it, or no threads.
        ValueError: ``kind`` is not there.
    """

    def __init__(self, threads: int, kind: str | None = None) -> None:
        self._ffi, self._lib = load()
        there = levels()
        level = len(there) - 1 if kind is None else there.index(kind)
        self.kind = there[level]
        self.lanes: int = self._lib.ea_lanes(level)
        """Output channels that ``first`` computes at once."""
        self.panel: int = self._lib.ea_panel(level)
        """Output channels that the other convolutions compute at once."""
        opened = self._lib.ea_open(threads, level)
        if opened == self._ffi.NULL:
            raise FatalError(
                f"cpu: cannot start {threads} threads; free memory, or lower backend.threads"
            )
        self._context = self._ffi.gc(opened, self._lib.ea_close)

    def close(self) -> None:
        """End the threads; no call may be run afterwards."""
        self._ffi.release(self._context)

    def check(self) -> None:
        """Raise FatalError if memory has run out in a call."""
        if self._lib.ea_failed(self._context):
            raise FatalError("cpu: out of memory")

    def bytes(self, rgb: NDArray[np.uint8], out: Array) -> Call:
        """N x h x w x 3 RGB without gaps to [0, 1]."""
        _expect(rgb.dtype == np.uint8 and rgb.shape == out.shape and rgb.shape[3] == 3, "sizes")
        pixels = self._ffi.from_buffer("unsigned char[]", rgb)
        return self._call(self._lib.ea_bytes, [pixels, out])

    def first(self, x: Array, filters: Packed, out: Array) -> Call:
        """4 x 4 convolution of three channels, ReLU, mean of 2 x 2; ``packing.direct`` of lanes."""
        _expect(x.shape[3] == 3 and out.shape[3] % self.lanes == 0, "channels")
        _expect(filters.fit(48, out), "weights")
        _expect(out.shape[1:3] == tuple((n - 3) // 2 for n in x.shape[1:3]), "sizes")
        return self._call(self._lib.ea_first, [x, *filters, out])

    def direct(
        self, x: Array, filters: Packed, out: Array, *, r: int, stride: int, pad: int, relu: bool
    ) -> Call:
        """A convolution of r x r by its definition; ``packing.direct`` of panels."""
        channels = x.shape[3]
        _expect(channels <= MOST_CHANNELS and out.shape[3] % self.panel == 0, "channels")
        _expect(r * r <= MOST_TAPS and filters.fit(r * r * channels, out), "weights")
        grown = tuple((n + 2 * pad - r) // stride + 1 for n in x.shape[1:3])
        _expect(out.shape[1:3] == grown, "sizes")
        return self._call(self._lib.ea_direct, [x, r, stride, pad, *filters, relu, out])

    def winograd(
        self,
        x: Array,
        filters: Packed,
        out: Array,
        *,
        m: int,
        r: int,
        pad: int,
        chunk: int,
        after: int,
    ) -> Call:
        """A convolution of r x r with stride 1 in tiles of m x m; ``packing.winograd``."""
        channels = x.shape[3]
        _expect((m, r) in CONVOLUTION_TILES, "tile")
        _expect(channels <= MOST_CHANNELS and 2 * channels % self.panel == 0, "channels")
        _expect(chunk % self.panel == 0 and out.shape[3] % chunk == 0, "chunk")
        _expect(filters.fit((m + r - 1) ** 2 * channels, out), "weights")
        pool = 2 if after == RELU_POOL else 1
        grown = tuple((n + 2 * pad - r + 1) // pool for n in x.shape[1:3])
        _expect(out.shape[1:3] == grown, "sizes")
        return self._call(self._lib.ea_winograd, [m, r, x, pad, *filters, chunk, after, out])

    def squares(
        self,
        x: Array,
        a: Packed,
        b: Packed,
        maps: tuple[Array, Array],
        *,
        m: int,
        r: int,
        to_a: int,
        from_b: int,
        chunk: int,
    ) -> Call:
        """Mean squares of two convolutions, of the channels before and from so many: N x h x w."""
        channels, points = x.shape[3], (m + r - 1) ** 2
        _expect((m, r) in SQUARES_TILES, "tile")
        _expect(0 <= from_b < channels <= MOST_CHANNELS and 0 < to_a <= channels, "channels")
        _expect(all(2 * n % self.panel == 0 for n in (channels, to_a, from_b)), "channels")
        _expect(chunk % self.panel == 0 and len(a.bias) % chunk == 0, "chunk")
        _expect(len(a.weight) == points * to_a * len(a.bias), "weights")
        _expect(len(b.weight) == points * (channels - from_b) * len(b.bias), "weights")
        wanted = (x.shape[0], x.shape[1] - r + 1, x.shape[2] - r + 1)
        _expect(maps[0].shape == maps[1].shape == wanted and len(a.bias) == len(b.bias), "sizes")
        sizes = [len(a.bias), chunk, *maps[0].shape[1:]]
        flat = [one.reshape(-1) for one in maps]
        return self._call(self._lib.ea_squares, [m, r, x, to_a, from_b, *a, *b, *sizes, *flat])

    def difference(self, a: Array, b: Array, out: Array) -> Call:
        """Mean over channels of the squares of a - b: N x h x w without gaps."""
        _expect(a.shape == b.shape and out.shape == a.shape[:3], "sizes")
        _expect(2 * a.shape[3] % self.panel == 0, "channels")
        return self._call(self._lib.ea_difference, [a, b, out.reshape(-1)])

    def resize(self, x: Array, out: Array) -> Call:
        """Bilinear, corners not aligned."""
        _expect(x.shape[3] == out.shape[3] and 2 * x.shape[3] % self.panel == 0, "channels")
        return self._call(self._lib.ea_resize, [x, out])

    def average(self, x: Array, out: Array) -> Call:
        """Adaptive average."""
        _expect(x.shape[3] == out.shape[3] and 2 * x.shape[3] % self.panel == 0, "channels")
        return self._call(self._lib.ea_average, [x, out])

    def _call(self, function: Any, arguments: Sequence[Any]) -> Call:
        arrays = [one for one in arguments if isinstance(one, np.ndarray)]
        passed = [self._pass(one) if isinstance(one, np.ndarray) else one for one in arguments]
        tensors = [
            new for one, new in zip(arguments, passed, strict=True)
            if isinstance(one, np.ndarray) and one.ndim == 4
        ]  # fmt: skip
        return Call(function, [self._context, *passed], tensors, arrays)

    def _pass(self, array: Array) -> Any:
        """Four dimensions are a tensor, one is a plain row of numbers."""
        _expect(array.dtype == np.float32, "numbers, not of single precision")
        if array.ndim == 1:
            return self._ffi.from_buffer("float[]", array)
        n, h, w, c = array.shape
        image, row, column, one = (step // array.itemsize for step in array.strides)
        _expect(one == 1, "channels, not side by side")
        data = self._ffi.cast("float *", array.ctypes.data)
        return self._ffi.new("ea_tensor *", [data, n, h, w, c, image, row, column])
