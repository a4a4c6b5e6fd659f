"""The examples of an estimator: their weights, those that are held out, and rows of sparse matrices.

Letters: n examples of K features.
"""

import math
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from .. import checks, examples, gate
from ..errors import ArgumentError, KindError, same_shape
from ..layers import Standardize

# ---- weights, and what is held out -----------------------------------------------------------------------------------


def relative(weights: Any, n: int, name: str = "sample_weight") -> np.ndarray:
    """The weights of n examples, checked, relative to the largest, so that only their ratios matter."""
    weights = checks.as_array(name, weights, np)
    if weights.dtype.kind == "c":
        raise KindError(f"{name}: expected real numbers, got dtype {weights.dtype}")
    weights = np.broadcast_to(weights, n) if weights.ndim == 0 else weights
    same_shape(name, weights, (n,))
    checks.finite(name, weights)
    checks.not_negative(name, weights)
    if not weights.any():
        raise ArgumentError(f"{name}: expected at least one weight above 0, and all are zero")
    return weights / weights.max().astype(np.float64)


def held_out(n: int, fraction: float, chance: Any, weights: Any = None, labels: Any = None) -> tuple[Any, Any]:
    """The indices of the examples for training, and of those that are held out, ⌈fraction · n⌉ of n.

    With labels (n,), the classes have the same shares in both as far as that can be had: a class of one example is
    trained on; and if fewer are held out than there are classes, they are drawn without regard to class. Examples of
    weight 0 do not count.
    """
    pool = np.arange(n) if weights is None else np.flatnonzero(weights)
    count = max(math.ceil(len(pool) * fraction), min(2, math.ceil(n * fraction)))
    if not 2 <= count < len(pool):
        of = "" if weights is None else " with a sample_weight above 0"
        raise ArgumentError(
            f"validation_fraction: expected a fraction that holds out at least 2 examples{of}, and leaves at least 1, "
            f"got {count} of {len(pool)}; early_stopping=False holds out nothing"
        )
    stratify = None
    if labels is not None:
        _, place, sizes = np.unique(labels[pool], return_inverse=True, return_counts=True)
        several = pool[sizes[place] > 1]
        pool = several if len(several) > count else pool
        classes, least = len(sizes) - (sizes == 1).sum(), min(count, len(pool) - count)
        stratify = labels[pool] if pool is several and classes <= least else None
    used, held = train_test_split(pool, test_size=count, random_state=chance, stratify=stratify)
    return np.concatenate([used, np.setdiff1d(np.arange(n), pool)]), held


# ---- sparse matrices -------------------------------------------------------------------------------------------------


class Rows:
    """The rows of a sparse matrix (n, K), which are made dense, and standardized by constants, when they are read."""

    ndim = 2

    def __init__(self, matrix: Any, constants: Any = None, dtype: Any = None):
        self.matrix, self.constants = matrix, constants
        self.shape, self.dtype = matrix.shape, np.dtype(matrix.dtype if dtype is None else dtype)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        rows = self.matrix[index].toarray().astype(self.dtype, copy=False)
        return rows if self.constants is None else Standardize().apply(self.constants, rows)

    @property
    def at_once(self) -> int:
        """How many rows may be dense at a time."""
        return max(1, examples.AT_ONCE // (self.shape[1] * self.dtype.itemsize))


class RowData(examples.Data):
    """Examples whose x is `Rows`: the loop reads them a few batches at a time, as if they were in a file."""

    @property
    def streamed(self) -> bool:
        return True


def readable(matrix: Any) -> Any:
    """A sparse matrix as an array if that is small, else as `Rows`; anything else as it is."""
    if not hasattr(matrix, "toarray"):
        return matrix
    rows = Rows(matrix)
    return rows[:] if len(rows) <= rows.at_once else rows


def standardized(examples: Any, constants: Any, dtype: Any) -> Any:
    """An array or `Rows`, standardized by the constants, in that dtype."""
    if isinstance(examples, Rows):
        return Rows(examples.matrix, constants, dtype)
    return Standardize().apply(constants, examples.astype(dtype))


def admitted(net: Any, loss: Any, params: Any, X: Any, targets: Any, weights: Any) -> examples.Data:
    """The examples, checked by the gate; `Rows` are checked in pieces, and stay sparse."""
    if not isinstance(X, Rows):
        return gate.dataset(net, loss, params, (X, targets, weights))
    data = RowData(X, targets, weights)
    for _, piece in data.pieces():
        gate.dataset(net, loss, params, tuple(piece))
    return data
