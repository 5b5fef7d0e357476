"""Files of a recipe, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.runtime.durable import sync_folder

FILE_LIMIT = 1 << 30
AGAIN = "copy it again from where it came, or train it again"


def read_file(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """The bytes of a file.

    Raises:
        ArtifactError: missing, unreadable or larger than ``limit``.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise ArtifactError(f"{path}: cannot be read: is not an ordinary file")
        if path.stat().st_size > limit:
            raise ArtifactError(f"{path}: larger than {limit} bytes; not a file of this package")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_vouched(path: Path, sha256: str, voucher: str) -> bytes:
    """The bytes of a file whose hash another file, ``voucher``, carries.

    Raises:
        ArtifactError: it cannot be read, or has another hash.
    """
    data = read_file(path)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ArtifactError(
            f"{path}: is not the file that {voucher} vouches for (SHA-256 {found[:12]}..., "
            f"expected {sha256[:12]}...): truncated or changed; {AGAIN}"
        )
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """All of ``data`` or nothing: a temporary file beside ``path``, forced to disk, then renamed.

    Raises:
        ArtifactError: the disk is full, the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:  # also when somebody interrupts
            Path(temporary).unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed ``write_atomically`` has left in ``folder``, which nobody else uses.

    Raises:
        ArtifactError: it cannot be removed.
    """
    try:
        for left in folder.glob(".*.safetensors.????????"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written: {error.strerror or error}") from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep ``folder``, which exists, for this process; the system lets go of it if that dies.

    Raises:
        ConfigError: another process holds it.
        ArtifactError: it cannot be opened.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be opened: {error.strerror or error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConfigError(f"{folder}: another training is writing here; wait for it") from error
    try:
        yield
    finally:
        os.close(handle)
