"""Networks and other static values as text, and classes by name.

The text is the `repr` of a value. `rebuild` reads it back without executing it: it parses the text and accepts calls of
classes that it knows, numbers, strings, None and tuples. A class is known by its plain name: one that the caller names,
then fnn's own, then a class of the user's, if it is the only one of that name that is defined.
"""

import ast
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..backend import Record
from ..errors import ArgumentError, FnnError, KindError, shorten
from ..static import Static, namedtuples, registered

_LONGEST = 2**20  # characters

# ---- classes by name -------------------------------------------------------------------------------------------------


class Classes:
    """The classes that a file may name: those in `given`, by any name, and those in `defined`, by their own.

    Args:
        given: the caller's classes by name; they come first.
        defined: gives all classes of that kind which exist, by qualified name.
        own: the names which in that file do not mean a class of fnn's, even if fnn has one of that name.
    """

    def __init__(
        self, given: Mapping[str, type], defined: Callable[[], Mapping[str, type]] = dict, own: Iterable[str] = ()
    ):
        self.given, self.defined, self.own = given, defined, set(own)

    def __getitem__(self, name: str) -> type:
        if name in self.given:
            return self.given[name]
        named = [cls for cls in self.defined().values() if cls.__name__ == name]
        theirs = [cls for cls in named if not is_fnns(cls)]
        ours = [] if name in self.own else [cls for cls in named if is_fnns(cls)]
        candidates, shown = ours or theirs, shorten(name)
        hint = f"layers={{{shown}: {shown[1:-1]}}}"
        if not candidates:
            raise ArgumentError(
                f"{shown} is not the name of a class that is defined; import its module, or pass {hint}"
            )
        if len(candidates) > 1:
            homes = ", ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in candidates)
            raise ArgumentError(f"{shown} is the name of {len(candidates)} classes, {homes}; choose one with {hint}")
        return candidates[0]


def statics(given: Mapping[str, type], own: Iterable[str] = ()) -> Classes:
    """The classes of layers, losses and initializers."""
    return Classes({n: c for n, c in given.items() if not _is_namedtuple(c)}, registered, own)


def tuples(given: Mapping[str, type], own: Iterable[str] = ()) -> Classes:
    """The NamedTuples of parameters, optimizers, schedules, rules and states."""
    return Classes({n: c for n, c in given.items() if _is_namedtuple(c)}, namedtuples, own)


def is_fnns(cls: type) -> bool:
    """Whether a class is one of fnn's own."""
    return cls.__module__.partition(".")[0] == "fnn"


def own_classes(thing: Any) -> dict[str, type]:
    """The classes of a static value, such as a network, and of everything within it, by name.

    Args:
        thing: the value.

    Returns:
        A dict of classes.

    >>> from fnn import mlp
    >>> sorted(own_classes(mlp((4, 2))))
    ['Dense', 'LecunNormal', 'Relu', 'Serial']
    """
    inside = vars(thing).values() if isinstance(thing, Static) else thing if isinstance(thing, tuple) else ()
    classes = {type(thing).__name__: type(thing)} if isinstance(thing, Static) else {}
    for value in inside:
        classes |= own_classes(value)
    return classes


def given_classes(layers: Mapping[str, type] | None) -> dict[str, type]:
    """The classes that the caller names, checked."""
    layers = {} if layers is None else layers
    if not isinstance(layers, dict) or not all(isinstance(cls, type) for cls in layers.values()):
        raise KindError(f'layers: expected classes by name, such as {{"Mine": Mine}}, got {shorten(layers)}')
    return dict(layers)


def add_classes(known: dict[str, type], more: Mapping[str, type]) -> None:
    """Add classes to others by name; raises `KindError` where one name stands for two classes."""
    for name, cls in more.items():
        if known.setdefault(name, cls) is not cls:
            raise KindError(f"{name}: expected one class of this name, got {known[name]} and {cls}")


def _is_namedtuple(cls):
    return issubclass(cls, tuple | Record) and hasattr(cls, "_fields")


# ---- text, and back --------------------------------------------------------------------------------------------------


def text_of(net: Any) -> str:
    """A network, or another static value, as text that `rebuild` reads back.

    Args:
        net: a layer, a network, a loss, an initializer, a number, a string, None, or a tuple of these.

    Returns:
        Its `repr`.

    Raises:
        KindError: no text rebuilds it, as where it holds a function.

    >>> from fnn import Dense
    >>> text_of(Dense(3, bias=False))
    'Dense(3, bias=False)'
    """
    text = repr(net)
    try:
        same = rebuild(text, Classes(own_classes(net))) == net
    except FnnError as error:
        raise KindError(
            f"net: expected a network that text can rebuild, got {shorten(net)}; save it without"
        ) from error
    if not same:
        raise KindError(f"net: expected a network that its own text rebuilds, got {shorten(text)}; save it without")
    return text


def rebuild(text: str, classes: Mapping[str, type] | Classes | None = None) -> Any:
    """The static value that a text describes, without executing the text.

    Args:
        text: what `text_of` wrote: calls of classes with numbers, strings, None and tuples.
        classes: the classes by name (default: all layers, losses and initializers that are defined).

    Returns:
        The value. Its classes are called, so they check their arguments.

    Raises:
        ArgumentError: the text is something else, or names an unknown class.

    >>> rebuild("Serial((Dense(3, bias=False),))")
    Serial((Dense(3, bias=False),))
    """
    expected = f"expected the text of a network, as fnn writes it, got {shorten(text)}"
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ArgumentError(expected)
    known = statics({}) if classes is None else classes if isinstance(classes, Classes) else Classes(classes)

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
                named = {str(word.arg): build(word.value) for word in node.keywords}
                return known[name](*map(build, node.args), **named)
        raise ArgumentError(expected)

    try:
        with warnings.catch_warnings():  # text such as "2if" makes the parser warn, and fnn never writes it
            warnings.simplefilter("ignore")
            parsed = ast.parse(text, mode="eval")
        return build(parsed.body)
    except FnnError:
        raise
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ArgumentError(expected) from error
