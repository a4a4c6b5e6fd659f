"""Data to learn from: MNIST from its IDX files, scikit-learn's small digits, and readers of IDX, .npy and .npz files.

Every data set is `((x_train, y_train), (x_test, y_test))`: x uint8 (N, pixels), as stored, and y int32 labels (N,). An
IDX file is two zero bytes, a type code, the rank, a big-endian uint32 for each size, then the values in C order. Files
come from anywhere, so nothing in them is believed: a reader takes no more bytes than the header promises, plus one, and
unpacks no more than 4 GiB of one file.
"""

import contextlib
import gzip
import hashlib
import io
import math
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from . import files, random
from .errors import ArgumentError, DataError, require, shorten

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_LARGEST_UNPACKED = 4 * 2**30  # bytes, which a file of 4 MiB may claim to hold
_LARGEST_NPY_HEADER = 12 + 2**16  # bytes, with what is before it

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
    Raises `DataError` for a file that is empty, corrupt, too short or too long, or packed and of more than 4 GiB when
    unpacked, `FileNotFoundError` for none. Time and memory are bounded by what the header claims and by what the file
    holds, whichever is less.
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
        if isinstance(file, gzip.GzipFile) and length > _LARGEST_UNPACKED:
            raise DataError(
                f"{path}: expected at most {_LARGEST_UNPACKED} bytes when unpacked, got a header of shape "
                f"{shorten(shape)} and {dtype.name}; unpack it with gunzip"
            )
        values = _taken(file, length)
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


def read_npy(path, *, mapped=False):
    """The array in a .npy file, as `numpy.save` writes it.

    Args: `path`; `mapped`, whether the values stay in the file until they are used (default: False), for an array that
    is larger than memory: the file must then stay as it is.
    Returns an array of the type and the shape in the header, in the machine's byte order and yours to write; mapped a
    read-only `numpy.memmap` in the file's byte order, unless it is empty.
    Raises `DataError` for a file that is not whole, too long, of Python objects (which would have to be unpickled) or
    otherwise not what NumPy writes, `FileNotFoundError` for none. Nothing is allocated before the header and the size
    of the file agree.
    Source: NumPy, "NEP 1: A simple file format for NumPy arrays", versions 1.0 and 2.0.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "x.npy", np.arange(3.0))
    ...     read_npy(Path(folder) / "x.npy")
    array([0., 1., 2.])
    """
    with open(path, "rb") as file, files.doubted(DataError, f"{path}: expected an .npy file that can be trusted"):
        size = os.fstat(file.fileno()).st_size
        dtype, shape, order, head = _npy_header(file, size)
        if mapped and size > head.tell():
            return np.memmap(file, dtype, "r", head.tell(), shape, order)
        return _npy_array(file, size, dtype, shape, order, head)


def read_npz(path):
    """The arrays in an .npz file by name, as `numpy.savez` and `numpy.savez_compressed` write it.

    Args: `path`.
    Returns a dict of arrays, each as `read_npy` gives it.
    Raises `DataError`, naming the member, for one that `read_npy` would refuse, or that has a wrong checksum, is
    encrypted, lies over another, has the name of another, of no .npy file or one that leads out of a folder; for
    compressed members of more than 4 GiB in all when unpacked; `FileNotFoundError` for no file. Memory is bounded by
    what headers and the directory claim and by what the file holds, whichever is less.
    Source: NumPy, "NEP 1: A simple file format for NumPy arrays".

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "data.npz", x=np.zeros((2, 3)), y=np.arange(2))
    ...     {name: array.shape for name, array in read_npz(Path(folder) / "data.npz").items()}
    {'x': (2, 3), 'y': (2,)}
    """
    told, arrays = f"{path}: expected an .npz file that can be trusted", {}
    with open(path, "rb") as file, files.doubted(DataError, told), files.archive(file) as (archive, members):
        packed = [info for info in members.values() if info.compress_type != zipfile.ZIP_STORED]
        if sum(info.file_size for info in packed) > _LARGEST_UNPACKED:
            raise ValueError(f"more than {_LARGEST_UNPACKED} bytes when unpacked; save it with np.savez")
        for member, info in members.items():
            name, size = member.removesuffix(".npy"), info.file_size
            place = f"{path}: member {shorten(name)}: expected an .npy file that can be trusted"
            with files.doubted(DataError, place):
                if name == member:
                    raise ValueError("a name that does not end in .npy")
                parts = member.replace("\\", "/").split("/")
                if not parts[0] or ".." in parts:
                    raise ValueError("a name that leads out of a folder")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("compressed in another way than np.savez_compressed does")
                with archive.open(info) as stream:
                    arrays[name] = _npy_array(stream, size, *_npy_header(stream, size))
    return arrays


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


def _taken(file, length, begun=b""):
    """The first `length` bytes of a file that has begun so, or one more, in memory that grows as they come."""
    values = bytearray(begun)
    for chunk in _chunks(file, length - len(values)):
        values += chunk
    return values


def _npy_header(file, size):
    """`(dtype, shape, order, head)` of a .npy file of `size` bytes: `head` is its beginning, read up to the values."""
    head = io.BytesIO(file.read(min(size, _LARGEST_NPY_HEADER)))  # a header may claim a length of 4 GiB
    shape, is_fortran, dtype = files.npy_header(head)
    if dtype.hasobject:
        raise ValueError("objects, which would have to be unpickled")
    if not dtype.itemsize or dtype.subdtype:
        raise ValueError(f"values of type {dtype}")
    if any(type(length) is not int or not 0 <= length < 2**63 for length in shape):
        raise ValueError("a shape of other than sizes")
    if math.prod(shape) * dtype.itemsize != size - head.tell():
        raise ValueError(f"{size - head.tell()} bytes for {dtype} values of shape {shorten(shape)}")
    return dtype, shape, "F" if is_fortran else "C", head


def _npy_array(file, size, dtype, shape, order, head):
    """The array of which `_npy_header` has read the header and perhaps the first values."""
    length = size - head.tell()
    values = _taken(file, length, begun=head.read())
    if len(values) != length:
        raise ValueError(f"{length} bytes of values expected, got {len(values)}")
    array = np.ndarray(shape, dtype, buffer=values, order=order)
    return array.astype(dtype.newbyteorder("="), copy=False)


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
