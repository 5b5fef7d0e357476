"""The one class that makes threads: named, failing loudly, joined by whoever started them."""

from __future__ import annotations

import threading
from collections.abc import Callable

Body = Callable[[threading.Event], None]
"""What a worker does until the event is set; it looks at the event at least every 0.2 s."""
OnFailure = Callable[[str, BaseException], None]
"""Called on the worker's own thread with its name and what it died of."""


class Worker:
    """A thread that ends when it is asked to, and that does not die unnoticed (house rule 5).

    Whoever starts a worker stops it. The thread is a daemon thread, so that one that hangs in a
    driver cannot hold the process when its owner has given up on it.
    """

    def __init__(self, name: str, body: Body, on_failure: OnFailure) -> None:
        self.name = name
        self._body = body
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failed: BaseException | None = None

    @property
    def failed(self) -> BaseException | None:
        """What the body died of, or None."""
        return self._failed

    @property
    def alive(self) -> bool:
        """True from start until the body has returned."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def ask(self) -> None:
        """Ask the body to end, without waiting for it."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the body to end by itself; True if it has (or was never started)."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self, timeout_s: float) -> bool:
        """Ask the body to end and wait for it; False if it still runs after ``timeout_s``."""
        self.ask()
        return self.join(timeout_s)

    def _run(self) -> None:
        try:
            self._body(self._stop)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported and ends the daemon
            self._failed = error
            self._on_failure(self.name, error)
