"""Writing files so that nobody ever sees half of one."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import EdgesegError, InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file that is complete or not there; an existing one stays whole until the new one is.

    Args:
        path: where the file shall be; its folder must exist.
        content: all of it.
        durable: survive a power cut as well (fsync of the file and its folder).

    Raises:
        InputError: the path cannot be written to. EdgesegError: the disk is full or failing.
    """
    with replacing(path, durable=durable) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            raise write_error(path, error) from error


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` (same suffix) to write to; renamed to `path` on success, removed on any failure.

    Raises:
        InputError, EdgesegError: as `write_atomically`.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        # Made here and now, so that a folder that cannot be written to is found before the work, not after it.
        # 0o666 leaves the permissions to the user's umask, which tempfile would not.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
        try:
            if durable:
                sync(temporary)
            temporary.replace(path)
            if durable:
                sync(path.parent)
        except OSError as error:
            raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, if need be.

    Raises:
        InputError, EdgesegError: as `write_atomically`.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"cannot make the folder {path}: a file of that name is in the way; choose another") from error
    except OSError as error:
        raise write_error(path, error) from error
    return path


def write_error(path: Path, error: OSError) -> EdgesegError:
    """What to tell the user about a write to `path` that failed."""
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return EdgesegError(f"cannot write {path}: {reason}; free some space or choose another folder")
    if isinstance(error, FileNotFoundError):
        return InputError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    if isinstance(error, NotADirectoryError):
        return InputError(f"cannot write {path}: {path.parent} is not a folder; choose another")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return InputError(f"cannot write {path}: {reason}; choose a folder that you may write to")
    return EdgesegError(f"cannot write {path}: {reason}")


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
