"""Data sets: MNIST from its IDX files, scikit-learn's small digits, and readers of IDX, .npy and .npz files.

Every data set is `((x_train, y_train), (x_test, y_test))`: x uint8 (N, pixels), as stored, and y int32 labels (N,). An
IDX file is two zero bytes, a type code, the rank, a big-endian uint32 for each size, then the values in C order. Files
are treated as untrusted: a reader takes at most one byte more than the header promises, and decompresses at most 4 GiB
of one file.
"""

import contextlib
import gzip
import hashlib
import io
import math
import os
import tempfile  # noqa: F401 - for the examples
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from . import files, random
from .errors import ArgumentError, DataError, require, shorten

__all__ = ["digits", "mnist", "read_idx", "read_npy", "read_npz"]

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_LARGEST_UNPACKED = 4 * 2**30  # bytes, which a file of 4 MiB may claim to hold
_LARGEST_NPY_HEADER = 12 + 2**16  # bytes, including the magic string, the version and the length
_IDX, _NPY, _NPZ = "a valid IDX file", "a valid .npy file", "a valid .npz file"

_Array = np.ndarray
_Path = str | os.PathLike
_DataSet = tuple[tuple[_Array, _Array], tuple[_Array, _Array]]

# SHA-256 of the decompressed files: mirrors serve the same bytes, each compressed in its own way.
_MNIST = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MNIST_LARGEST = 16 + 60_000 * 28 * 28
_LONGEST_DOWNLOAD = 600.0  # seconds for a file of 10 MB


