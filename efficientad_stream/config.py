"""The configuration of one station: frozen models, one section per module that receives it.

Unknown keys fail. Paths are relative to the configuration file. ``load`` (below) turns a YAML file
into a validated ``Config`` or one ``ConfigError`` that names file, line, key and nearest known key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from efficientad_stream import schema, strict_yaml
from efficientad_stream.core import endpoint
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.schema import SchemaError
from efficientad_stream.strict_yaml import Document, YamlError

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Fps = Annotated[float, Meta(ge=0, le=100_000)]
CameraFps = Annotated[float, Meta(ge=0.1, le=100_000)]
Station = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}(?!\n)$")]
LocalPath = Annotated[str, Meta(min_length=1)]
"""A path in the file is relative to it, one on the command line to the working directory."""


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections."""


class FileSource(Section, frozen=True, tag_field="kind", tag="file"):
    """A video file through OpenCV."""

    path: LocalPath
    fps: Fps = 0.0
    """Frames a second; 0: as fast as they are taken, nothing is lost."""
    start_frame: Count = 0
    end_frame: Count = 0
    """First frame not to be delivered; 0: to the end."""
    loop: bool = False
    grey: bool = False

    def __post_init__(self) -> None:
        if 0 < self.end_frame <= self.start_frame:
            raise ValueError(
                f"end_frame: {self.end_frame} does not come after start_frame {self.start_frame}"
            )


class ImagesSource(Section, frozen=True, tag_field="kind", tag="images"):
    """A folder of images, sub-folders included, in order of path."""

    path: LocalPath
    fps: Fps = 0.0
    loop: bool = False
    grey: bool = False
    labelled: bool = False
    """True: the name of each image's folder is its ground truth ("good" or a defect)."""


class V4l2Source(Section, frozen=True, tag_field="kind", tag="v4l2"):
    """A UVC camera through OpenCV and V4L2."""

    device: LocalPath = "/dev/video0"
    width: Positive = 1280
    height: Positive = 720
    fps: CameraFps = 30.0
    fourcc: Annotated[str, Meta(min_length=4, max_length=4)] = "MJPG"
    grey: bool = False


class SimulatedSource(Section, frozen=True, tag_field="kind", tag="simulated"):
    """A rendered line with seeded defects and known truth."""

    parts: Count = 0
    """How many parts; 0: without end."""
    fps: Fps = 0.0
    width: Annotated[int, Meta(ge=64, le=8192)] = 640
    height: Annotated[int, Meta(ge=64, le=8192)] = 480
    defect_rate: Annotated[float, Meta(ge=0, le=1)] = 0.1
    seed: Count = 0
    grey: bool = False


SourceConfig = FileSource | ImagesSource | V4l2Source | SimulatedSource


class RingConfig(Section, frozen=True):
    """The frame ring."""

    slots: Annotated[int, Meta(ge=2, le=1024)] = 16


class BatchConfig(Section, frozen=True):
    """Micro-batches: bounded in size and in waiting time."""

    max_frames: Annotated[int, Meta(ge=1, le=64)] = 4
    max_wait_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000
    depth: Annotated[int, Meta(ge=1, le=8)] = 1
    """Tickets in flight."""


BackendKind = Literal["auto", "cpu", "torch_cpu"]


class BackendConfig(Section, frozen=True):
    """The execution engine."""

    kind: BackendKind = "auto"
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    """0: as many as the processor has cores."""


class PublishConfig(Section, frozen=True):
    """The three sockets; the daemon binds all of them."""

    decisions: str = "tcp://127.0.0.1:5560"
    heatmaps: str = "tcp://127.0.0.1:5561"
    control: str = "tcp://127.0.0.1:5562"
    heartbeat_ms: Annotated[int, Meta(ge=10, le=10_000)] = 100

    def __post_init__(self) -> None:
        taken: dict[str, str] = {}
        for name in ("decisions", "heatmaps", "control"):
            here = getattr(self, name)
            try:
                endpoint.check(here)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            for other, socket in taken.items():
                if endpoint.collide(here, other):
                    raise ValueError(f"{name}: {here} is taken by {socket}")
            taken[here] = name


class HeatmapConfig(Section, frozen=True):
    """Which inspections get a heatmap, and how it looks."""

    when: Literal["all", "fail", "off"] = "fail"
    style: Literal["overlay", "map"] = "overlay"
    """overlay: JPEG of the frame with the map on it; map: 8-bit PNG of the map alone."""
    max_side: Annotated[int, Meta(ge=64, le=1024)] = 320
    queue: Annotated[int, Meta(ge=1, le=1000)] = 20


