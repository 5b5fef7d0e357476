from __future__ import annotations

import threading

from efficientad_stream.runtime.worker import Worker


class Failures:
    def __init__(self) -> None:
        self.seen: list[tuple[str, BaseException]] = []
        self.event = threading.Event()

    def __call__(self, name: str, error: BaseException) -> None:
        self.seen.append((name, error))
        self.event.set()


def test_runs_until_asked_and_is_joined() -> None:
    running = threading.Event()
    failures = Failures()

    def body(stop: threading.Event) -> None:
        running.set()
        assert stop.wait(10)

    worker = Worker("capture", body, failures)
    assert worker.join(0)  # never started: nothing to wait for
    worker.start()
    assert running.wait(10)
    alive = [worker.alive]
    assert worker.stop(10)
    alive.append(worker.alive)
    assert alive == [True, False]
    assert worker.failed is None
    assert failures.seen == []


def test_thread_carries_the_name() -> None:
    names: list[str] = []
    worker = Worker(
        "inspection", lambda stop: names.append(threading.current_thread().name), Failures()
    )
    worker.start()
    assert worker.join(10)
    assert names == ["inspection"]


def test_any_exception_is_reported_with_the_name() -> None:
    failures = Failures()
    cause = KeyError("x")

    def body(stop: threading.Event) -> None:
        raise cause

    worker = Worker("observer", body, failures)
    worker.start()
    assert failures.event.wait(10)
    assert worker.join(10)
    assert failures.seen == [("observer", cause)]
    assert worker.failed is cause


def test_even_an_exit_inside_a_worker_is_a_failure() -> None:
    failures = Failures()

    def body(stop: threading.Event) -> None:
        raise SystemExit(0)

    worker = Worker("observer", body, failures)
    worker.start()
    assert worker.join(10)
    assert isinstance(worker.failed, SystemExit)
    assert len(failures.seen) == 1


def test_stop_is_bounded_when_the_body_hangs() -> None:
    release = threading.Event()

    def body(stop: threading.Event) -> None:
        release.wait(10)

    worker = Worker("stuck", body, Failures())
    worker.start()
    assert worker.stop(0.05) is False
    release.set()
    assert worker.join(10)
