"""Files are read exactly or refused by name, in bounded memory; a download is used only if it has the right SHA-256."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from fnn import datasets, errors

pytestmark = pytest.mark.numpy_alone
NAMES = tuple(datasets._MNIST)

TYPES = [  # type code, format of `struct`, the type that comes back, and values at the ends of its range
    (0x08, "B", np.uint8, (0, 1, 127, 128, 254, 255)),
    (0x09, "b", np.int8, (0, 1, -1, 127, -127, -128)),
    (0x0B, "h", np.int16, (0, 1, -1, 258, 32767, -32768)),
    (0x0C, "i", np.int32, (0, 1, -1, 16909060, 2**31 - 1, -(2**31))),
    (0x0D, "f", np.float32, (0.0, -1.5, 2.0**-149, 2.0**127, float("inf"), -float("inf"))),
    (0x0E, "d", np.float64, (0.0, -1.5, 2.0**-1074, 0.1, float("inf"), -float("inf"))),
]
SHAPES = [(6,), (2, 3), (3, 1, 2), (1, 1, 6, 1)]


def header(code, *shape):
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def plain(data):
    return data


def packed(data):
    return gzip.compress(data, mtime=0)


THREE = header(8, 3) + b"\1\2\3"


@contextlib.contextmanager
def peak_below(limit):
    """Fails if the block allocates `limit` bytes or more at any one time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


