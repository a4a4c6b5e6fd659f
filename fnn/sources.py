"""Sources: memory-mapped arrays, that is, `np.memmap` and slices of it.

The data stay in their files: only the requested rows are read into memory, and their pages are released afterwards.
"""

import mmap
from typing import Any

import numpy as np

_ROWS = 64  # rows are read before pages are released, since up to 2 MiB of neighbouring data come with each


def mapped(array) -> Any:
    """The `np.memmap` of the whole file that an array is a slice of, or None."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = array.base
    return None


def rows(array, index):
    """`array[index]` in memory, for indices or a slice; a file is read in the order of its rows."""
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
    """Tell the operating system which rows will be read, so that it fetches them in parallel."""
    if hasattr(mmap, "MADV_WILLNEED"):
        first = array.ctypes.data - file.ctypes.data + file.offset % mmap.ALLOCATIONGRANULARITY
        for start in (first + index.astype(np.int64) * array.strides[0]).tolist():
            in_page = start % mmap.PAGESIZE
            file.base.madvise(mmap.MADV_WILLNEED, start - in_page, in_page + array[:1].nbytes)


def _give_back(file):
    """Release the pages that were read, except in a copy-on-write mapping, whose changes exist nowhere else."""
    if file.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        file.base.madvise(mmap.MADV_DONTNEED)
