"""EfficientAD for inspection as a list of kernel calls, planned once for a batch and input size.

The same mathematics as ``model.folded``, and two steps on: teacher minus student, and autoencoder
minus student, are each one convolution (their last layers are linear), whose outputs are squared
and summed on the spot, so that no map of 384 channels is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from efficientad_stream.backends.native import packing
from efficientad_stream.backends.native.library import (
    LINEAR,
    RELU,
    RELU_POOL,
    Call,
    Kernels,
    Packed,
)
from efficientad_stream.model.folded import FoldedEfficientAD
from efficientad_stream.model.networks import PDN, TEACHER_CHANNELS, decoder_sizes

Array = NDArray[np.float32]
LATENT = 64
LOCAL, GLOBAL = slice(TEACHER_CHANNELS), slice(TEACHER_CHANNELS, None)
"""The student's outputs."""
CHUNK = 64
"""Output channels that a block of tiles is multiplied with before they are transformed back."""
HEAD_CHUNK = 32


@dataclass(frozen=True)
class Tiling:
    """Outputs of a Winograd tile along each side, by layer: larger is faster and less exact."""

    conv2: int = 6
    conv3: int = 6
    head: int = 7
    decoder: int = 4


class Filters(NamedTuple):
    """A convolution's numbers: ``weight`` K x C x r x r, ``bias`` K."""

    weight: Array
    bias: Array

    @staticmethod
    def of(layer: nn.Conv2d, outputs: slice = slice(None)) -> Filters:
        """Those of a layer, or of some of its outputs."""
        assert layer.bias is not None
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return Filters(np.ascontiguousarray(weight[outputs]), np.ascontiguousarray(bias[outputs]))

    def minus(self, other: Filters) -> Filters:
        """One convolution over both inputs side by side: this one less the other."""
        weight = np.concatenate([self.weight, -other.weight], 1)
        return Filters(weight, self.bias - other.bias)

    def widened(self, r: int) -> Filters:
        """As r x r, with zeros below and to the right."""
        more = r - self.weight.shape[2]
        return Filters(np.pad(self.weight, ((0, 0), (0, 0), (0, more), (0, more))), self.bias)

    @property
    def r(self) -> int:
        """Side of the filters."""
        return int(self.weight.shape[2])