def bomb(path, start, mebibytes):
    """A gzip file of `start` and then zeros, a thousandth of its decompressed size."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(start)
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < mebibytes * 1100
    return path


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [plain, packed])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("code", "letter", "dtype", "values"), TYPES, ids=[t[2].__name__ for t in TYPES])
def test_every_type_is_read_exactly_and_in_native_byte_order(tmp_path, code, letter, dtype, values, shape, pack):
    path = tmp_path / "named-anyhow"
    path.write_bytes(pack(header(code, *shape) + struct.pack(f">6{letter}", *values)))
    array = datasets.read_idx(path)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.shape == shape
    assert array.reshape(-1).tolist() == list(values)


@pytest.mark.parametrize("name", ["a.gz", "a", "a.idx"])
@pytest.mark.parametrize("pack", [plain, packed])
def test_compression_is_seen_in_the_bytes_and_not_in_the_name(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(THREE))
    assert datasets.read_idx(str(tmp_path / name)).tolist() == [1, 2, 3]


@pytest.mark.parametrize("shape", [(0,), (0, 28, 28), (3, 0)], ids=str)
def test_an_empty_array_keeps_its_shape(tmp_path, shape):
    (tmp_path / "a").write_bytes(header(0x0D, *shape))
    array = datasets.read_idx(tmp_path / "a")
    assert array.shape == shape
    assert array.dtype == np.float32


def test_an_array_longer_than_one_chunk_is_read_whole(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3 << 20) + 17, dtype=np.uint8)
    for pack in (plain, packed):
        (tmp_path / "a").write_bytes(pack(header(8, values.size) + values.tobytes()))
        assert np.array_equal(datasets.read_idx(tmp_path / "a"), values)


def test_what_was_read_is_the_callers_own_to_write(tmp_path):
    (tmp_path / "a").write_bytes(THREE)
    array = datasets.read_idx(tmp_path / "a")
    array[0] = 9
    assert array.tolist() == [9, 2, 3]


def test_a_missing_file_stays_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.read_idx(tmp_path / "nowhere")


# ---- what is wrong with a file ---------------------------------------------------------------------------------------

WRONG_INSIDE = [  # what is wrong, the decompressed bytes, what was expected and what was found
    ("empty", b"", "expected an IDX file", "got an empty file"),
    ("cut within the magic number", b"\0\0\x08", "expected an IDX file", "got 00 00 08"),
    ("first byte not zero", b"\1\0\x08\1" + THREE[4:], "00 00", "got 01 00 08 01"),
    ("second byte not zero", b"\0\1\x08\1" + THREE[4:], "00 00", "got 00 01 08 01"),
    ("unknown type", b"\0\0\x0a\1" + THREE[4:], "08, 09, 0b, 0c, 0d, 0e", "got 00 00 0a 01"),
    ("rank zero", b"\0\0\x08\0\7", "rank of 1 or more", "got 0"),
    ("no sizes", b"\0\0\x08\2", "4 bytes for each size", "got 2 and 0 bytes"),
    ("cut within the sizes", header(8, 3, 1)[:-1], "4 bytes for each size", "got 2 and 7 bytes"),
    ("no values", header(8, 3), "expected 3 bytes of uint8", "got 0 bytes"),
    (
        "one byte short",
        header(0x0C, 2, 2) + bytes(15),
        r"expected 16 bytes of int32 values, shape \(2, 2\)",
        "got 15 bytes",
    ),
    ("one byte long", THREE + b"\0", r"expected 3 bytes of uint8 values, shape \(3,\)", "got more"),
    ("a byte after an empty array", header(8, 0) + b"\0", "expected 0 bytes", "got more"),
    ("more axes than NumPy has", header(8, *[1] * 255) + b"\0", "shape that NumPy can hold", r"got \(1, 1,"),
    ("empty, but too large", header(8, 0, *[2**32 - 1] * 3), "shape that NumPy can hold", r"got \(0, 4294967295,"),
]
GZ = packed(THREE)
WRONG_GZIP = [  # what is wrong, the bytes on disk
    ("cut within gzip's header", GZ[:5]),
    ("cut within the stream", GZ[:14]),
    ("cut within the checksum", GZ[:-6]),
    ("cut by one byte", GZ[:-1]),
    ("wrong checksum", GZ[:-8] + bytes([GZ[-8] ^ 1]) + GZ[-7:]),
    ("wrong length", GZ[:-1] + b"\1"),
    ("unknown method", GZ[:2] + b"\7" + GZ[3:]),
    ("a block of no known type", GZ[:10] + b"\xff" * 8 + GZ[-8:]),
    ("something else behind it", GZ + b"more"),
]


@pytest.mark.parametrize("pack", [plain, packed])
@pytest.mark.parametrize(("data", "expected", "found"), [w[1:] for w in WRONG_INSIDE], ids=[w[0] for w in WRONG_INSIDE])
def test_a_wrong_file_is_refused_by_name_with_what_was_expected_and_found(tmp_path, data, expected, found, pack):
    (tmp_path / "the-file").write_bytes(pack(data))
    with pytest.raises(errors.DataError, match=f"the-file: .*{expected}.*{found}"):
        datasets.read_idx(tmp_path / "the-file")


@pytest.mark.parametrize("data", [w[1] for w in WRONG_GZIP], ids=[w[0] for w in WRONG_GZIP])
def test_a_corrupt_gzip_file_is_refused_by_name(tmp_path, data):
    (tmp_path / "the-file").write_bytes(data)
    with pytest.raises(
        errors.DataError, match=r"the-file: expected a complete gzip file, got one that is truncated or corrupt: ."
    ):
        datasets.read_idx(tmp_path / "the-file")


@pytest.mark.parametrize("keep", range(len(THREE)))
def test_a_truncated_file_names_the_file_and_never_reads(tmp_path, keep):
    (tmp_path / "the-file").write_bytes(THREE[:keep])
    with pytest.raises(errors.DataError, match="the-file: expected"):
        datasets.read_idx(tmp_path / "the-file")


@pytest.mark.parametrize("keep", range(len(GZ)))
def test_a_truncated_gzip_file_names_the_file_and_never_reads(tmp_path, keep):
    (tmp_path / "the-file").write_bytes(GZ[:keep])
    with pytest.raises(errors.DataError, match="the-file: expected"):
        datasets.read_idx(tmp_path / "the-file")


# ---- bounded memory --------------------------------------------------------------------------------------------------

FEW = 6 << 20  # a chunk of 1 MiB, in gzip's hands and in ours; less than any file below would unpack to


@pytest.mark.parametrize("pack", [plain, packed])
@pytest.mark.parametrize(
    "shape", [(2**32 - 1,), (2**20, 2**20, 4), (2**32 - 1,) * 60], ids=["4 GB", "4 TB", "10^578 B"]
)
def test_a_header_that_claims_terabytes_is_refused_without_the_memory(tmp_path, shape, pack):
    (tmp_path / "the-file").write_bytes(pack(header(8, *shape) + bytes(100)))
    too_large = pack is packed and shape != (2**32 - 1,)
    expected = "at most 4294967296 decompressed bytes, .*gunzip" if too_large else r"\d+(\.\.\.)? bytes .*got 100 bytes"
    with peak_below(FEW), pytest.raises(errors.DataError, match=f"the-file: expected {expected}") as caught:
        datasets.read_idx(tmp_path / "the-file")
    assert len(str(caught.value)) < len(str(tmp_path)) + 250  # a length of 578 digits tells nobody anything


def test_a_gzip_bomb_is_refused_after_one_byte_too_many(tmp_path):
    path = bomb(tmp_path / "the-file", header(8, 10), 64)
    with peak_below(FEW), pytest.raises(errors.DataError, match=r"the-file: expected 10 bytes .*got more"):
        datasets.read_idx(path)


def test_no_more_is_taken_from_a_file_than_one_byte_beyond_its_end():
    class Endless:
        taken = 0

        def read(self, size):
            self.taken += size
            return bytes(size)

    for limit in (0, 10, 1 << 20, (5 << 20) + 3):
        file = Endless()
        assert sum(map(len, datasets._chunks(file, limit))) == limit + 1 == file.taken


# ---- .npy and .npz ---------------------------------------------------------------------------------------------------

NPY_TYPES = ["?", "i1", "u1", *(order + kind for order in "<>" for kind in ("i2", "u4", "i8", "f2", "f4", "f8", "c8"))]
NPY_TYPES += ["S3", "<U2", ">U2", "V3", "<M8[s]", "<m8[ms]", [("a", "<f4", (2,)), ("b", ">i2")]]
NPY_SHAPES = [(), (6,), (2, 3), (3, 1, 2), (0,), (0, 28, 28), (3, 0)]


def npy_arrays():
    """An array of each type, and of each shape in either order."""
    of_types = [
        np.frombuffer(bytes(range(1, 1 + 2 * np.dtype(t).itemsize)), t)
        for t in NPY_TYPES
        if t not in ("?", "<U2", ">U2")
    ]
    of_types += [np.array([True, False]), np.array(["ab", "c"], "<U2"), np.array(["ab", "c"], ">U2")]
    of_shapes = [np.arange(np.prod(s, dtype=int), dtype=np.float32).reshape(s) for s in NPY_SHAPES]
    return [*of_types, *of_shapes, *(np.asfortranarray(a) for a in of_shapes)]


def npy(header, values=b"", version=1):
    """A .npy file with any header."""
    header = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + values


def described(descr="'<f4'", shape="(3,)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


def zipped(members, compression=zipfile.ZIP_STORED):
    """The bytes of a zip archive of `(name, data)` pairs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal names
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def patched(data, at, fmt, value):
    data = bytearray(data)
    struct.pack_into(fmt, data, at % len(data), value)
    return bytes(data)


