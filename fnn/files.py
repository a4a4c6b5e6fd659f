"""Files: what is read is not believed, and what is written is whole or not there at all."""

import contextlib
import os
import warnings
import zipfile
from typing import Any

import numpy as np

from .errors import CheckpointError, FnnError, shorten

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted anyway
    fcntl: Any = None

_LARGEST_DIRECTORY = 32 * 2**20  # bytes


# ---- reading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def doubted(kind, told):
    """Whatever goes wrong in reading becomes an error of this kind, which begins with what is told."""
    try:
        yield
    except FnnError:
        raise
    except Exception as error:  # zipfile, json and NumPy have a dozen ways to say that a file is broken
        reason = str(error) or type(error).__name__
        raise kind(f"{told}: {shorten(reason, 200)}") from error


@contextlib.contextmanager
def archive(file):
    """`(archive, members)`: an open zip archive, and its members by name, none of which hides behind another."""
    size = file.seek(0, os.SEEK_END)
    _check_end(file, size)
    with zipfile.ZipFile(file) as opened:
        members = {info.filename: info for info in opened.infolist()}
        if len(members) < len(opened.infolist()):
            raise ValueError("members that have the same name")
        free = 0  # where the next one may begin
        for info in sorted(members.values(), key=lambda info: info.header_offset):
            if info.flag_bits & 1:
                raise ValueError(f"a member that is encrypted: {shorten(info.filename)}")
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise ValueError(f"a member of two sizes: {shorten(info.filename)}")
            if info.header_offset < free:
                raise ValueError(f"members that overlap, the second is {shorten(info.filename)}")
            file.seek(info.header_offset + 26)
            name, extra = file.read(2), file.read(2)  # their lengths, which the directory may tell otherwise
            free = info.header_offset + 30 + int.from_bytes(name, "little") + int.from_bytes(extra, "little")
            free += info.compress_size
        if free > size:
            raise ValueError("a member that is longer than the file")
        yield opened, members


def _check_end(file, size):
    """Raise unless the archive ends where the file does, with a directory small enough to look at."""
    file.seek(max(0, size - 98))
    tail = file.read(98)
    end, locator = tail[-22:], tail[-42:-22]
    if len(end) < 22 or end[:4] != b"PK\5\6":
        raise ValueError("cut off, or no zip archive")
    claims = [end[12:16], tail[-58:-50] if locator[:4] == b"PK\6\7" else b""]
    if any(int.from_bytes(claim, "little") > _LARGEST_DIRECTORY for claim in claims):
        raise ValueError("a directory too large")


def npy_header(stream):
    """`(shape, is_fortran, dtype)` of a .npy file that is open at its beginning; NumPy reads it in silence."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"version {version} of the format, where (1, 0) and (2, 0) are known")
    with warnings.catch_warnings():  # of files by Python 2, and of anything in a header that is no header
        warnings.simplefilter("ignore")
        return readers[version](stream)


# ---- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def saving(path):
    """A new file that takes the place of `path`, or a `CheckpointError`."""
    try:
        with _replacing(path) as file:
            yield file
    except FnnError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not saved, and what was there is untouched: {error}") from error


@contextlib.contextmanager
def _replacing(path):
    """A new file beside `path`, that takes its place if all goes well, and is gone if not."""
    _sweep(path.parent)
    partial, file = create(path)
    try:
        with file:
            yield file
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    with contextlib.suppress(OSError, AttributeError):  # Windows cannot open a directory
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def create(path):
    """A file of a name that nobody has, locked as long as it is open, so that `_sweep` leaves it alone."""
    while True:
        partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
        file = open(partial, "x+b")  # noqa: SIM115 - closed by who asked for it
        if fcntl is None:
            return partial, file
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return partial, file
        file.close()  # swept away before it was locked


def _sweep(folder):
    """Delete what was being written when its process was killed."""
    for left in folder.glob(".*.????????.partial"):
        with contextlib.suppress(OSError), open(left, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(left)
