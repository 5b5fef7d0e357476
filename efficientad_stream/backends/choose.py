"""Which backend scores: the one that is asked for, or the fastest that is there."""

from __future__ import annotations

from efficientad_stream import logs
from efficientad_stream.backends.cpu import CpuBackend
from efficientad_stream.backends.native.library import NativeUnavailableError
from efficientad_stream.backends.processor import ProcessorBackend
from efficientad_stream.backends.torch_cpu import TorchCpuBackend
from efficientad_stream.config import BackendKind
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.model.artifact import LoadedRecipe


def make_backend(
    loaded: LoadedRecipe,
    kind: BackendKind = "auto",
    threads: int = 0,
    max_frames: int = 1,
    *,
    maps: bool = False,
) -> ProcessorBackend:
    """A backend, warm. ``auto`` is ``cpu`` where it was built, else ``torch_cpu``, and says so.

    Raises:
        ConfigError: what is asked for is not there.
    """
    if kind == "torch_cpu":
        return TorchCpuBackend(loaded, threads, max_frames, maps=maps)
    try:
        return CpuBackend(loaded, threads, max_frames, maps=maps)
    except NativeUnavailableError as error:
        if kind == "cpu":
            raise ConfigError(f"backend.kind: cpu: {error}; torch_cpu works, slower") from error
        logs.get().warning("scoring with torch_cpu, about four times slower", reason=str(error))
        return TorchCpuBackend(loaded, threads, max_frames, maps=maps)