def is_the_same(array, expected):
    """Equal in shape, order, values, and in type up to the byte order, which is the machine's."""
    assert array.dtype == expected.dtype.newbyteorder("=")
    assert (array.shape, array.tobytes()) == (expected.shape, expected.astype(array.dtype).tobytes())
    assert array.flags.f_contiguous == expected.flags.f_contiguous
    assert array.flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_every_type_shape_and_order_of_npy_is_read_exactly(tmp_path, version):
    path = tmp_path / "named-anyhow"
    for array in npy_arrays():
        with open(path, "wb") as file:
            np.lib.format.write_array(file, array, version=version, allow_pickle=False)
        is_the_same(datasets.read_npy(path), array)
        mapped = datasets.read_npy(str(path), mapped=True)
        assert isinstance(mapped, np.memmap) == bool(array.size)
        if array.size:
            assert (mapped.dtype, mapped.shape) == (array.dtype, array.shape)
            assert mapped.tobytes() == np.load(path).tobytes() == array.tobytes()
            assert not mapped.flags.writeable


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_type_shape_and_order_of_npz_is_read_exactly(tmp_path, save):
    arrays = {f"a/{i}": array for i, array in enumerate(npy_arrays())} | {"": np.ones(1), "x.npy": np.zeros(2)}
    save(tmp_path / "a.npz", **arrays)
    found = datasets.read_npz(tmp_path / "a.npz")
    assert list(found) == list(np.load(tmp_path / "a.npz")) == list(arrays)
    for name, array in arrays.items():
        is_the_same(found[name], array)
    save(tmp_path / "a.npz")
    assert datasets.read_npz(tmp_path / "a.npz") == {}


def test_a_mapped_array_takes_from_the_file_what_is_touched_and_no_more(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:  # 1 TB, of which the disk holds nothing
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**28, 1024)})
        end = file.tell() + 2**40
        file.seek(end - 4)
        file.write(np.float32(7).tobytes())
    with peak_below(FEW):
        array = datasets.read_npy(tmp_path / "a.npy", mapped=True)
        assert array.shape == (2**28, 1024)
        assert array[-1, -2:].tolist() == [0, 7]


def test_an_npy_file_longer_than_one_chunk_is_read_whole_in_its_own_memory(tmp_path):
    values = np.random.default_rng(0).normal(size=(1 << 19) + 17)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", values=values)
    with peak_below(2 * values.nbytes):
        found = datasets.read_npy(tmp_path / "a.npy")
    is_the_same(found, values)
    is_the_same(datasets.read_npz(tmp_path / "a.npz")["values"], values)


def test_a_file_by_python_2_is_read_without_a_warning(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(described(shape="(3L,)"), np.arange(3, dtype="<f4").tobytes()))
    with warnings.catch_warnings(record=True) as caught:
        assert datasets.read_npy(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert not caught


@pytest.mark.parametrize("read", [datasets.read_idx, datasets.read_npy, datasets.read_npz])
def test_what_the_system_does_not_open_is_our_error(tmp_path, read):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "loop", tmp_path / "file" / "x", tmp_path / ("x" * 256), "\0"):
        with pytest.raises(errors.DataError, match="not a valid"):
            read(path)


@pytest.mark.parametrize("read", [datasets.read_idx, datasets.read_npy, datasets.read_npz])
def test_a_name_with_a_newline_is_shown_in_one_line(tmp_path, read):
    (tmp_path / "a\nb").write_bytes(b"xx")
    with pytest.raises(errors.DataError) as raised:
        read(tmp_path / "a\nb")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("read", [datasets.read_npy, datasets.read_npz])
