"""Sources: arrays that lie in files, `np.memmap` and what is cut from it.

They stay there: only the rows that are asked for come into memory, and their pages are given back.
"""

import mmap
from typing import Any

import numpy as np

_ROWS = 64  # are read before their pages are given back: with each up to 2 MiB come that lie beside it


def mapped(array) -> Any:
    """The `np.memmap` of a whole file in which an array lies, or None."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = array.base
    return None


def rows(array, index):
    """`array[index]` in memory, of indices or a slice; of a file, read in the order in which they lie there."""
    file = mapped(array)
    if file is None:
        return array[index]
    if isinstance(index, slice):
        result = np.array(array[index])
        _give_back(file)
        return result
    result = np.empty((len(index), *array.shape[1:]), array.dtype)
    for part in np.split(np.argsort(index), range(_ROWS, len(index), _ROWS)):
        _expect(array, file, index[part])
        result[part] = array[index[part]]
        _give_back(file)
    return result


def _expect(array, file, index):
    """Tell the system which rows will be read: it then fetches them side by side."""
    if hasattr(mmap, "MADV_WILLNEED"):
        first = array.ctypes.data - file.ctypes.data + file.offset % mmap.ALLOCATIONGRANULARITY
        for start in (first + index.astype(np.int64) * array.strides[0]).tolist():
            in_page = start % mmap.PAGESIZE
            file.base.madvise(mmap.MADV_WILLNEED, start - in_page, in_page + array[:1].nbytes)


def _give_back(file):
    """Let go of the pages that were read; those that a copy-on-write mapping has changed are nowhere else."""
    if file.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        file.base.madvise(mmap.MADV_DONTNEED)