def read_idx(path: _Path) -> _Array:
    """Read the array in an IDX file, plain or gzip-compressed, whatever its name.

    Time and memory are bounded by the size that the header claims and by that of the file, whichever is less.

    Args:
        path: the file. Its values are of type uint8, int8, int16, int32, float32 or float64.

    Returns:
        An array of the type and shape in the header, in the machine's byte order.

    Raises:
        DataError: the file is empty, corrupt, too short or too long, or compressed and larger than 4 GiB without that.
        FileNotFoundError: there is no such file.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", on its file format.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    place = files.shown(path)
    with _decompressed(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
            known = ", ".join(f"{code:02x}" for code in _IDX_TYPES)
            got = magic.hex(" ") or "an empty file"
            raise DataError(f"{place}: expected an IDX file (00 00, a type of {known}, the rank), got {got}")
        dtype, rank = np.dtype(_IDX_TYPES[magic[2]]), magic[3]
        sizes = file.read(4 * rank)
        if rank < 1 or len(sizes) < 4 * rank:
            raise DataError(
                f"{place}: expected a rank of 1 or more and 4 bytes for each size, got {rank} and {len(sizes)} bytes"
            )
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        length = math.prod(shape) * dtype.itemsize
        if isinstance(file, gzip.GzipFile) and length > _LARGEST_UNPACKED:
            raise DataError(
                f"{place}: expected at most {_LARGEST_UNPACKED} decompressed bytes, got a header of shape "
                f"{shorten(shape)} and {dtype.name}; decompress it with gunzip"
            )
        values = _read(file, length)
    if len(values) != length:
        got = "more" if len(values) > length else f"{len(values)} bytes"
        raise DataError(
            f"{place}: expected {shorten(length)} bytes of {dtype.name} values, shape {shorten(shape)}, got {got}"
        )
    try:
        array = np.ndarray(shape, dtype, buffer=values)
    except ValueError as error:  # more than 64 axes, or an empty array with sizes whose product overflows
        raise DataError(f"{place}: expected a shape that NumPy can hold, got {shorten(shape)}") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_npy(path: _Path, *, mapped: bool = False) -> _Array:
    """Read the array in an .npy file, as `numpy.save` writes it.

    Nothing is allocated before the header and the size of the file agree.

    Args:
        path: the file.
        mapped: whether the values stay in the file until they are used (default: False), for an array that is larger
            than memory. The file must then remain unchanged.

    Returns:
        A writeable array of the type and shape in the header, in the machine's byte order. With `mapped=True` a
        read-only `numpy.memmap` in the file's byte order, unless it is empty.

    Raises:
        DataError: the file is truncated, too long, not one that NumPy writes, or holds Python objects, which only
            unpickling could read.
        FileNotFoundError: there is no such file.

    Source: NumPy, "NEP 1: A simple file format for NumPy arrays", versions 1.0 and 2.0.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "x.npy", np.arange(3.0))
    ...     read_npy(Path(folder) / "x.npy")
    array([0., 1., 2.])
    """
    with files.reading(path, DataError, _NPY) as file:
        size = os.fstat(file.fileno()).st_size
        dtype, shape, order, head = _npy_header(file, size)
        if mapped and size > head.tell():
            return np.memmap(file, dtype, "r", head.tell(), shape, order)
        return _npy_array(file, size, dtype, shape, order, head)


def read_npz(path: _Path) -> dict[str, _Array]:
    """Read the arrays in an .npz file, as `numpy.savez` and `numpy.savez_compressed` write it.

    Memory is bounded by the sizes that the headers and the directory claim and by that of the file, whichever is less.

    Args:
        path: the file.

    Returns:
        The arrays by name, each as `read_npy` gives it.

    Raises:
        DataError: a member is one that `read_npy` refuses, has a wrong checksum, is encrypted, overlaps another or has
            its name, does not end in .npy, or has a path that leads out of a folder; or the compressed members are
            larger than 4 GiB in total when decompressed.
        FileNotFoundError: there is no such file.

    Source: NumPy, "NEP 1: A simple file format for NumPy arrays".

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "data.npz", x=np.zeros((2, 3)), y=np.arange(2))
    ...     {name: array.shape for name, array in read_npz(Path(folder) / "data.npz").items()}
    {'x': (2, 3), 'y': (2,)}
    """
    arrays = {}
    with files.reading(path, DataError, _NPZ) as file, files.open_archive(file) as (archive, members):
        compressed = [info for info in members.values() if info.compress_type != zipfile.ZIP_STORED]
        if sum(info.file_size for info in compressed) > _LARGEST_UNPACKED:
            raise ValueError(f"it has more than {_LARGEST_UNPACKED} decompressed bytes; save it with np.savez")
        for member, info in members.items():
            name, size = member.removesuffix(".npy"), info.file_size
            with files.errors_as(DataError, f"{files.shown(path)}: member {shorten(name)}: not {_NPY}"):
                if name == member:
                    raise ValueError("its name does not end in .npy")
                parts = member.replace("\\", "/").split("/")
                if not parts[0] or ".." in parts:
                    raise ValueError("its name leads out of a folder")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("it is not compressed as np.savez_compressed does it")
                with archive.open(info) as stream:
                    arrays[name] = _npy_array(stream, size, *_npy_header(stream, size))
    return arrays


def mnist(
    folder: _Path | None = None,
    download: bool = False,
    *,
    url: str = "https://storage.googleapis.com/cvdf-datasets/mnist/",
) -> _DataSet:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 grey levels from 0 to 255.

    Args:
        folder: where the four IDX files are, with or without `.gz`, or in its subfolder `mnist` (default: the
            environment variable FNN_DATA).
        download: whether missing files are downloaded from `url` into `folder` (default: False; without a folder, the
            user's cache). All four files must then have the SHA-256 that those of every mirror have, decompressed.
        url: of a mirror.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: x uint8 (60000, 784) and (10000, 784), y int32 (60000,) and (10000,).

    Raises:
        ArgumentError: neither an argument nor the environment says where the files are.
        FileNotFoundError: the files are not there.
        DataError: a file is not what it should be. A download is then discarded, a file of yours is left alone.
        OSError: a file cannot be downloaded, or not within ten minutes.
        MissingExtraError: pooch is not installed, with `download=True`.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".

    >>> (x_train, y_train), (x_test, y_test) = mnist(download=True)  # doctest: +SKIP
    """
    if folder is None:
        folder = os.environ.get("FNN_DATA") or None
    if folder is None and not download:
        raise ArgumentError(
            "mnist: expected folder=..., or FNN_DATA in the environment, or download=True, got none of them"
        )
    pooch: Any = require("pooch", "download") if download else None
    folder = Path(pooch.os_cache("fnn") if folder is None else folder)
    paths: list[Any] = [_fetch(name, folder, url) if download else _find(name, folder) for name in _MNIST]
    return _examples(*paths[:2]), _examples(*paths[2:])