def test_a_missing_array_file_stays_a_file_not_found_error(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("read", [datasets.read_idx, datasets.read_npy, datasets.read_npz])
def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(errors.DataError, match=f"expected a regular file, got {kind}"):
            read(path)


@pytest.mark.parametrize("read", [datasets.read_idx, datasets.read_npy, datasets.read_npz])
def test_a_number_is_not_a_path(read):
    with pytest.raises(errors.KindError, match="path: expected a string or a path, got 0"):
        read(0)


GOOD = npy(described(), bytes(12))
DEEP = "(" * 1000 + ")" * 1000
WRONG_NPY = {  # what is wrong: the bytes, and what the error says
    "empty": (b"", "magic"),
    "text": (b"some text, longer than the magic", "magic"),
    "a zip archive": (zipped([("x.npy", GOOD)]), "magic"),
    "one byte short": (GOOD[:-1], r"11 bytes for float32 values of shape \(3,\)"),
    "one byte long": (GOOD + b"\0", r"13 bytes for float32 values of shape \(3,\)"),
    "nothing but a header": (npy(described()), "0 bytes for float32"),
    "terabytes": (npy(described(shape=f"({2**40}, 4)"), bytes(12)), r"12 bytes for .*\(1099511"),
    "a negative size": (npy(described(shape="(-3,)"), bytes(12)), "not a tuple of sizes"),
    "two negative sizes": (npy(described(shape="(-3, -1)"), bytes(12)), "not a tuple of sizes"),
    "a size of truth": (npy(described(shape="(True, 3)"), bytes(12)), "not a tuple of sizes"),
    "a size of 12000 digits": (npy(described(shape=f"(0x{'f' * 9900},)"), bytes(12)), "not a tuple of sizes"),
    "a product that wraps to 3": (npy(described(shape=f"({2**62}, 4, 3)"), bytes(12)), "12 bytes for"),
    "a product that wraps to 0": (npy(described(shape=f"({2**32}, {2**32})")), "0 bytes for"),
    "empty, but too large": (npy(described(shape=f"(0, {2**62}, {2**62})")), "too big"),
    "more axes than NumPy has": (npy(described(shape=f"({'1, ' * 65})"), bytes(4)), "maximum supported dimension"),
    "a shape of floats": (npy(described(shape="(3.0,)"), bytes(12)), "shape is not valid"),
    "objects": (npy(described("'|O'"), bytes(24)), "unpickling"),
    "a pickle": (npy(described("'|O'", "()"), b"\x80\x04N."), "unpickling"),
    "objects in a field": (npy(described("[('a', '<f4'), ('b', [('c', '|O')])]"), bytes(36)), "unpickling"),
    "text of any length": (npy(described("'T'"), bytes(48)), "unpickling"),
    "values of no size": (npy(described("'V0'", f"({2**60},)")), "values of type"),
    "arrays as values": (npy(described("('<f4', (3,))", "(1,)"), bytes(12)), "values of type"),
    "a type that is none": (npy(described("'<q9'"), bytes(12)), "descr|type"),
    "a type of a dict": (npy(described("{'ab': 1}"), bytes(12)), "."),
    "an order that is none": (npy(described(order="0"), bytes(12)), "fortran_order"),
    "a key too many": (npy(described()[:-1] + ", 'more': 1}", bytes(12)), "keys"),
    "a header that is a call": (npy("__import__('os').abort()", bytes(12)), "."),
    "a header that is no Python": (npy("{'descr': \\", bytes(12)), "."),
    "a header with an escape that is none": (npy("'\\d'", bytes(12)), "not a dictionary"),
    "a header with an indent": (npy("{\n  1\n 2", bytes(12)), "."),
    "a header of zero bytes": (npy("\0" * 50, bytes(12)), "."),
    "a nested header": (npy(DEEP, bytes(12)), "."),
    "a header of signs": (npy("-" * 9000 + "1", bytes(12)), "."),
    "a header of 64 kB": (npy(described() + " " * 65_000, bytes(12)), "65...|large"),
    "a header of 4 GB": (b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100), "4294967295 bytes"),
    "version 3": (b"\x93NUMPY\3\0" + GOOD[8:], r"version \(3, 0\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_NPY)
def test_a_wrong_npy_file_or_member_is_refused_by_name_in_little_memory(tmp_path, name):
    data, reason = WRONG_NPY[name]
    (tmp_path / "the-file").write_bytes(data)
    for mapped in (False, True):
        with peak_below(FEW), pytest.raises(errors.DataError, match=f"the-file: not a valid .npy file: .*({reason})"):
            datasets.read_npy(tmp_path / "the-file", mapped=mapped)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (tmp_path / "the-file").write_bytes(zipped([("good.npy", GOOD), ("x.npy", data)], compression))
        with (
            peak_below(FEW),
            pytest.raises(errors.DataError, match=f"the-file: member 'x': not a valid .npy file: .*({reason})"),
        ):
            datasets.read_npz(tmp_path / "the-file")


ONE = zipped([("x.npy", GOOD)])
TWO = zipped([("x.npy", GOOD), ("y.npy", GOOD)])
ONES, TWOS = ONE.index(b"PK\1\2"), TWO.rindex(b"PK\1\2")  # where the directory tells of the last member
WRONG_NPZ = {  # what is wrong: the bytes, and what the error says after the name of the file
    "empty": (b"", "truncated"),
    "an .npy file": (GOOD, "truncated, or not a zip"),
    "something behind it": (TWO + b"\0", "truncated"),
    "a comment behind it": (patched(TWO, -2, "<H", 1) + b"a", "truncated"),
    "a zip in a zip": (zipped([("x.npy", TWO)]), "member 'x': .*magic"),
    "a zip in a zip by its name": (zipped([("x.npz", TWO)]), "member 'x.npz': .*does not end in .npy"),
    "a member that is no array": (zipped([("x.npy", GOOD), ("read.me", b"")]), "member 'read.me': .*end in .npy"),
    "a folder": (zipped([("x/", b"")]), "member 'x/': .*end in .npy"),
    "a name that leads out": (zipped([("../x.npy", GOOD)]), "member '../x': .*out of a folder"),
    "a name that leads out further on": (zipped([("a/../../x.npy", GOOD)]), "member 'a/../../x': .*out of a folder"),
    "a name that leads out of Windows": (zipped([("..\\x.npy", GOOD)]), "member '..*x': .*out of a folder"),
    "an absolute name": (zipped([("/x.npy", GOOD)]), "member '/x': .*out of a folder"),
    "two of a name": (zipped([("x.npy", GOOD), ("x.npy", GOOD)]), "same name"),
    "two of a name up to a zero byte": (TWO.replace(b"y.npy", b"x.npy").replace(b"x.npy", b"x\0npy"), "same name"),
    "two at one place": (patched(TWO, TWOS + 42, "<I", 0), "overlap.*y.npy"),
    "one within another": (patched(TWO, TWOS + 42, "<I", 40), "overlap.*y.npy"),
    "one that begins where another has a longer name": (patched(TWO, 28, "<H", 5), "overlap.*y.npy"),
    "one before the file": (patched(ONE, -6, "<I", ONES + 1), "overlap"),
    "one longer than the file": (patched(ONE, ONES + 20, "<Q", 9999 << 32 | 9999), "longer than the file"),
    "two sizes": (patched(ONE, ONES + 24, "<I", 9999), "two sizes.*x.npy"),
    "encrypted": (patched(ONE, ONES + 8, "<H", 1), "encrypted.*x.npy"),
    "patched data": (patched(ONE, ONES + 8, "<H", 0x20), "member 'x': .*not a valid"),
    "another checksum": (patched(ONE, ONES + 16, "<I", 1), "member 'x': .*CRC"),
    "another byte in the values": (patched(ONE, ONES - 1, "B", 1), "member 'x': .*CRC"),
    "another name inside": (patched(ONE, 30, "B", ord("z")), "member 'x': .*differ"),
    "a directory of terabytes": (patched(ONE, -10, "<I", 2**32 - 1), "directory is too large"),
    "bzip2": (zipped([("x.npy", GOOD)], zipfile.ZIP_BZIP2), "member 'x': .*savez_compressed"),
    "LZMA": (zipped([("x.npy", GOOD)], zipfile.ZIP_LZMA), "member 'x': .*savez_compressed"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_NPZ)
def test_a_wrong_npz_file_is_refused_with_its_name_and_the_members(tmp_path, name):
    data, reason = WRONG_NPZ[name]
    (tmp_path / "the-file").write_bytes(data)
    with peak_below(FEW), pytest.raises(errors.DataError, match=f"the-file: .*{reason}"):
        datasets.read_npz(tmp_path / "the-file")


def test_the_directory_of_a_large_archive_is_measured_too(tmp_path):
    data = ONE[:-22] + struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
    data += struct.pack("<4sLQL", b"PK\6\7", 0, len(ONE) - 22, 1) + ONE[-22:]
    (tmp_path / "the-file").write_bytes(data)
    with pytest.raises(errors.DataError, match=r"the-file: .*directory is too large"):
        datasets.read_npz(tmp_path / "the-file")


def test_a_bomb_of_an_npz_is_refused_without_the_memory(tmp_path):
    data = npy(described(shape=f"({2**40},)"), bytes(64 << 20))
    (tmp_path / "the-file").write_bytes(zipped([("x.npy", data)], zipfile.ZIP_DEFLATED))
    with peak_below(FEW), pytest.raises(errors.DataError, match=r"the-file: member 'x': .*bytes for float32 values"):
        datasets.read_npz(tmp_path / "the-file")


def test_what_is_decompressed_from_one_file_is_bounded_in_all_and_what_is_not_packed_is_not(tmp_path, monkeypatch):
    assert datasets._LARGEST_UNPACKED == 4 * 2**30
    monkeypatch.setattr(datasets, "_LARGEST_UNPACKED", 2 * len(GOOD) - 1)
    for names, compression in (("x", zipfile.ZIP_DEFLATED), ("xyz", zipfile.ZIP_STORED)):
        (tmp_path / "the-file").write_bytes(zipped([(f"{name}.npy", GOOD) for name in names], compression))
        assert "".join(datasets.read_npz(tmp_path / "the-file")) == names
    (tmp_path / "the-file").write_bytes(zipped([("x.npy", GOOD), ("y.npy", GOOD)], zipfile.ZIP_DEFLATED))
    with pytest.raises(errors.DataError, match=r"the-file: .*more than .* decompressed bytes; .*np\.savez"):
        datasets.read_npz(tmp_path / "the-file")
    long = header(8, 2 * len(GOOD)) + bytes(2 * len(GOOD))
    (tmp_path / "the-file").write_bytes(plain(long))
    assert datasets.read_idx(tmp_path / "the-file").size == 2 * len(GOOD)
    (tmp_path / "the-file").write_bytes(packed(long))
    with pytest.raises(errors.DataError, match=r"the-file: expected at most .* decompressed bytes.*gunzip"):
        datasets.read_idx(tmp_path / "the-file")


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (datasets.read_npy, GOOD),
        (lambda path: datasets.read_npy(path, mapped=True), GOOD),
        (datasets.read_npz, ONE),
        (datasets.read_npz, zipped([("x.npy", GOOD)], zipfile.ZIP_DEFLATED)),
    ],
    ids=["npy", "mapped", "npz", "compressed"],
)
def test_every_truncation_and_every_changed_byte_is_our_error_or_an_array(tmp_path, read, data):
    path, refused = tmp_path / "the-file", 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(errors.DataError, match="the-file: "):
            read(path)
    for i, byte in enumerate(data):
        for other in (byte ^ 1, byte ^ 128, (byte + 1) % 256):
            path.write_bytes(data[:i] + bytes([other]) + data[i + 1 :])
            try:
                found = read(path)
            except errors.DataError:
                refused += 1
            else:
                arrays = found.values() if isinstance(found, dict) else [found]
                assert all(isinstance(array, np.ndarray) for array in arrays)
    assert refused > len(data)


# ---- MNIST in a folder -----------------------------------------------------------------------------------------------


def small_mnist(train=5, test=3):
    """The bytes of four files like MNIST's, of a few random images."""
    rng = np.random.default_rng(0)
    contents = []
    for n in (train, test):
        contents.append(header(8, n, 28, 28) + rng.integers(0, 256, (n, 28, 28), dtype=np.uint8).tobytes())
        contents.append(header(8, n) + rng.integers(0, 10, n, dtype=np.uint8).tobytes())
    return dict(zip(NAMES, contents, strict=True))


def write(folder, files, pack=plain, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}{suffix}").write_bytes(pack(data))


def assert_is_mnist(data, files):
    for (x, y), images, labels in zip(data, NAMES[::2], NAMES[1::2], strict=True):
        assert x.dtype == np.uint8
        assert y.dtype == np.int32
        assert x.shape == (len(files[labels]) - 8, 784)
        assert y.shape == x.shape[:1]
        assert x.tobytes() == files[images][16:]
        assert bytes(y.tolist()) == files[labels][8:]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """Neither the caller's data nor a proxy between us and 127.0.0.1."""
    monkeypatch.delenv("FNN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("place", ["", "mnist"])
@pytest.mark.parametrize(("pack", "suffix"), [(plain, ""), (packed, ".gz")])
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_mnist_is_found_in_a_folder_or_its_subfolder_plain_or_packed(tmp_path, monkeypatch, given, pack, suffix, place):
    files = small_mnist()
    write(tmp_path / place, files, pack, suffix)
    if given == "environment":
        monkeypatch.setenv("FNN_DATA", str(tmp_path))
    assert_is_mnist(datasets.mnist(tmp_path if given == "argument" else None), files)


def test_the_folder_that_is_given_goes_before_the_environment(tmp_path, monkeypatch):
    files = small_mnist()
    write(tmp_path, files)
    monkeypatch.setenv("FNN_DATA", str(tmp_path / "elsewhere"))
    assert_is_mnist(datasets.mnist(tmp_path), files)


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_folder_the_error_says_the_three_ways_to_give_one(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("FNN_DATA", value)
    with pytest.raises(errors.ArgumentError, match=r"folder=.*FNN_DATA.*download=True"):
        datasets.mnist()


@pytest.mark.parametrize("missing", NAMES)
def test_a_file_that_is_not_in_the_folder_is_named(tmp_path, missing):
    files = small_mnist()
    del files[missing]
    write(tmp_path, files)
    with pytest.raises(FileNotFoundError, match=rf"{missing} or {missing}\.gz in .*{tmp_path.name}"):
        datasets.mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (NAMES[0], header(8, 5, 4, 4) + bytes(80), r"shape \(N, 28, 28\), got uint8 of shape \(5, 4, 4\)"),
        (NAMES[2], header(8, 5) + bytes(5), r"shape \(N, 28, 28\), got uint8 of shape \(5,\)"),
        (NAMES[2], header(9, 3, 28, 28) + bytes(3 * 784), "uint8 images .*got int8"),
        (NAMES[1], header(8, 4) + bytes(4), r"each of 5 images, got uint8 of shape \(4,\)"),
        (NAMES[3], header(8, 3, 1) + bytes(3), r"each of 3 images, got uint8 of shape \(3, 1\)"),
        (NAMES[3], header(0x0D, 3) + bytes(12), "uint8 label .*got float32"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused_by_name(tmp_path, name, data, message):
    write(tmp_path, small_mnist() | {name: data})
    with pytest.raises(errors.DataError, match=f"{name}: expected.*{message}"):
        datasets.mnist(tmp_path)


# ---- MNIST from a server ---------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """An HTTP server on this machine: `files` by path, `hits` so far, `url`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.hits.append(self.path)
            data = server.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.hits, server.url = {}, [], f"http://127.0.0.1:{server.server_address[1]}/some/where"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(server, monkeypatch):
    """A server of four small files, their hashes in the table; `contents` are the decompressed bytes."""
    pytest.importorskip("pooch")
    server.contents = small_mnist()
    server.files = {f"/some/where/{name}.gz": packed(data) for name, data in server.contents.items()}
    monkeypatch.setattr(
        datasets, "_MNIST", {n: hashlib.sha256(data).hexdigest() for n, data in server.contents.items()}
    )
    return server


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_download_is_read_and_a_second_call_asks_the_server_for_nothing(tmp_path, mirror, slash):
    folder = tmp_path / "not" / "there" / "yet"
    assert_is_mnist(datasets.mnist(folder, download=True, url=mirror.url + slash), mirror.contents)
    assert mirror.hits == [f"/some/where/{name}.gz" for name in NAMES]
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    assert_is_mnist(datasets.mnist(folder, download=True, url=mirror.url), mirror.contents)
    assert_is_mnist(datasets.mnist(folder), mirror.contents)
    assert len(mirror.hits) == 4


def test_without_a_folder_a_download_goes_to_the_users_cache(tmp_path, mirror, monkeypatch):
    asked = []
    monkeypatch.setattr("pooch.os_cache", lambda project: asked.append(project) or tmp_path / "cache")
    assert_is_mnist(datasets.mnist(download=True, url=mirror.url), mirror.contents)
    assert asked == ["fnn"]
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_download_goes_to_the_environments_folder_where_one_is_set(tmp_path, mirror, monkeypatch):
    monkeypatch.setenv("FNN_DATA", str(tmp_path))
    assert_is_mnist(datasets.mnist(download=True, url=mirror.url), mirror.contents)
    assert len(list(tmp_path.iterdir())) == 4


def test_only_the_files_that_are_missing_are_downloaded(tmp_path, mirror):
    present = {name: mirror.contents[name] for name in NAMES[1:]}
    write(tmp_path / "mnist", present)
    assert_is_mnist(datasets.mnist(tmp_path, download=True, url=mirror.url), mirror.contents)
    assert mirror.hits == [f"/some/where/{NAMES[0]}.gz"]


def test_a_mirror_that_compresses_otherwise_or_not_at_all_is_as_good(tmp_path, mirror):
    for pack in (lambda data: gzip.compress(data, compresslevel=1, mtime=12345), plain):
        mirror.files = {f"/some/where/{name}.gz": pack(data) for name, data in mirror.contents.items()}
        folder = tmp_path / str(len(mirror.hits))
        assert_is_mnist(datasets.mnist(folder, download=True, url=mirror.url), mirror.contents)


@pytest.mark.parametrize("bad", NAMES)
def test_a_download_with_another_hash_is_removed_and_both_hashes_are_named(tmp_path, mirror, bad):
    other = mirror.contents[bad][:-1] + bytes([mirror.contents[bad][-1] ^ 1])
    mirror.files[f"/some/where/{bad}.gz"] = packed(other)
    expected, got = datasets._MNIST[bad], hashlib.sha256(other).hexdigest()
    with pytest.raises(
        errors.DataError,
        match=f"{mirror.url}/{bad}.gz: .*expected the decompressed file to have the SHA-256 {expected}.*got {got}",
    ):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{name}.gz" for name in NAMES[: NAMES.index(bad)])
    mirror.files[f"/some/where/{bad}.gz"] = packed(mirror.contents[bad])
    assert_is_mnist(datasets.mnist(tmp_path, download=True, url=mirror.url), mirror.contents)


@pytest.mark.parametrize("data", [b"", b"<html>moved</html>", GZ[:-1]], ids=["nothing", "a web page", "truncated"])
def test_a_download_of_something_else_is_removed(tmp_path, mirror, data):
    mirror.files[f"/some/where/{NAMES[0]}.gz"] = data
    with pytest.raises(errors.DataError, match=f"{mirror.url}/{NAMES[0]}.gz: .*expected"):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert not list(tmp_path.iterdir())


def test_a_download_that_is_a_gzip_bomb_is_removed_without_the_memory(tmp_path, mirror):
    largest = bomb(tmp_path / "bomb", b"", 64)
    mirror.files[f"/some/where/{NAMES[0]}.gz"] = largest.read_bytes()
    with pytest.raises(
        errors.DataError, match=f"{NAMES[0]}.gz: .*expected at most 47040016 decompressed bytes, got more"
    ):
        datasets.mnist(tmp_path / "folder", download=True, url=mirror.url)
    assert not list((tmp_path / "folder").iterdir())
    with peak_below(FEW), pytest.raises(errors.DataError, match="got more"):
        datasets._check_sha256(largest, "")


@pytest.mark.parametrize("way", ["silent", "dripping headers", "dripping"])
def test_a_download_that_takes_forever_is_given_up_and_leaves_nothing(way, tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    monkeypatch.setattr(datasets, "_LONGEST_DOWNLOAD", 0.2)
    over = threading.Event()

    def serve():
        connection, _ = listener.accept()
        connection.sendall(
            {"silent": b"", "dripping headers": b"HTTP/1.1 200 OK\r\n"}.get(way, b"HTTP/1.1 200 OK\r\n\r\n")
        )
        while not over.wait(0.02):
            connection.sendall(b"" if way == "silent" else b"x")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(TimeoutError, match=r"train-images.*: expected a file within 0\.2 s, got \d+ bytes"):
                datasets.mnist(tmp_path, download=True, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            over.set()
            thread.join()
    assert not list(tmp_path.iterdir())


def test_a_download_that_does_not_end_is_given_up_and_leaves_nothing(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(datasets, "_MNIST_LARGEST", 1000)
    mirror.files[f"/some/where/{NAMES[0]}.gz"] = bytes(2**22)
    with (
        peak_below(FEW),
        pytest.raises(errors.DataError, match=f"{NAMES[0]}.gz: expected at most 1049576 bytes, got more"),
    ):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_download_replaces_no_pipe_and_a_folder_that_cannot_be_one_is_refused(tmp_path, mirror):
    os.mkfifo(tmp_path / f"{NAMES[0]}.gz")
    with pytest.raises(errors.CheckpointError, match="expected a regular file, got a pipe"):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert os.listdir(tmp_path) == [f"{NAMES[0]}.gz"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.DataError, match="file: not a folder to download to"):
        datasets.mnist(tmp_path / "file", download=True, url=mirror.url)


def test_a_server_without_the_file_is_an_os_error_and_leaves_nothing(tmp_path, mirror):
    mirror.files = {}
    with pytest.raises(OSError, match=f"404.*{NAMES[0]}"):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_users_with_another_hash_is_refused_and_left_alone(tmp_path, mirror):
    other = small_mnist(train=2)
    write(tmp_path, other)
    expected, got = datasets._MNIST[NAMES[0]], hashlib.sha256(other[NAMES[0]]).hexdigest()
    with pytest.raises(
        errors.DataError, match=f"{NAMES[0]}: expected the decompressed file to have the SHA-256 {expected}.*got {got}"
    ):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == other
    assert not mirror.hits


def test_without_pooch_a_download_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    for folder in (None, tmp_path):
        with pytest.raises(errors.MissingExtraError, match=r"pooch: pip install 'fnn\[download\]'"):
            datasets.mnist(folder, download=True)


# ---- the real thing --------------------------------------------------------------------------------------------------

FNN_DATA = os.environ.get("FNN_DATA")


def test_real_mnist_has_its_sizes_its_hashes_and_its_first_labels():
    if not FNN_DATA:
        pytest.skip("the environment variable FNN_DATA names no folder with MNIST")
    (x_train, y_train), (x_test, y_test) = datasets.mnist(FNN_DATA, download=True, url="http://127.0.0.1:9")
    assert x_train.shape == (60_000, 784)
    assert x_test.shape == (10_000, 784)
    assert x_train.dtype == x_test.dtype == np.uint8
    assert y_train.dtype == y_test.dtype == np.int32
    assert y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert x_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)  # the mean that everyone normalizes by


# ---- digits ----------------------------------------------------------------------------------------------------------


def test_digits_are_all_there_once_with_a_quarter_held_out():
    sklearn = pytest.importorskip("sklearn.datasets")
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    assert x_train.shape == (1347, 64)
    assert x_test.shape == (450, 64)
    assert y_train.shape == (1347,)
    assert y_test.shape == (450,)
    assert x_train.dtype == x_test.dtype == np.uint8
    assert y_train.dtype == y_test.dtype == np.int32
    assert x_train.min() == 0
    assert x_train.max() == 16
    source = sklearn.load_digits()
    got = np.column_stack([np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])])
    assert sorted(got.tolist()) == sorted(np.column_stack([source.data, source.target]).tolist())


def test_the_digits_held_out_are_the_same_everywhere():
    pytest.importorskip("sklearn")
    _, (x_test, y_test) = datasets.digits()
    assert y_test[:10].tolist() == [7, 3, 5, 5, 1, 3, 6, 2, 5, 6]
    assert hashlib.sha256(x_test.tobytes()).hexdigest()[:16] == "a554809f41896246"


def test_without_scikit_learn_digits_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(errors.MissingExtraError, match=r"sklearn: pip install 'fnn\[examples\]'"):
        datasets.digits()


def test_importing_the_module_imports_neither_pooch_nor_scikit_learn():
    code = "import sys; from fnn import datasets; print([m for m in ('pooch', 'sklearn') if sys.modules.get(m)])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
