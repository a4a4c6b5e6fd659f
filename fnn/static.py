"""Static things: frozen dataclasses that hold sizes and choices, never arrays, and compare by value.

A layer, a network, a loss and an initializer are static: two that are equal may share one compiled program. So value
equality has to be trustworthy, and this module keeps it so: floats are coerced (`Scale(1)` equals `Scale(1.0)`), and
what has no dependable equality (arrays, lists, nan) is refused, as is a class that inherited its equality unchanged.
"""

import ast
import math
import numbers
import re
import warnings
from dataclasses import MISSING, fields

import numpy as np

from .errors import ArgumentError, FnnError, KindError, shorten


class Static:
    """Base of layers, losses and initializers: checks and coerces the fields of the dataclass that extends it."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Static.__repr__  # a dataclass keeps the one that it finds

    def __repr__(self):
        """As one would write it: what has its default value is left out."""
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
        for field in fields(self):  # type: ignore[arg-type]
            value = _settle(f"{type(self).__name__}.{field.name}", getattr(self, field.name), str(field.type))
            object.__setattr__(self, field.name, value)


def check_static(thing):
    """Raise unless the own class of `thing`, not only a parent of it, is a frozen dataclass."""
    own = type(thing).__dict__.get("__dataclass_params__")
    if own is None or not own.frozen or not own.eq:
        raise KindError(
            f"{type(thing).__name__}: expected a frozen dataclass; write @dataclass(frozen=True) above the class, "
            f"since otherwise it would compare equal to its parent and share the parent's compiled program"
        )


def _settle(name, value, annotation):
    """The value of one field, coerced to the number that its annotation names, and refused if it has no equality."""
    if isinstance(value, np.generic):
        value = value.item()
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
        raise KindError(f"{name}: expected a tuple, got a list: {shorten(value)}")
    if hasattr(value, "__array__") or hasattr(value, "__array_namespace__"):
        raise KindError(f"{name}: expected a static value, got an array; arrays belong into the parameters")
    try:
        hash(value)
    except TypeError:
        raise KindError(f"{name}: expected a hashable value, got {shorten(value)}") from None
    return value


def rebuild(text, classes):
    """What `repr` wrote, from classes by name: calls of these with numbers, strings, None and tuples, and no more.

    >>> from fnn import Dense, Serial
    >>> rebuild("Serial((Dense(3, bias=False),))", {"Serial": Serial, "Dense": Dense})
    Serial((Dense(3, bias=False),))
    """
    what = f"expected text that fnn wrote of a network, got {shorten(text)}"
    if not isinstance(text, str) or len(text) > 2**20:
        raise ArgumentError(what)

    def build(node):
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str()):
                return node.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
                return -math.inf
            case ast.Name(id="inf"):
                return math.inf
            case ast.Tuple():
                return tuple(build(element) for element in node.elts)
            case ast.Call(func=ast.Name(id=name)):
                if name not in classes:
                    raise ArgumentError(f"{name} is no class of fnn's; name your own: layers={{{name!r}: {name}}}")
                named = {str(word.arg): build(word.value) for word in node.keywords}
                return classes[name](*map(build, node.args), **named)
        raise ArgumentError(what)

    try:
        with warnings.catch_warnings():  # of `2if` and the like, which fnn never wrote
            warnings.simplefilter("ignore")
            parsed = ast.parse(text, mode="eval")
        return build(parsed.body)
    except FnnError:
        raise
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ArgumentError(what) from error
