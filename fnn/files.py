"""Files: what is read is treated as untrusted, and what is written replaces the old file as a whole or not at all."""

import contextlib
import errno
import hashlib
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import CheckpointError, FnnError, KindError, shorten

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl: Any = None

_LARGEST_DIRECTORY = 32 * 2**20  # bytes
_NONBLOCK, _NOFOLLOW = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW"))  # Windows has neither
_LONGEST_NAME = 200  # bytes of the 255 that most file systems allow; the name of a temporary file is longer


# ---- reading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Any, kind: type[FnnError], what: str) -> Iterator[BinaryIO]:
    """A regular file, open for reading; whatever goes wrong becomes an error of this kind, unless there is no file.

    Args:
        path: a string or a path. Anything but a regular file, such as a pipe or a device, is refused at once.
        kind: the class of error to raise.
        what: what the file should be, such as "a checkpoint", for the message.

    Raises:
        FileNotFoundError: there is no such file.
        KindError: `path` is not a path.
    """
    check_path(path)
    message = f"{shown(path)}: not {what}"
    with _open_regular(path, kind, message) as file, errors_as(kind, message):
        yield file


def _open_regular(path, kind, message):
    """The file, or an error of this kind where there is something else; it never waits for somebody to write."""
    try:
        _check_regular(os.stat(path).st_mode)  # to open a device may have an effect
        file = open(path, "rb", opener=lambda path, flags: os.open(path, flags | _NONBLOCK))  # noqa: SIM115
        try:
            _check_regular(os.fstat(file.fileno()).st_mode)  # it may have been replaced since
        except ValueError:
            file.close()
            raise
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError also for a path that the system cannot hold
        raise kind(f"{message}: {error}") from error
    return file


def _check_regular(mode):
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"expected a regular file, got {kinds.get(stat.S_IFMT(mode), 'a device')}")


@contextlib.contextmanager
def errors_as(kind: type[FnnError], message: str) -> Iterator[None]:
    """Whatever goes wrong within becomes an error of this kind, whose text begins with the message."""
    try:
        yield
    except FnnError:
        raise
    except Exception as error:  # zipfile, json and NumPy have a dozen ways to say that a file is broken
        reason = " ".join(str(error).split()) or type(error).__name__
        if len(reason) > 200 or not reason.isprintable():
            reason = shorten(reason, 200)
        raise kind(f"{message}: {reason}") from error


def check_path(path: Any) -> None:
    """Raise `KindError` unless this is a string or a path. (`open` would take an int, too.)"""
    if not isinstance(path, str | os.PathLike):
        raise KindError(f"path: expected a string or a path, got {shorten(path)}")


def shown(path: Any) -> str:
    """A path for a message: as it is if it can be printed, else its `repr`."""
    return str(path) if str(path).isprintable() else repr(str(path))


@contextlib.contextmanager
def open_archive(file: BinaryIO) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """`(archive, members)`: an open zip archive, and its members by name, none of which overlaps another."""
    size = file.seek(0, os.SEEK_END)
    _check_end(file, size)
    with zipfile.ZipFile(file) as opened:
        members = {info.filename: info for info in opened.infolist()}
        if len(members) < len(opened.infolist()):
            raise ValueError("it has members with the same name")
        free = 0  # where the next one may begin
        for info in sorted(members.values(), key=lambda info: info.header_offset):
            if info.flag_bits & 1:
                raise ValueError(f"a member is encrypted: {shorten(info.filename)}")
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise ValueError(f"a member has two sizes: {shorten(info.filename)}")
            if info.header_offset < free:
                raise ValueError(f"members overlap, the second is {shorten(info.filename)}")
            file.seek(info.header_offset + 26)
            name, extra = file.read(2), file.read(2)  # their lengths, on which the directory may disagree
            free = info.header_offset + 30 + int.from_bytes(name, "little") + int.from_bytes(extra, "little")
            free += info.compress_size
        if free > size:
            raise ValueError("a member is longer than the file")
        yield opened, members


def _check_end(file, size):
    """Raise unless the archive ends where the file does, with a directory of bounded size."""
    file.seek(max(0, size - 98))
    tail = file.read(98)
    end, locator = tail[-22:], tail[-42:-22]
    if len(end) < 22 or end[:4] != b"PK\5\6":
        raise ValueError("it is truncated, or not a zip archive")
    claims = [end[12:16], tail[-58:-50] if locator[:4] == b"PK\6\7" else b""]
    if any(int.from_bytes(claim, "little") > _LARGEST_DIRECTORY for claim in claims):
        raise ValueError("its directory is too large")


