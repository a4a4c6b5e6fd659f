"""Errors, whose messages say what was expected, what was received, and where.

There are five kinds of mistake, each a `ValueError` or a `TypeError`: shapes that do not fit (`ShapeError`), values in
the data that cannot be learnt from (`DataError`), arguments out of range (`ArgumentError`), objects of the wrong kind
(`KindError`) and files that cannot be trusted (`CheckpointError`). A composition prefixes the place of the layer to an
error that passes through it.
"""

import functools
import importlib
import inspect
import math
import numbers
import operator
import re
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "FnnError",
    "KindError",
    "MissingExtraError",
    "ShapeError",
]


class FnnError(Exception):
    """Base class of all errors that fnn raises."""

    def at(self, place):
        """The same error, prefixed with its place: `layers[1] Dense: expected ...`."""
        self.args = (f"{place}: {self}",)
        return self


class ShapeError(FnnError, ValueError):
    """An array, or a tree of arrays, does not have the required shape."""


class DataError(FnnError, ValueError):
    """The data contain a value that cannot be learnt from, such as NaN, an infinity or a label out of range."""


class ArgumentError(FnnError, ValueError):
    """An argument is out of range."""


class KindError(FnnError, TypeError):
    """An object has the wrong type or dtype."""


class CheckpointError(FnnError, ValueError):
    """A file cannot be trusted to be a checkpoint, or could not be written."""


class DivergenceError(FnnError, ArithmeticError):
    """The loss or a parameter of a run became NaN or infinite.

    `state` is the state before that step, `history` the history of `fit` for the epochs before.
    """

    def __init__(self, message, state=None, history=None):
        super().__init__(message)
        self.state, self.history = state, history


class MissingExtraError(FnnError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


def require(module, extra):
    """Import an optional package, or raise an error that names the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"this needs {module.partition('.')[0]}: pip install 'fnn[{extra}]'") from error


def shorten(thing, limit=60):
    """The `repr` of an object, shortened to fit into a message."""
    text = " ".join(repr(thing).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def encodable(text, stream):
    """The text with ? for each character that a stream cannot encode, such as δ on a terminal without Unicode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


_T = TypeVar("_T")


def usage(example: str) -> Callable[[_T], _T]:
    """A decorator for a function or class: if a call does not fit its signature, the error says what to write instead.

    >>> @usage("area((width, height))")
    ... def area(sides): ...
    >>> area(2, 3)
    Traceback (most recent call last):
    fnn.errors.KindError: area() takes 1 positional argument but 2 were given; write area((width, height))
    """

    def decorate(thing: Any) -> Any:
        if isinstance(thing, type):
            if issubclass(thing, tuple):  # a NamedTuple
                thing.__new__ = staticmethod(decorate(thing.__new__))  # type: ignore[assignment]
            else:
                thing.__init__ = decorate(thing.__init__)  # type: ignore[misc]
            return thing

        @functools.wraps(thing)
        def call(*args, **kwargs):
            try:
                return thing(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ and error.__traceback__.tb_next:  # raised inside, not by the call itself
                    raise
                what = re.sub(r"\.(<locals>|__init__|__new__)", "", str(error))
                names = [name for name in inspect.signature(thing).parameters if name not in ("self", "_cls")]
                known = f"; the arguments are {', '.join(names)}" if "unexpected keyword" in what else ""
                if "'class_weight'" in what:  # of Keras
                    what += "; weights are data: (x, y, fnn.class_weights(y))"
                raise KindError(f"{what}; write {example}{known}") from None

        return call

    return decorate


def integer(name, value, least=0):
    """`value` as an int; raises unless it is an integer of at least `least`."""
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
    """`value` as a float; raises unless it is finite, `least <= value <= most` and `above < value < below`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise KindError(f"{name}: expected a real number, got {shorten(value)}")
    number = float(value)
    if not (math.isfinite(number) and least <= number <= most and above < number < below):
        low = f" {name} > {above:g}" if above > -math.inf else f" {name} >= {least:g}" if least > -math.inf else ""
        high = f" {name} < {below:g}" if below < math.inf else f" {name} <= {most:g}" if most < math.inf else ""
        bounds = f" with{low}{' and' * bool(low and high)}{high}" if low or high else ""
        raise ArgumentError(f"expected a finite number{bounds}, got {name} = {number:g}")
    return number


def shape(name, value, several=False) -> Any:
    """A shape without its batch axis, as a tuple of positive ints.

    For several inputs it is sorted pairs (name, shape); a layer that takes a single array refuses them.
    """
    if isinstance(value, dict) or hasattr(value, "_fields"):
        value = tuple((value if isinstance(value, dict) else value._asdict()).items())
    if (
        isinstance(value, tuple)
        and value
        and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    ):
        value = tuple((key, shape(f"{name}[{key!r}]", inner)) for key, inner in sorted(value))
        if not several:
            raise ShapeError(
                f"expected one array, got several, {shown(value)}; fnn.Parallel(..., inputs=...) and fnn.Last choose"
            )
        return value
    if not isinstance(value, tuple | list) or (value and value[0] is None):
        hint = "; write x.shape[1:]" if hasattr(value, "shape") else ""
        if isinstance(value, int):
            hint = f"; write ({value},)"
        elif isinstance(value, tuple | list):
            hint = f"; write {tuple(value[1:])}"
        raise KindError(
            f"{name}: expected a tuple of sizes without the batch axis, such as (784,), got {shorten(value)}{hint}"
        )
    return tuple(integer(f"{name}[{axis}]", size, least=1) for axis, size in enumerate(value))


def shown(shape, n: Any = "N") -> str:
    """The shape of n examples for a message: `(N, 5)` or, for several inputs, `{'a': (N, 5), 'b': (N,)}`."""
    if shape and isinstance(shape[0], tuple):
        return "{" + ", ".join(f"{name!r}: {shown(inner, n)}" for name, inner in shape) + "}"
    return f"({n}, {', '.join(map(str, shape))})" if shape else f"({n},)"


def same_shape(name, array, expected):
    """Raise unless `array` has the expected shape."""
    if tuple(array.shape) != tuple(expected):
        raise ShapeError(f"{name}: expected shape {tuple(expected)}, got {tuple(array.shape)}")
