"""Files are read exactly or refused by name, in bounded memory; downloads are believed only after their SHA-256."""

import contextlib
import gzip
import hashlib
import http.server
import os
import struct
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from fnn import datasets, errors

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
    """A gzip file of `start` and then zeros, a thousandth of its unpacked size."""
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

WRONG_INSIDE = [  # what is wrong, the unpacked bytes, what was expected and what was found
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
        errors.DataError, match=r"the-file: expected a whole gzip file, got one that is cut off or corrupt: ."
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
    expected = r"the-file: expected \d+(\.\.\.)? bytes .*got 100 bytes"
    with peak_below(FEW), pytest.raises(errors.DataError, match=expected) as caught:
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
    """A server of four small files, their hashes in the table; `contents` are the unpacked bytes."""
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
    with pytest.raises(errors.DataError, match=f"{mirror.url}/{bad}.gz: .*expected the SHA-256 {expected}.*got {got}"):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{name}.gz" for name in NAMES[: NAMES.index(bad)])
    mirror.files[f"/some/where/{bad}.gz"] = packed(mirror.contents[bad])
    assert_is_mnist(datasets.mnist(tmp_path, download=True, url=mirror.url), mirror.contents)


@pytest.mark.parametrize("data", [b"", b"<html>moved</html>", GZ[:-1]], ids=["nothing", "a web page", "cut off"])
def test_a_download_of_something_else_is_removed(tmp_path, mirror, data):
    mirror.files[f"/some/where/{NAMES[0]}.gz"] = data
    with pytest.raises(errors.DataError, match=f"{mirror.url}/{NAMES[0]}.gz: .*expected"):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert not list(tmp_path.iterdir())


def test_a_download_that_is_a_gzip_bomb_is_removed_without_the_memory(tmp_path, mirror):
    largest = bomb(tmp_path / "bomb", b"", 64)
    mirror.files[f"/some/where/{NAMES[0]}.gz"] = largest.read_bytes()
    with pytest.raises(
        errors.DataError, match=f"{NAMES[0]}.gz: expected at most 47040016 bytes when unpacked, got more"
    ):
        datasets.mnist(tmp_path / "folder", download=True, url=mirror.url)
    assert not list((tmp_path / "folder").iterdir())
    with peak_below(FEW), pytest.raises(errors.DataError, match="got more"):
        datasets._check_sha256(largest, "")


def test_a_server_without_the_file_is_an_os_error_and_leaves_nothing(tmp_path, mirror):
    mirror.files = {}
    with pytest.raises(OSError, match=f"404.*{NAMES[0]}"):
        datasets.mnist(tmp_path, download=True, url=mirror.url)
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_users_with_another_hash_is_refused_and_left_alone(tmp_path, mirror):
    other = small_mnist(train=2)
    write(tmp_path, other)
    expected, got = datasets._MNIST[NAMES[0]], hashlib.sha256(other[NAMES[0]]).hexdigest()
    with pytest.raises(errors.DataError, match=f"{NAMES[0]}: expected the SHA-256 {expected}.*got {got}"):
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
