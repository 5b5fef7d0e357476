"""The composition root: the whole object graph of one station."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import zmq

from efficientad_stream import config as settings
from efficientad_stream import logs
from efficientad_stream.backends.choose import make_backend
from efficientad_stream.core.endpoint import Endpoints
from efficientad_stream.core.errors import ConfigError, EfficientADError, TransientError
from efficientad_stream.core.ledger import Ledger
from efficientad_stream.core.recipe import Recipe
from efficientad_stream.core.types import FrameMeta, Policy
from efficientad_stream.model.artifact import load_recipe
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.capture import Capture
from efficientad_stream.runtime.daemon import Daemon, Mailbox
from efficientad_stream.runtime.deadline import DeadlineKeeper
from efficientad_stream.runtime.fanout import Fanout
from efficientad_stream.runtime.pipeline import inspect
from efficientad_stream.runtime.protocols import Source
from efficientad_stream.runtime.ring import FrameRing, batches
from efficientad_stream.runtime.sockets import LINGER_MS
from efficientad_stream.runtime.status import StationStatus
from efficientad_stream.runtime.worker import Body, Worker
from efficientad_stream.sinks.control import Control
from efficientad_stream.sinks.heatmaps import HeatmapSink
from efficientad_stream.sinks.journal import Journal
from efficientad_stream.sinks.publisher import Publisher
from efficientad_stream.sources.file import FileSource
from efficientad_stream.sources.images import ImagesSource
from efficientad_stream.sources.simulated import SimulatedSource
from efficientad_stream.sources.v4l2 import V4l2Source


def build(config: settings.Config) -> Daemon:
    """Everything a station needs, bound, loaded and warm; nothing runs yet.

    Raises:
        ConfigError: a path, device or address is wrong, or source and recipe do not fit.
        ArtifactError: recipe or journal is damaged.
        FatalError: a port or the journal is in use.
    """
    logs.setup(config.log.level, config.log.format, config.station)
    loaded = load_recipe(Path(config.recipe))
    policy = make_policy(config, loaded.recipe)
    source = make_source(config.source, loaded.recipe)
    mail, name, place = Mailbox(), config.station, config.publish
    with ExitStack() as undo:
        journal = open_journal(config.journal)
        undo.callback(journal.close)
        decisions, context = zmq.Context[zmq.Socket[bytes]](), zmq.Context[zmq.Socket[bytes]]()
        undo.callback(decisions.destroy, linger=0)
        undo.callback(context.destroy, linger=0)
        publisher = Publisher(decisions, place.decisions, name, journal.head)
        ring = FrameRing(config.ring.slots)
        heatmaps = HeatmapSink(
            context, place.heatmaps, config.heatmaps, station=name, epoch=journal.epoch,
            release=ring.release, on_failure=mail.died,
        )  # fmt: skip
        capture = Capture(source, ring)
        observers = (heatmaps,)
        backend = make_backend(
            loaded, config.backend.kind, config.backend.threads, config.batch.max_frames,
            maps=any(observer.needs_map for observer in observers),
        )  # fmt: skip
        active = ActiveRef(Active(loaded.recipe.id, policy, backend, loaded.recipe.geometry))
        ledger = Ledger(journal.head, policy.deadline_us)
        fanout = Fanout(name, ledger, journal, publisher, ring, observers=observers)
        keepers = make_keepers(fanout, policy, mail)
        status = StationStatus(
            name, capture, ring, fanout, active,
            parts={"journal": journal, "publisher": publisher, "heatmaps": heatmaps},
        )  # fmt: skip
        control = Control(
            context, place.control, station=status, records=journal, pulse=publisher,
            heartbeat_ms=place.heartbeat_ms, on_failure=mail.died,
        )  # fmt: skip
        inspection = inspecting(ring, active, fanout, config.batch, mail.ended)
        daemon = Daemon(
            capture=Worker("capture", capture.run, mail.died),
            inspection=Worker("inspection", inspection, mail.died),
            ring=ring, fanout=fanout, status=status, mail=mail,
            control=control, services=(heatmaps, *keepers),
            closing=(publisher.close, backend.close, journal.close, decisions.term),
            hang_up=lambda: context.destroy(linger=LINGER_MS),
        )  # fmt: skip
        undo.pop_all()
    where = Endpoints(publisher.endpoint, heatmaps.endpoint, control.endpoint)
    announce(config, loaded.recipe, policy, where, backend.description)
    return daemon


def make_source(config: settings.SourceConfig, recipe: Recipe) -> Source:
    """The source that ``config`` describes, closed; it has been open once.

    Raises:
        ConfigError: it cannot work, or its frames are not what ``recipe`` was made from. A camera
            that is away is no error: it may come.
    """
    wanted = recipe.geometry.channels == 1
    if config.grey is not wanted:
        raise ConfigError(
            f"source.grey: {str(config.grey).lower()}, but recipe {recipe.name!r} was made from "
            f"{'grey' if wanted else 'colour'} frames; set source.grey: {str(wanted).lower()}, or "
            "use a recipe for this camera"
        )
    _check_size(config, recipe)
    source = _source(config)
    try:
        source.open()
    except TransientError as error:
        logs.get().warning("camera is not there yet", error=str(error))
    finally:
        source.close()
    return source


def _check_size(config: settings.SourceConfig, recipe: Recipe) -> None:
    """Raise ConfigError if a source of a known size can never fit a recipe for another."""
    frame = recipe.geometry.frame
    if frame is None or not isinstance(config, settings.SimulatedSource | settings.V4l2Source):
        return
    if (config.height, config.width) != frame:
        raise ConfigError(
            f"source.width, source.height: {config.width} x {config.height}, but recipe "
            f"{recipe.name!r} (region, mask or letterbox) is for frames of {frame[1]} x "
            f"{frame[0]} pixels"
        )


def _source(config: settings.SourceConfig) -> Source:
    if isinstance(config, settings.FileSource):
        return FileSource(config)
    if isinstance(config, settings.ImagesSource):
        return ImagesSource(config)
    if isinstance(config, settings.V4l2Source):
        return V4l2Source(config)
    return SimulatedSource(config)


def make_keepers(fanout: Fanout, policy: Policy, mail: Mailbox) -> list[DeadlineKeeper]:
    """The keeper of deadlines, if there is a deadline."""
    if not policy.deadline_us:
        return []
    return [
        DeadlineKeeper(
            fanout.answer_overdue, fanout.oldest_ns, policy.deadline_us, on_failure=mail.died
        )
    ]


def make_policy(config: settings.Config, recipe: Recipe) -> Policy:
    """The recipe's threshold, unless the station has its own, and the station's deadline."""
    threshold = recipe.threshold.value if config.threshold is None else config.threshold
    return Policy(threshold, math.ceil(config.deadline_ms * 1000))


def open_journal(config: settings.JournalConfig) -> Journal:
    """The journal that ``config`` describes, found whole or begun."""
    return Journal.open(
        config.path,
        segment_bytes=config.segment_mb << 20,
        sync_ms=config.sync_ms,
        keep_segments=config.keep_segments,
        now_us=time.time_ns() // 1000,
    )


def inspecting(
    ring: FrameRing,
    active: ActiveRef,
    fanout: Fanout,
    config: settings.BatchConfig,
    ended: Callable[[], None],
) -> Body:
    """The inspection thread: from the ring to the fan-out, until the ring has ended."""
    trouble = logs.RateLimited("frame cannot be scored", level="error")

    def say(meta: FrameMeta, error: EfficientADError) -> None:
        trouble.hit(frame_id=meta.frame_id, error=str(error))

    def body(stop: threading.Event) -> None:
        frames = batches(ring, config.max_frames, config.max_wait_us, stop)
        admitted = fanout.admitting(frames)
        for inspection in inspect(admitted, active, config.depth, time.monotonic_ns, say):
            fanout.deliver(inspection)
        trouble.flush()
        ended()

    return body


def announce(
    config: settings.Config, recipe: Recipe, policy: Policy, where: Endpoints, backend: str
) -> None:
    """One line that says what runs here."""
    logs.get().info(
        "inspecting",
        source=type(config.source).__struct_config__.tag,
        recipe=f"{recipe.name} revision {recipe.revision}",
        backend=backend,
        threshold=policy.threshold,
        deadline_us=policy.deadline_us,
        **where._asdict(),
        journal=config.journal.path,
    )
