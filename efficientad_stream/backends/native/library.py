"""The compiled kernels as Python sees them; every call lets other Python threads run."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efficientad_stream.core.errors import FatalError

Array = NDArray[np.float32]
LINEAR, RELU, RELU_POOL = 0, 1, 2
"""What follows a convolution, as in ``api.h``."""


class Packed(NamedTuple):
    """A convolution's numbers as the kernels read them: ``packing``'s, and one bias a channel."""

    weight: Array
    bias: Array


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
    if found is None or found.origin is None:
        raise NativeUnavailableError("the native kernels were not built (no C++ compiler?)")
    try:
        from cffi import FFI

        ffi = FFI()
        text = Path(__file__).with_name("api.h").read_text()
        ffi.cdef(re.sub(r"//.*", "", text))
        return ffi, ffi.dlopen(found.origin)
    except (ImportError, OSError) as error:
        raise NativeUnavailableError(f"the native kernels cannot be loaded: {error}") from error


def levels() -> list[str]:
    """Instruction sets that this processor can run, the fastest last.

    Raises:
        NativeUnavailableError: as ``load``.
    """
    ffi, lib = load()
    return [ffi.string(lib.ea_kind(level)).decode() for level in range(lib.ea_best() + 1)]


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
            raise FatalError(f"cpu: cannot start {threads} threads")
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
        pixels = self._ffi.from_buffer("unsigned char[]", rgb)
        return self._call(self._lib.ea_bytes, [pixels, out])

    def first(self, x: Array, filters: Packed, out: Array) -> Call:
        """4 x 4 convolution of three channels, ReLU, mean of 2 x 2; ``packing.direct`` of lanes."""
        return self._call(self._lib.ea_first, [x, *filters, out])

    def direct(
        self, x: Array, filters: Packed, out: Array, *, r: int, stride: int, pad: int, relu: bool
    ) -> Call:
        """R x r convolution by its definition (``packing.direct``, ``panel``)."""
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
        """R x r convolution of stride 1 in tiles of m x m (``packing.winograd``)."""
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
        sizes = [len(a.bias), chunk, *maps[0].shape[1:]]
        flat = [one.reshape(-1) for one in maps]
        return self._call(self._lib.ea_squares, [m, r, x, to_a, from_b, *a, *b, *sizes, *flat])

    def difference(self, a: Array, b: Array, out: Array) -> Call:
        """Mean over channels of the squares of a - b: N x h x w without gaps."""
        return self._call(self._lib.ea_difference, [a, b, out.reshape(-1)])

    def resize(self, x: Array, out: Array) -> Call:
        """Bilinear, corners not aligned."""
        return self._call(self._lib.ea_resize, [x, out])

    def average(self, x: Array, out: Array) -> Call:
        """Adaptive average."""
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
        if array.ndim == 1:
            return self._ffi.from_buffer("float[]", array)
        n, h, w, c = array.shape
        image, row, column, one = (step // array.itemsize for step in array.strides)
        assert one == 1
        data = self._ffi.cast("float *", array.ctypes.data)
        return self._ffi.new("ea_tensor *", [data, n, h, w, c, image, row, column])