class JournalConfig(Section, frozen=True):
    """Where verdicts are recorded before they are published."""

    path: LocalPath = "journal"
    segment_mb: Annotated[int, Meta(ge=1, le=1024)] = 16
    sync_ms: Annotated[int, Meta(ge=0, le=60_000)] = 200
    """How often written records are forced to the disk; 0: after each."""
    keep_segments: Annotated[int, Meta(ge=2, le=100_000)] = 64


class LogConfig(Section, frozen=True):
    """Diagnostics on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Section, frozen=True):
    """One station."""

    station: Station
    recipe: LocalPath
    """Folder of the recipe."""
    source: SourceConfig
    threshold: float | None = None
    """Overrides the recipe's threshold; finite."""
    deadline_ms: Annotated[float, Meta(ge=0, le=600_000)] = 0.0
    """From capture to verdict; later is INVALID(late). 0: none."""
    ring: RingConfig = RingConfig()
    batch: BatchConfig = BatchConfig()
    backend: BackendConfig = BackendConfig()
    publish: PublishConfig = PublishConfig()
    heatmaps: HeatmapConfig = HeatmapConfig()
    journal: JournalConfig = JournalConfig()
    log: LogConfig = LogConfig()


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The configuration in file ``path``, with ``overrides`` ("source.fps=30") on top.

    All paths in the result are absolute: those of the file were relative to it, those of the
    overrides to the working directory.

    Raises:
        ConfigError: anything is wrong; one line with file, line, key, and what to do.
    """
    path = Path(path)
    document = _read(path)
    given: dict[strict_yaml.Path, str] = {}
    for text in overrides:
        given[_override(document, text)] = f"--set {text}"
    try:
        config = schema.convert(document.value, Config)
    except SchemaError as error:
        where = _origin(error.path, given) or f"{path}:{document.line(error.path)}"
        key = ".".join(map(str, error.path))
        raise ConfigError(_line(where, *filter(None, (key, error.problem)))) from None
    try:
        return _with_absolute_paths(config, path.absolute().parent, given)
    except FileNotFoundError:
        raise ConfigError(
            _line(path, "the working directory is gone; change to one that exists")
        ) from None


def _read(path: Path) -> Document:
    try:
        document = strict_yaml.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(_line(path, f"cannot be read: {error.strerror}")) from None
    except ValueError as error:  # a NUL in the name
        raise ConfigError(_line(path, f"cannot be read: {error}")) from None
    except YamlError as error:
        raise ConfigError(_line(f"{path}:{error.line}", error.problem)) from None
    if not isinstance(document.value, dict):
        line = document.line(())
        raise ConfigError(_line(f"{path}:{line}", "expected keys and values, such as station: st1"))
    return document


def _override(document: Document, text: str) -> strict_yaml.Path:
    """Set one value in ``document``; returns where."""
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(_line(f"--set {text}", "expected KEY=VALUE, such as source.fps=30"))
    section = document.value
    for key in path[:-1]:
        section = section.setdefault(key, {}) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise ConfigError(_line(f"--set {text}", f"{'.'.join(path[:-1])} has no keys"))
    try:
        section[path[-1]] = strict_yaml.parse_value(value)
    except YamlError as error:
        raise ConfigError(_line(f"--set {text}", error.problem)) from None
    return path


def _origin(path: strict_yaml.Path, given: dict[strict_yaml.Path, str]) -> str | None:
    """The override that ``path`` is from, if it is from one."""
    while path and path not in given:
        path = path[:-1]
    return given.get(path)


def _with_absolute_paths(config: Config, base: Path, given: dict[strict_yaml.Path, str]) -> Config:
    def absolute(local: str, *key: str) -> str:
        start = Path.cwd() if _origin(key, given) else base
        return _tidy(start / os.path.expanduser(local))  # noqa: PTH111 - Path's raises without a home

    source = config.source
    if isinstance(source, FileSource | ImagesSource):
        source = replace(source, path=absolute(source.path, "source", "path"))
    journal = replace(config.journal, path=absolute(config.journal.path, "journal", "path"))
    recipe = absolute(config.recipe, "recipe")
    return replace(config, recipe=recipe, source=source, journal=journal)


def _tidy(path: Path) -> str:
    """``path`` without "..", unless a symbolic link on the way gives that another meaning."""
    short = os.path.normpath(path)
    return short if os.path.realpath(short) == os.path.realpath(path) else str(path)


def _line(*parts: object) -> str:
    """``parts`` as one line: whatever a file contains, a message stays one."""
    text = ": ".join(map(str, parts))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
