"""Faults of what several devices and processes share, and the checks that have to find them, on NumPy alone."""

import zlib

import numpy as np
import pytest
from planting import Fault, given, instead

from fnn import errors, processes, sharding
from fnn.checkpoints import shards
from fnn.checkpoints.shards import Shards
from fnn.training import setting

W = np.arange(12.0).reshape(4, 3)


# ---- checks ----------------------------------------------------------------------------------------------------------


def joined():
    """Two rows in the first file, two in the second, and a step in the first alone."""
    files = [(Shards(W.shape, (W[2 * i : 2 * i + 2],), ((2 * i, 0),)), {"step": [5, None][i]}) for i in range(2)]
    w, rest = shards._joined(files, "folder")
    assert (w == W).all(), "the array: other entries"
    assert rest == {"step": 5}, "the rest: other numbers"


def written_once():
    """What is not divided is written by the first process, and by no other."""
    assert shards._own_part(W, 0) is W, "the first process: it writes nothing"
    assert shards._own_part(W, 1) is None, "the second process: it writes too"


def agreed():
    each, processes.of_each = processes.of_each, lambda number: [number, 4]
    try:
        processes.check_agreed("the step", 4)
        with pytest.raises(errors.CheckpointError):
            processes.check_agreed("the step", 3)
    except pytest.fail.Exception as error:
        raise AssertionError("the step: it may differ") from error
    finally:
        processes.of_each = each


def divided():
    """The largest axis that the devices divide."""
    cases = {(10, 7): ["data", None], (7, 3): [None, None], (4, 8): [None, "data"], (1, 6): [None, "data"]}
    for shape, spec in cases.items():
        assert sharding._largest(shape, 2) == spec, f"the axes: {shape}"


def told_apart():
    """The CRC-32 of all shares, from that of each."""
    for sizes in ((3, 5, 1000), (1000, 3, 5), (4, 0, 2)):
        parts = [bytes(range(i, i + size % 200)) * (1 + size // 200) for i, size in enumerate(sizes)]
        total = 0
        for part in parts:
            total = setting.joined_crc(total, zlib.crc32(part), len(part))
        assert total == zlib.crc32(b"".join(parts)), "the CRC-32: another one"


# ---- the table -------------------------------------------------------------------------------------------------------

no_starts = lambda node: node._replace(starts=((0, 0),)) if isinstance(node, Shards) else node

FAULTS = [
    Fault("each part at the beginning", shards, "_joined", given(lambda nodes, folder: (
          [tuple(map(no_starts, node)) if isinstance(node, tuple) else node for node in nodes]
          if not isinstance(nodes[0], Shards) else [no_starts(node) for node in nodes], folder)), joined),
    Fault("the last file in place of each", shards, "_joined", given(lambda nodes, folder: (
          nodes[-1:] * 2, folder)), joined),
    Fault("everything from everyone", shards, "_own_part", instead(lambda leaf, index: leaf), written_once),
    Fault("nothing from the first", shards, "_own_part", given(lambda leaf, index: (leaf, index + 1)), written_once),
    Fault("any steps agree", processes, "check_agreed", instead(lambda what, number: None), agreed),
    Fault("the first axis that can be", sharding, "_largest", instead(lambda shape, parts: (
          lambda first: ["data" if i == first else None for i in range(len(shape))])(
              next((i for i, size in enumerate(shape) if size % parts == 0), None))), divided),
    Fault("the largest axis, divided or not", sharding, "_largest", instead(lambda shape, parts: [
          "data" if i == int(np.argmax(shape)) else None for i in range(len(shape))]), divided),
    Fault("in any order", setting, "joined_crc", instead(lambda first, second, size: first ^ second), told_apart),
    Fault("one byte fewer", setting, "joined_crc", given(lambda first, second, size: (
          first, second, max(0, size - 1))), told_apart),
    Fault("a product without its modulus", setting, "_product", instead(lambda a, b: (a * b) & 0xFFFFFFFF), told_apart),
]  # fmt: skip