def npy_header(stream: Any) -> tuple[tuple, bool, np.dtype]:
    """`(shape, is_fortran, dtype)` of an .npy file that is open at its beginning; NumPy reads it without warnings."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"version {version} of the format; expected (1, 0) or (2, 0)")
    with warnings.catch_warnings():  # about files of Python 2, and about anything in a header that is not one
        warnings.simplefilter("ignore")
        return readers[version](stream)


# ---- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Any) -> Iterator[BinaryIO]:
    """A new file, open for writing and reading, that replaces the one at `path` when the block ends without an error.

    It is written beside `path` under another name, and is gone if the block fails. A symbolic link stays one, and a
    file that is replaced keeps its permissions.

    Raises:
        CheckpointError: it cannot be written; the file at `path` is then unchanged.
        KindError: `path` is not a path.
    """
    check_path(path)
    with errors_as(CheckpointError, f"{shown(path)}: not saved, and an earlier file is unchanged"):
        target = Path(os.path.realpath(path))
        try:
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None:
            _check_regular(mode)
        _sweep(target)
        with _temporary(target, mode) as (partial, file):
            yield file
            file.flush()
            _sync(file.fileno())
            if mode is not None:
                with contextlib.suppress(OSError, AttributeError):  # not every file system has permissions
                    os.fchmod(file.fileno(), mode & 0o777)
            if fcntl is None:
                file.close()  # Windows does not rename a file that is open
            os.replace(partial, target)
        with contextlib.suppress(OSError, AttributeError):  # Windows cannot open a folder
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _sync(folder)
            finally:
                os.close(folder)


def _sync(descriptor):
    """`os.fsync`, where the file system has it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


@contextlib.contextmanager
def _temporary(target, mode):
    """`(path, file)`: a new file beside the target, which is deleted if the block fails."""
    partial, file = open_partial(target, mode)
    try:
        with file:
            yield partial, file
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def open_partial(target: Path, mode: int | None = None) -> tuple[Path, BinaryIO]:
    """A new file beside the target, locked while it is open, so that `_sweep` of another process leaves it alone.

    With the `mode` of a file that it is to replace, nobody but its owner can read it until it is complete.
    """
    opener = lambda path, flags: os.open(path, flags, 0o666 if mode is None else 0o600)
    while True:
        partial = target.with_name(f".{_stem(target)}.{os.urandom(4).hex()}.partial")
        file = open(partial, "x+b", opener=opener)  # noqa: SIM115 - the caller closes it
        try:
            _lock(file)
            if os.path.lexists(partial):
                return partial, file
        except BaseException:
            file.close()
            os.unlink(partial)
            raise
        file.close()  # deleted by another process before it was locked


def _sweep(target):
    """Delete the temporary files of this target whose process was killed: those that can be locked."""
    pattern = re.compile(rf"\.{re.escape(_stem(target))}\.[0-9a-f]{{8}}\.partial")
    with contextlib.suppress(OSError):
        for name in filter(pattern.fullmatch, os.listdir(target.parent)):
            left = target.with_name(name)
            with contextlib.suppress(OSError), open(os.open(left, os.O_RDONLY | _NONBLOCK | _NOFOLLOW), "rb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and _lock(file, wait=False):
                    if fcntl is None:
                        file.close()
                    os.unlink(left)


def lock_folder(path: Path) -> int | None:
    """The folder, open and locked until it is closed; None where there are no locks, which is no reason not to go on.

    Raises:
        CheckpointError: another process has locked it, or another run in this one.
    """
    if fcntl is None:
        return None
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder
    except BlockingIOError:
        os.close(folder)
        raise CheckpointError(f"{shown(path)}: another run is writing to this folder") from None
    except OSError:
        os.close(folder)
        return None


def _lock(file, wait=True):
    """Whether a file could be locked. Not every file system has locks, and nothing else depends on them."""
    if fcntl is None:
        return True  # Windows does not delete a file that is open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _stem(target):
    """The name of the target, or where that is long its SHA-256, so that the temporary name is not too long."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()
