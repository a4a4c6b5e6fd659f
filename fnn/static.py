"""Static objects, declared ranges, and the registry of classes.

Layers, networks, losses and initializers are frozen dataclasses that hold sizes and choices, never arrays. They are
static arguments of compiled programs: two that are equal may share one program. So value equality must be reliable, and
this module ensures it: floats are coerced (`Scale(1)` equals `Scale(1.0)`), values without reliable equality (arrays,
lists, nan) are rejected, and so is a class that inherited its equality unchanged.

The range of a number is declared beside its field, in frozen dataclasses and NamedTuples, fnn's own and yours:

    rate: Annotated[float, Interval("[0, 1)")] = 0.5
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import math
import numbers
import re
import sys
import typing
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar

import numpy as np

from . import backend
from .errors import ArgumentError, KindError, integer, real, shorten

__all__ = ["Choice", "Interval", "Static", "registered"]

# ---- ranges and choices, declared beside a field ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Interval:
    """The range of a number in mathematical notation, for use in `Annotated` beside the field that it bounds.

    Args:
        text: the interval, such as `"[0, 1)"`, `"(0, ∞)"` or, if infinity itself is allowed, `"(0, ∞]"`.

    >>> Interval("[0, 1)").check("rate", 0.5)
    0.5
    """

    text: str

    def __post_init__(self):
        if not re.fullmatch(r"[\[(][^,]+, [^,]+[\])]", self.text):
            raise ArgumentError(f"Interval: expected text such as '[0, 1)', got {shorten(self.text)}")

    def check(self, name, value, whole=False):
        """`value` as a float (with `whole=True`, an int) within the interval; raises `ArgumentError` or `KindError`."""
        low, high = (float(end.replace("∞", "inf")) for end in self.text[1:-1].split(", "))
        if whole:
            least = low if math.isinf(low) else math.ceil(low) + (self.text[0] == "(" and low == math.ceil(low))
            value = integer(name, value, least=least)  # type: ignore[arg-type] - or minus infinity
        if high == math.inf and self.text.endswith("]") and value == math.inf:
            return math.inf
        bounds = {"least" if self.text[0] == "[" else "above": low, "most" if self.text[-1] == "]" else "below": high}
        number = real(name, value, **bounds)
        return value if whole else number


_T = TypeVar("_T")
_CHOICE = "choice"
Choice = Annotated[_T, _CHOICE]
"""`steps: Choice[int] = 5` declares a field of a rule or optimizer as static, not a number that may be traced."""


class Field(typing.NamedTuple):
    """The declaration of a field: its `Interval` or None, whether it holds an int, is a `Choice`, and holds a bool."""

    interval: Interval | None
    whole: bool
    choice: bool
    flag: bool = False


@functools.lru_cache(maxsize=1024)
def declared(cls) -> dict[str, Field]:
    """The declarations of the fields of a dataclass or NamedTuple, inherited ones included, by name."""
    result = {}
    for base in reversed(cls.__mro__):
        scope = vars(sys.modules.get(base.__module__, typing))
        for name, hint in inspect.get_annotations(base).items():
            if isinstance(hint, str):  # written under `from __future__ import annotations`
                try:
                    hint = eval(hint, dict(scope), dict(vars(base)))
                except Exception:  # a name of a local scope, say
                    hint = Choice[Any] if hint.partition("[")[0].endswith("Choice") else Any
            extras = getattr(hint, "__metadata__", ())
            interval = next((extra for extra in extras if isinstance(extra, Interval)), None)
            kind = getattr(hint, "__origin__", hint)
            result[name] = Field(interval, kind is int, _CHOICE in extras, kind is bool)
    return result


def check_ranges(thing, place=None):
    """Raise unless each number in a NamedTuple, and in the NamedTuples inside it, lies in its declared interval.

    Tracers are skipped. If a field with an interval holds a tree of numbers, each leaf must lie in the interval. A
    choice that is declared as a bool is True or False.
    """
    place = place or type(thing).__name__
    for name, field in declared(type(thing)).items():
        if name in getattr(thing, "_fields", ()):
            _check_field(f"{place}.{name}", getattr(thing, name), field)


def _check_field(place, value, field):
    if isinstance(value, backend.Held):
        value = value.thing
    if field.choice and backend.is_traced(value):
        raise KindError(
            f"{place}: expected a static choice, got a traced value; a sweep is over numbers and keys alone"
        )
    if field.flag and field.choice and not isinstance(value, bool):
        raise KindError(f"{place}: expected True or False, got {shorten(value)}")
    if hasattr(value, "_fields"):
        check_ranges(value, place)
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            _check_field(f"{place}[{i}]", item, field)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_field(f"{place}[{key!r}]", item, field)
    elif field.interval is not None and value is not None and not backend.is_traced(value):
        for number in np.ravel(value).tolist() if hasattr(value, "dtype") else [value]:
            field.interval.check(place, number, field.whole)


def unwrapped(thing) -> Any:
    """A rule or optimizer with its choices as the user gave them, including those of what is inside it."""
    if isinstance(thing, backend.Held):
        return thing.thing
    if hasattr(thing, "_fields"):
        return thing._replace(**{name: unwrapped(value) for name, value in thing._asdict().items()}) if thing else thing
    if isinstance(thing, tuple | list):
        return type(thing)(unwrapped(value) for value in thing)
    return {key: unwrapped(value) for key, value in thing.items()} if isinstance(thing, dict) else thing


# ---- frozen dataclasses ----------------------------------------------------------------------------------------------

_REGISTRY: dict[str, type] = {}


def registered(base=object):
    """The classes of layers, losses and initializers that extend `base`, by qualified name, in order of definition.

    Defining a class registers it; defining it again, as in a notebook, replaces the earlier one.

    Args:
        base: the class that they extend. Default: any.

    Returns:
        A dict of classes.

    >>> from fnn import Loss
    >>> "fnn.losses.distances.Huber" in registered(Loss)
    True
    """
    return {name: cls for name, cls in _REGISTRY.items() if issubclass(cls, base)}


def instead(thing, base) -> str:
    """A hint for a message: the object to write in place of its class, its name, or a function of that name.

    >>> from fnn import Layer
    >>> instead("relu", Layer), instead(np.tanh, Layer), instead(3, Layer)
    ('; write fnn.Relu()', '; write fnn.Tanh()', '')
    """
    if isinstance(thing, type) and issubclass(thing, base):
        cls: Any = thing
    else:
        own = [cls for cls in registered(base).values() if cls.__module__.startswith("fnn.")]
        name = thing if isinstance(thing, str) else getattr(thing, "__name__", type(thing).__name__)
        cls = {cls.__name__.lower(): cls for cls in own}.get(str(name).replace("_", "").lower())
    if cls is None or isinstance(thing, cls):
        return ""
    required = any(f.default is MISSING and f.default_factory is MISSING for f in fields(cls))
    package = "fnn." if cls.__module__.startswith("fnn.") else ""
    return f"; write {package}{cls.__name__}({'...' * required})"


def namedtuples():
    """All existing classes of NamedTuples and records by qualified name; of two of one name, the later definition."""
    result, stack = {}, [tuple, backend.Record]
    while stack:
        for cls in stack.pop().__subclasses__():
            stack.append(cls)
            if isinstance(getattr(cls, "_fields", None), tuple):
                result[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return result


def make_exportable(package="fnn."):
    """Register a package's nodes of trees with `jax.export`, so that programs that have them can be serialized.

    Your own need `jax.export.register_namedtuple_serialization(YourParams, serialized_name="YourParams")`.
    """
    if backend.jax is None:
        return
    export = backend.jax.export
    with contextlib.suppress(ValueError):  # they are registered already, if the package is loaded anew
        for name, cls in namedtuples().items():
            if name.startswith(package):
                if issubclass(cls, tuple):
                    export.register_namedtuple_serialization(cls, serialized_name=f"fnn.{cls.__name__}")
                else:
                    export.register_pytree_node_serialization(
                        cls,
                        serialized_name=f"fnn.{cls.__name__}",
                        serialize_auxdata=lambda _: b"",
                        deserialize_auxdata=lambda _: None,
                        from_children=lambda _, values, cls=cls: cls._make(values),
                    )
        export.register_pytree_node_serialization(
            backend.Held,
            serialized_name="fnn.Held",
            serialize_auxdata=_choice_as_bytes,
            deserialize_auxdata=lambda text: backend.Held(json.loads(text)),
            from_children=lambda held, _: held,
        )


def _choice_as_bytes(held):
    if not isinstance(held.thing, bool | int | float | str | None):
        raise KindError(f"jax.export: expected a choice of a number, text, True or False, got {shorten(held)}")
    return json.dumps(held.thing).encode()


class Static:
    """Base class of layers, losses and initializers: checks and coerces the fields of dataclasses that extend it."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        name = f"{cls.__module__}.{cls.__qualname__}"
        _REGISTRY.pop(name, None)
        _REGISTRY[name] = cls
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Static.__repr__  # dataclass keeps an existing one

    def __repr__(self):
        """The call that creates the object, without fields that have their default values."""
        shown = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING and field.default_factory is MISSING and not field.kw_only:
                shown.append(repr(value))
            elif value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __post_init__(self):
        check_static(self)
        for name, kind in _kinds(type(self)).items():
            object.__setattr__(self, name, _settle(f"{type(self).__name__}.{name}", getattr(self, name), kind))
        for name, field in declared(type(self)).items():
            if field.interval is not None and name in self.__dataclass_fields__:  # type: ignore[attr-defined]
                _check_field(name, getattr(self, name), field)


