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

import numpy as np


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


def real(name, value, least=-math.inf, below=math.inf, above=-math.inf):
    """`value` as a finite float with `least <= value < below` and `above < value`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise KindError(f"{name}: expected a real number, got {shorten(value)}")
    number = float(value)
    if not (math.isfinite(number) and least <= number < below and above < number):
        low = f" {name} > {above:g}" if above > -math.inf else f" {name} >= {least:g}" if least > -math.inf else ""
        high = f" {name} < {below:g}" if below < math.inf else ""
        bounds = f" with{low}{' and' * bool(low and high)}{high}" if low or high else ""
        raise ArgumentError(f"expected a finite number{bounds}, got {name} = {number:g}")
    return number


def shape(name, value):
    """A shape without its batch axis, as a tuple of positive ints."""
    if not isinstance(value, tuple | list):
        raise KindError(
            f"{name}: expected a tuple of sizes without the batch axis, such as (784,), got {shorten(value)}"
        )
    return tuple(integer(f"{name}[{axis}]", size, least=1) for axis, size in enumerate(value))


def same_shape(name, array, expected):
    """Raise unless `array` has the shape expected."""
    if tuple(array.shape) != tuple(expected):
        raise ShapeError(f"{name}: expected shape {tuple(expected)}, got {tuple(array.shape)}")


def on_host(array):
    """A concrete array as one of NumPy's, where that shares its memory: there a check needs no compilation."""
    if isinstance(array, np.ndarray) or not array.is_fully_addressable:
        return array
    return np.asarray(array) if all(device.platform == "cpu" for device in array.devices()) else array


def finite(name, array):
    """Raise if a concrete floating array holds NaN or an infinity, naming the first place that does."""
    array = on_host(array)
    if isinstance(array, np.ndarray) and array.dtype in (np.float32, np.float64):
        flat = array.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(
                np.dot(flat, flat)
            ):  # many times faster than isfinite; large finite values overflow and go on
                return
    if not bool(array.__array_namespace__().isfinite(array).all()):
        values = np.asarray(array).astype(np.float64)
        bad = np.argwhere(~np.isfinite(values))
        place = ", ".join(str(i) for i in bad[0])
        raise DataError(
            f"{name}: expected finite numbers, got {values[tuple(bad[0])]} at {name}[{place}] "
            f"({len(bad)} of {array.size} are not finite as {array.dtype})"
        )


def not_negative(name, array):
    """Raise if a concrete array (N,) holds a number below 0, naming the first."""
    negative = on_host(array) < 0
    if bool(negative.any()):
        row = int(negative.argmax())
        raise DataError(f"{name}: expected numbers of at least 0, got {array[row]} at {name}[{row}]")