def digits() -> _DataSet:
    """The digits of scikit-learn: 1,797 images of handwritten digits, 8 x 8 grey levels from 0 to 16.

    A quarter of them is held out for testing, always the same.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: x uint8 (1347, 64) and (450, 64), y int32 (1347,) and (450,).

    Raises:
        MissingExtraError: scikit-learn, which brings the data, is not installed.

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


# ---- untrusted files -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _decompressed(path):
    """A file open for reading, through gzip if it begins as gzip does; `DataError` where that is corrupt."""
    with files.reading(path, DataError, _IDX) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            yield gzip.GzipFile(fileobj=file) if compressed else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{files.shown(path)}: expected a complete gzip file, got one that is truncated or corrupt: {error}"
            ) from error


def _chunks(file, limit):
    """The bytes of a file in pieces, at most one more than `limit`.

    That one shows that the file is too long, and it takes gzip to the end of its stream, where the checksum is.
    """
    left = limit + 1
    while left and (chunk := file.read(min(left, 1 << 20))):
        left -= len(chunk)
        yield chunk


def _read(file, length, start=b""):
    """At most `length` + 1 bytes, of which `start` has been read already, in memory that grows as they are read."""
    values = bytearray(start)
    for chunk in _chunks(file, length - len(values)):
        values += chunk
    return values


def _npy_header(file, size):
    """`(dtype, shape, order, head)` of an .npy file of `size` bytes; `head` is its beginning, read up to the values."""
    head = io.BytesIO(file.read(min(size, _LARGEST_NPY_HEADER)))  # a header may claim a length of 4 GiB
    shape, is_fortran, dtype = files.npy_header(head)
    if dtype.hasobject:
        raise ValueError("it holds objects, which only unpickling could read")
    if not dtype.itemsize or dtype.subdtype:
        raise ValueError(f"it has values of type {dtype}")
    if any(type(length) is not int or not 0 <= length < 2**63 for length in shape):
        raise ValueError("its shape is not a tuple of sizes")
    if math.prod(shape) * dtype.itemsize != size - head.tell():
        raise ValueError(f"it has {size - head.tell()} bytes for {dtype} values of shape {shorten(shape)}")
    return dtype, shape, "F" if is_fortran else "C", head


def _npy_array(file, size, dtype, shape, order, head):
    """The array whose header, and perhaps first values, `_npy_header` has read."""
    length = size - head.tell()
    values = _read(file, length, start=head.read())
    if len(values) != length:
        raise ValueError(f"it has {len(values)} bytes of values where {length} are expected")
    array = np.ndarray(shape, dtype, buffer=values, order=order)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _check_sha256(path, expected):
    place, digest, length = files.shown(path), hashlib.sha256(), 0
    with _decompressed(path) as file:
        for chunk in _chunks(file, _MNIST_LARGEST):
            digest.update(chunk)
            length += len(chunk)
    if length > _MNIST_LARGEST:
        raise DataError(f"{place}: expected at most {_MNIST_LARGEST} decompressed bytes, got more")
    if digest.hexdigest() != expected:
        raise DataError(
            f"{place}: expected the decompressed file to have the SHA-256 {expected}, got {digest.hexdigest()}"
        )


# ---- MNIST's four files ----------------------------------------------------------------------------------------------


def _find(name, folder, missing_ok=False):
    for path in (place / file for place in (folder, folder / "mnist") for file in (name, f"{name}.gz")):
        if path.is_file():
            return path
    if missing_ok:
        return None
    raise FileNotFoundError(f"mnist: expected {name} or {name}.gz in {folder} or {folder / 'mnist'}, got neither")


def _fetch(name, folder, url):
    """The path of a file with the right SHA-256, downloaded if it is missing."""
    path = _find(name, folder, missing_ok=True)
    if path:
        _check_sha256(path, _MNIST[name])
        return path
    path, source = folder / f"{name}.gz", f"{url.rstrip('/')}/{name}.gz"
    with files.errors_as(DataError, f"{files.shown(folder)}: not a folder to download to"):
        folder.mkdir(parents=True, exist_ok=True)
    data = _download(source)
    with files.replacing(path) as file:  # so that only a file that has been checked gets its name
        file.write(data)
        file.flush()
        try:
            _check_sha256(file.name, _MNIST[name])
        except DataError as error:
            raise error.at(source) from None
    return path


def _download(source):
    """The bytes at a URL; raises where they are too many, or still not there after ten minutes."""
    requests, limit = require("requests", "download"), _MNIST_LARGEST + 2**20
    data, errors, over = bytearray(), [], threading.Event()

    def run():
        try:
            with requests.get(source, stream=True, timeout=30) as response:
                response.raise_for_status()
                for chunk in response.raw.stream(1024, decode_content=False):
                    data.extend(chunk)
                    if len(data) > limit:
                        raise DataError(f"{source}: expected at most {limit} bytes, got more")
                    if over.is_set():
                        break
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)  # a server that sends a byte now and then meets no timeout
    thread.start()
    try:
        thread.join(_LONGEST_DOWNLOAD)
    finally:
        over.set()
    if thread.is_alive():
        raise TimeoutError(f"{source}: expected a file within {_LONGEST_DOWNLOAD:g} s, got {len(data)} bytes of it")
    if errors:
        raise errors[0]
    return data


def _examples(images, labels):
    """x (N, 784) and y (N,) from a file of images and a file of their labels."""
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise DataError(f"{images}: expected uint8 images of shape (N, 28, 28), got {x.dtype} of shape {x.shape}")
    if y.dtype != np.uint8 or y.shape != x.shape[:1]:
        raise DataError(
            f"{labels}: expected a uint8 label for each of {len(x)} images, got {y.dtype} of shape {y.shape}"
        )
    return x.reshape(len(x), 784), y.astype(np.int32)