def check_static(thing):
    """Raise unless the class of `thing` itself, not just a parent, is a frozen dataclass."""
    own = type(thing).__dict__.get("__dataclass_params__")
    if own is None or not own.frozen or not own.eq:
        raise KindError(
            f"{type(thing).__name__}: expected a frozen dataclass; write @dataclass(frozen=True) above the class, "
            f"since otherwise it would compare equal to its parent and share the parent's compiled program"
        )


@functools.lru_cache(maxsize=1024)
def _kinds(cls) -> dict[str, str]:
    """The texts of the annotations of a dataclass's fields, by name."""
    return {field.name: _kind(field.type) for field in fields(cls)}


def _kind(hint):
    """The text of an annotation, without what `Annotated` adds to it."""
    hint = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint
    return re.sub(r"^(?:typing\.)?Annotated\[(.*?), .*\]$", r"\1", hint if isinstance(hint, str) else str(hint))


def _settle(name, value, annotation):
    """The value of one field, coerced to the type of its annotation; raises if it has no reliable equality."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None and annotation.endswith(" | None"):
        return None
    annotation = annotation.removesuffix(" | None")
    if annotation in ("bool", "<class 'bool'>"):
        if not isinstance(value, numbers.Real) or value not in (0, 1):
            raise KindError(f"{name}: expected True or False, got {shorten(value)}")
        return bool(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if "float" in annotation:
            value = float(value)
        elif annotation in ("int", "<class 'int'>") and not isinstance(value, int):
            raise KindError(f"{name}: expected an integer, got {shorten(value)}")
        if isinstance(value, float) and math.isnan(value):
            raise ArgumentError(f"{name}: expected a number, got nan (nan is not equal to itself)")
        return value
    if annotation in ("int", "float", "<class 'int'>", "<class 'float'>"):
        raise KindError(f"{name}: expected {'an integer' if 'int' in annotation else 'a number'}, got {shorten(value)}")
    if isinstance(value, tuple):
        of_items = re.fullmatch(r"tuple\[(.*), \.\.\.\]", annotation)
        settled = [_settle(f"{name}[{i}]", item, of_items[1] if of_items else "") for i, item in enumerate(value)]
        return type(value)(*settled) if hasattr(value, "_fields") else tuple(settled)
    if isinstance(value, list):
        raise KindError(f"{name}: expected a tuple, got a list: {shorten(value)}; write {shorten(tuple(value))}")
    if hasattr(value, "__array__") or hasattr(value, "__array_namespace__"):
        raise KindError(f"{name}: expected a static value, got an array; arrays belong in the parameters")
    try:
        hash(value)
    except TypeError:
        raise KindError(f"{name}: expected a hashable value, got {shorten(value)}") from None
    return value
