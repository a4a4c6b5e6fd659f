"""Data to learn from: MNIST from its IDX files, scikit-learn's small digits, and a reader for any IDX file.

Every data set is `((x_train, y_train), (x_test, y_test))`: x uint8 (N, pixels), as stored, and y int32 labels (N,). An
IDX file is two zero bytes, a type code, the rank, a big-endian uint32 for each size, then the values in C order. Files
come from anywhere, so nothing in them is believed: a reader takes no more bytes than the header promises, plus one.
"""

import contextlib
import gzip
import hashlib
import math
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

from . import random
from .errors import ArgumentError, DataError, require, shorten

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# SHA-256 of the unpacked files: mirrors serve the same bytes, each compressed in its own way.
_MNIST = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MNIST_LARGEST = 16 + 60_000 * 28 * 28


def read_idx(path):
    """The array in an IDX file, plain or gzip-compressed, whatever its name.

    Args: `path`, of a file with values of type uint8, int8, int16, int32, float32 or float64.
    Returns an array of the type and the shape in the header, in the machine's byte order.
    Raises `DataError` for a file that is empty, corrupt, too short or too long, `FileNotFoundError` for none. Time and
    memory are bounded by what the header claims and by what the file holds, whichever is less.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", on its file format.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    with _unpacked(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
            known = ", ".join(f"{code:02x}" for code in _IDX_TYPES)
            got = magic.hex(" ") or "an empty file"
            raise DataError(f"{path}: expected an IDX file, 00 00, a type of {known}, and the rank; got {got}")
        dtype, rank = np.dtype(_IDX_TYPES[magic[2]]), magic[3]
        sizes = file.read(4 * rank)
        if rank < 1 or len(sizes) < 4 * rank:
            raise DataError(
                f"{path}: expected a rank of 1 or more and 4 bytes for each size, got {rank} and {len(sizes)} bytes"
            )
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        length = math.prod(shape) * dtype.itemsize
        values = bytearray()
        for chunk in _chunks(file, length):
            values += chunk
    if len(values) != length:
        got = "more" if len(values) > length else f"{len(values)} bytes"
        raise DataError(
            f"{path}: expected {shorten(length)} bytes of {dtype.name} values, shape {shorten(shape)}, got {got}"
        )
    try:
        array = np.ndarray(shape, dtype, buffer=values)
    except ValueError as error:  # more than 64 axes, or an empty array with sizes whose product overflows
        raise DataError(f"{path}: expected a shape that NumPy can hold, got {shorten(shape)}") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def mnist(folder=None, download=False, *, url="https://storage.googleapis.com/cvdf-datasets/mnist/"):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 grey levels from 0 to 255.

    Args: `folder`, where the four IDX files lie, with or without `.gz`, there or in its folder `mnist` (default: the
    environment variable FNN_DATA); `download`, whether files that are missing are fetched from `url` into `folder`
    (default: the user's cache). All four are then held to the SHA-256 that the files of every mirror have, unpacked.
    Returns `((x_train, y_train), (x_test, y_test))`, x uint8 (60000, 784) and (10000, 784), y int32 (60000,) and
    (10000,).
    Raises `ArgumentError` if nothing says where the files are, `FileNotFoundError` if they are not there, `DataError`
    if one is not what it should be: a download is then discarded, a file that was there before is left alone.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".

    >>> (x_train, y_train), (x_test, y_test) = mnist(download=True)  # doctest: +SKIP
    """
    if folder is None:
        folder = os.environ.get("FNN_DATA") or None
    if folder is None and not download:
        raise ArgumentError(
            "mnist: expected folder=..., or FNN_DATA in the environment, or download=True, got none of them"
        )
    folder = Path(require("pooch", "download").os_cache("fnn") if folder is None else folder)
    files = [_fetch(name, folder, url) if download else _find(name, folder) for name in _MNIST]
    return _examples(*files[:2]), _examples(*files[2:])


def digits():
    """The digits of scikit-learn: 1,797 images of handwritten digits, 8 x 8 grey levels from 0 to 16.

    A quarter is held out for testing, the same one everywhere.
    Returns `((x_train, y_train), (x_test, y_test))`, x uint8 (1347, 64) and (450, 64), y int32 (1347,) and (450,).
    Raises `MissingExtraError` without scikit-learn, which brings the data.
    Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.

    >>> (x_train, y_train), (x_test, y_test) = digits()
    >>> x_train.shape, y_test.shape
    ((1347, 64), (450,))
    """
    data = require("sklearn.datasets", "examples").load_digits()
    x, y = data.data.astype(np.uint8), data.target.astype(np.int32)
    order = random.permutation(random.key(0, backend="numpy"), len(x))
    test, train = order[:450], order[450:]
    return (x[train], y[train]), (x[test], y[test])


# ---- files that are not trusted --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _unpacked(path):
    """A file open for reading, through gzip if it begins as gzip does; `DataError` where that is corrupt."""
    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        try:
            yield gzip.GzipFile(fileobj=file) if packed else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path}: expected a whole gzip file, got one that is cut off or corrupt: {error}"
            ) from error


def _chunks(file, limit):
    """The bytes of a file in pieces, at most one more than `limit`: that one shows that the file is too long.

    It also takes gzip to the end of its stream, where the checksum is.
    """
    left = limit + 1
    while left and (chunk := file.read(min(left, 1 << 20))):
        left -= len(chunk)
        yield chunk


def _check_sha256(path, expected):
    digest, length = hashlib.sha256(), 0
    with _unpacked(path) as file:
        for chunk in _chunks(file, _MNIST_LARGEST):
            digest.update(chunk)
            length += len(chunk)
    if length > _MNIST_LARGEST:
        raise DataError(f"{path}: expected at most {_MNIST_LARGEST} bytes when unpacked, got more")
    if digest.hexdigest() != expected:
        raise DataError(f"{path}: expected the SHA-256 {expected} when unpacked, got {digest.hexdigest()}")


# ---- MNIST's four files ----------------------------------------------------------------------------------------------


def _find(name, folder, missing_ok=False):
    for path in (place / file for place in (folder, folder / "mnist") for file in (name, f"{name}.gz")):
        if path.is_file():
            return path
    if missing_ok:
        return None
    raise FileNotFoundError(f"mnist: expected {name} or {name}.gz in {folder} or {folder / 'mnist'}, got neither")


def _fetch(name, folder, url):
    """The path of a file that has the right SHA-256, downloaded if it is not there."""
    path = _find(name, folder, missing_ok=True)
    if path:
        _check_sha256(path, _MNIST[name])
        return path
    path, source = folder / f"{name}.gz", f"{url.rstrip('/')}/{name}.gz"
    download = require("pooch", "download").HTTPDownloader()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # so that a file with its right name has been checked
        part = Path(scratch) / path.name
        download(source, part, None)
        try:
            _check_sha256(part, _MNIST[name])
        except DataError as error:
            raise error.at(source) from None
        part.replace(path)
    return path


def _examples(images, labels):
    """x (N, 784) and y (N,) from a file of images and one of their labels."""
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise DataError(f"{images}: expected uint8 images of shape (N, 28, 28), got {x.dtype} of shape {x.shape}")
    if y.dtype != np.uint8 or y.shape != x.shape[:1]:
        raise DataError(
            f"{labels}: expected a uint8 label for each of {len(x)} images, got {y.dtype} of shape {y.shape}"
        )
    return x.reshape(len(x), 784), y.astype(np.int32)
