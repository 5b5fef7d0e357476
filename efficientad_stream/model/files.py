"""Files of a recipe, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.runtime.durable import sync_folder

FILE_LIMIT = 1 << 30
AGAIN = "copy it again from where it came, or train it again"


def read_file(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """The bytes of a file.

    Raises:
        ArtifactError: missing, unreadable or larger than ``limit``.
    """
    try:
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
        sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
