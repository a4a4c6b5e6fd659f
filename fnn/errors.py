"""What a user can get wrong, said clearly: what was expected, what came, and where.

Five kinds of mistake, each a `ValueError` or a `TypeError`: shapes that do not fit (`ShapeError`), values in the data
that cannot be learnt from (`DataError`), arguments out of their range (`ArgumentError`), things of the wrong kind
(`KindError`) and files that cannot be trusted (`CheckpointError`). A composition adds the place of the layer in front
while the error passes through it.
"""

import importlib
import math
import numbers
import operator
from typing import Any


class FnnError(Exception):
    """Base of the errors that fnn raises; see the module's docstring."""

    def at(self, place):
        """The same error with its place put in front: `layers[1] Dense: expected ...`."""
        self.args = (f"{place}: {self}",)
        return self


class ShapeError(FnnError, ValueError):
    """An array, or a tree of arrays, has not the shape that it must have."""


class DataError(FnnError, ValueError):
    """The data hold a value that cannot be learnt from: NaN, an infinity, a label out of range, or nothing at all."""


class ArgumentError(FnnError, ValueError):
    """An argument lies outside its range."""


class KindError(FnnError, TypeError):
    """A thing of another kind was expected: another type, or another dtype."""


class CheckpointError(FnnError, ValueError):
    """A file cannot be trusted to be a checkpoint, or could not be written."""


class DivergenceError(FnnError, ArithmeticError):
    """A run went where its numbers are not finite.

    `state` is that before the step that went wrong, `history` what `fit` had to tell of the epochs before.
    """

    def __init__(self, message, state=None, history=None):
        super().__init__(message)
        self.state, self.history = state, history


class MissingExtraError(FnnError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def require(module, extra):
    """Import an optional package, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"this needs {module.partition('.')[0]}: pip install 'fnn[{extra}]'") from error


def shorten(thing, limit=60):
    """A `repr` that fits into a message."""
    text = " ".join(repr(thing).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def integer(name, value, least=0):
    """`value` as an int of at least `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise KindError(f"{name}: expected an integer, got {shorten(value)}") from None
    if value < least:
        raise ArgumentError(f"{name}: expected an integer of at least {least}, got {value}")
    return value


def real(name, value, least=-math.inf, below=math.inf, above=-math.inf, most=math.inf):
    """`value` as a float with `least <= value <= most` and `above < value < below`, and finite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise KindError(f"{name}: expected a real number, got {shorten(value)}")
    number = float(value)
    if not (math.isfinite(number) and least <= number <= most and above < number < below):
        low = f" {name} > {above:g}" if above > -math.inf else f" {name} >= {least:g}" if least > -math.inf else ""
        high = f" {name} < {below:g}" if below < math.inf else f" {name} <= {most:g}" if most < math.inf else ""
        bounds = f" with{low}{' and' * bool(low and high)}{high}" if low or high else ""
        raise ArgumentError(f"expected a finite number{bounds}, got {name} = {number:g}")
    return number


def shape(name, value) -> Any:
    """A shape without its batch axis: positive ints; of several inputs a sorted tuple of pairs (name, shape)."""
    if isinstance(value, dict) or hasattr(value, "_fields"):
        value = tuple((value if isinstance(value, dict) else value._asdict()).items())
    if (
        isinstance(value, tuple)
        and value
        and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    ):
        return tuple((key, shape(f"{name}[{key!r}]", inner)) for key, inner in sorted(value))
    if not isinstance(value, tuple | list):
        raise KindError(
            f"{name}: expected a tuple of sizes without the batch axis, such as (784,), got {shorten(value)}"
        )
    return tuple(integer(f"{name}[{axis}]", size, least=1) for axis, size in enumerate(value))


def same_shape(name, array, expected):
    """Raise unless `array` has the shape expected."""
    if tuple(array.shape) != tuple(expected):
        raise ShapeError(f"{name}: expected shape {tuple(expected)}, got {tuple(array.shape)}")