class Network:
    """All calls from RGB bytes to the two maps before normalisation.

    Args:
        net: the folded networks; read only.
        kernels: that run it.
        frames: the most in a batch.
        size: height and width of the input.

    Attributes:
        rgb: the input, N x H x W x 3, uint8; to be filled.
        local, globl: the results, N x h x w, float32.
    """

    def __init__(
        self,
        net: FoldedEfficientAD,
        kernels: Kernels,
        frames: int,
        size: tuple[int, int],
        *,
        tiling: Tiling = Tiling(),
    ) -> None:
        self._kernels, self._tiling = kernels, tiling
        self._most = self._last = frames
        self.calls: list[Call] = []
        self.rgb = np.zeros((frames, *size, 3), np.uint8)
        height, width = out_size(*size)
        self.local, self.globl = np.zeros((2, frames, height, width), np.float32)
        self._plan(net)

    def run(self, frames: int) -> None:
        """The maps of the first ``frames`` of ``rgb``.

        Raises:
            FatalError: memory has run out.
        """
        if frames != self._last:
            for call in self.calls:
                call.only(frames)
            self._last = frames
        for call in self.calls:
            call()
        self._kernels.check()

    def _plan(self, net: FoldedEfficientAD) -> None:
        _, height, width, _ = self.rgb.shape
        framed = self._new(height + 2, width + 2, 3)
        framed[:] = net.border.numpy().reshape(3)
        rgb = framed[:, 1:-1, 1:-1]
        self.calls.append(self._kernels.bytes(self.rgb, rgb))
        hidden = self._new((height - 3) // 2, (width - 3) // 2, 2 * net.wide)
        weight, bias = Filters.of(net.conv1)
        first = Packed(packing.direct(weight, self._kernels.lanes), bias)
        self.calls.append(self._kernels.first(rgb, first, hidden))
        plan_tail = self._plan_small if net.size == "S" else self._plan_medium
        plan_tail(net, (hidden[..., : net.wide], hidden[..., net.wide :]), framed)

    def _plan_small(
        self, net: FoldedEfficientAD, hidden: tuple[Array, Array], framed: Array
    ) -> None:
        """Both hidden stacks and the decoder's side by side, then one call for both maps."""
        wide = 2 * net.wide
        _, h, w = self.local.shape
        side = self._new(h + 3, w + 3, 2 * wide + LATENT)
        for i, (pdn, x) in enumerate(zip((net.teacher, net.student), hidden, strict=True)):
            pooled = self._winograd(x, Filters.of(pdn.conv2), self._tiling.conv2, RELU_POOL)
            into = side[..., i * wide : (i + 1) * wide]
            self._winograd(pooled, Filters.of(pdn.conv3), self._tiling.conv3, RELU, into=into)
        # the autoencoder's last filters are 3 x 3 and padded: made 4 x 4 by zeros, on an input that
        # begins one further in; what lies around that stays zero and is the padding
        self._autoencode(net, framed, side[:, 1 : 1 + h, 1 : 1 + w, 2 * wide :])
        student = net.student.last
        a = Filters.of(net.teacher.last).minus(Filters.of(student, LOCAL))
        b = Filters.of(student, GLOBAL).minus(Filters.of(net.autoencoder.dec8).widened(4))
        m = self._tiling.head
        self.calls.append(
            self._kernels.squares(
                side, self._packed(a, m, HEAD_CHUNK), self._packed(b, m, HEAD_CHUNK),
                (self.local, self.globl), m=m, r=4, to_a=2 * wide, from_b=wide, chunk=HEAD_CHUNK,
            )
        )  # fmt: skip

    def _plan_medium(
        self, net: FoldedEfficientAD, hidden: tuple[Array, Array], framed: Array
    ) -> None:
        """The last layer is 1 x 1, so the differences are taken of its outputs."""
        teacher, student = (
            self._medium_hidden(pdn, x)
            for pdn, x in zip((net.teacher, net.student), hidden, strict=True)
        )
        _, h, w = self.local.shape
        decoded = self._new(h, w, LATENT)
        self._autoencode(net, framed, decoded)
        last, decoder = Filters.of(net.autoencoder.dec8), self._tiling.decoder
        predicted = self._winograd(decoded, last, decoder, LINEAR, pad=1)
        target = self._direct(teacher, Filters.of(net.teacher.last), relu=False)
        for outputs, aim, result in ((LOCAL, target, self.local), (GLOBAL, predicted, self.globl)):
            said = self._direct(student, Filters.of(net.student.last, outputs), relu=False)
            self.calls.append(self._kernels.difference(aim, said, result))

    def _medium_hidden(self, pdn: PDN, x: Array) -> Array:
        x = self._winograd(x, Filters.of(pdn.conv2), self._tiling.conv2, RELU_POOL)
        x = self._direct(x, Filters.of(pdn.conv3), relu=True)
        x = self._winograd(x, Filters.of(pdn.conv4), self._tiling.conv3, RELU)
        return self._winograd(x, Filters.of(pdn.conv5), self._tiling.conv2, RELU)

    def _autoencode(self, net: FoldedEfficientAD, framed: Array, out: Array) -> None:
        """Up to the last layer but one, to ``out``."""
        ae = net.autoencoder
        x = self._direct(framed, Filters.of(ae.enc1), relu=True, stride=2)
        for layer in (ae.enc2, ae.enc3, ae.enc4, ae.enc5):
            x = self._direct(x, Filters.of(layer), relu=True, stride=2, pad=1)
        x = self._to(self._kernels.average, x, (ae.LATENT, ae.LATENT))
        x = self._direct(x, Filters.of(ae.enc6), relu=False)
        _, height, width, _ = self.rgb.shape
        layers = (ae.dec1, ae.dec2, ae.dec3, ae.dec4, ae.dec5, ae.dec6)
        for layer, size in zip(layers, decoder_sizes(height, width), strict=True):
            x = self._to(self._kernels.resize, x, size)
            x = self._winograd(x, Filters.of(layer), self._tiling.decoder, RELU, pad=2)
        x = self._to(self._kernels.resize, x, (out.shape[1], out.shape[2]))
        self._winograd(x, Filters.of(ae.dec7), self._tiling.decoder, RELU, pad=1, into=out)

    def _packed(self, filters: Filters, m: int, chunk: int) -> Packed:
        weight = packing.winograd(filters.weight, m, chunk, self._kernels.panel)
        return Packed(weight, filters.bias)

    def _winograd(
        self,
        x: Array,
        filters: Filters,
        m: int,
        after: int,
        *,
        pad: int = 0,
        into: Array | None = None,
    ) -> Array:
        pool = 2 if after == RELU_POOL else 1
        h, w = ((n + 2 * pad - filters.r + 1) // pool for n in x.shape[1:3])
        out = self._new(h, w, len(filters.bias)) if into is None else into
        packed = self._packed(filters, m, CHUNK)
        self.calls.append(
            self._kernels.winograd(
                x, packed, out, m=m, r=filters.r, pad=pad, chunk=CHUNK, after=after
            )
        )
        return out

    def _direct(
        self, x: Array, filters: Filters, *, relu: bool, stride: int = 1, pad: int = 0
    ) -> Array:
        r = filters.r
        h, w = ((n + 2 * pad - r) // stride + 1 for n in x.shape[1:3])
        out = self._new(h, w, len(filters.bias))
        packed = Packed(packing.direct(filters.weight, self._kernels.panel), filters.bias)
        self.calls.append(
            self._kernels.direct(x, packed, out, r=r, stride=stride, pad=pad, relu=relu)
        )
        return out

    def _to(self, what: Callable[[Array, Array], Call], x: Array, size: tuple[int, int]) -> Array:
        out = self._new(*size, x.shape[3])
        self.calls.append(what(x, out))
        return out

    def _new(self, height: int, width: int, channels: int) -> Array:
        return np.zeros((self._most, height, width, channels), np.float32)


def out_size(height: int, width: int) -> tuple[int, int]:
    """Of the maps: two convolutions of four and poolings, then filters that take five together."""

    def along(n: int) -> int:
        return ((n - 3) // 2 - 3) // 2 - 5

    return along(height), along(width)
