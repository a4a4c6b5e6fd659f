"""A tree as JSON, and back.

Each node becomes a dict of one entry, which says what it is:

    {"value": 3}                            a number, a string or None
    {"float": "nan"}                        a float that JSON does not have
    {"array": "params[0].w"}                an array, by its name
    {"tuple": [[0, node], ...]}             a tuple; "list" for a list
    {"dict": [["key", node], ...]}          a dict with strings as keys
    {"class DenseParams": [["w", node]]}    a NamedTuple, by the name of its class
    {"choice": "True"}                      what a `Held` holds, as text
    {"held": "..."}                         a `Held` that no text rebuilds, for messages
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import random
from ..backend import Held, Record
from ..errors import ArgumentError, CheckpointError, FnnError, KindError, ShapeError, shorten
from .text import Classes, add_classes, is_fnns, own_classes, rebuild, text_of

_DEEPEST = 100  # levels, so that whatever is saved can be loaded within Python's limit of recursion


class Host(NamedTuple):
    """Marks a part of a tree that belongs to the host, such as a history in float64: it is loaded as NumPy arrays.

    Args:
        tree: the part. `load` gives it back without the mark.

    >>> Host({"loss": [0.5, 0.25]})
    Host(tree={'loss': [0.5, 0.25]})
    """

    tree: Any


class Description(NamedTuple):
    """A tree as JSON: its `root` node, and by name its `leaves`, the `hosts` among them and all `nodes` by place.

    `tuples` and `statics` hold the classes in it by name, which the JSON names.
    """

    root: dict
    leaves: dict[str, Any]
    hosts: set[str]
    nodes: dict[str, Any]
    tuples: dict[str, type]
    statics: dict[str, type]


def describe(tree: Any, like: bool = False) -> Description:
    """The `Description` of a tree. With `like`, `...` may stand for any part of it."""
    description = Description({}, {}, set(), {}, {}, {})
    return description._replace(root=_describe(tree, "", description, like, False, 0))


def _describe(node, place, description, like, host, depth):
    if depth > _DEEPEST:
        raise KindError(f"{shorten(place)}: expected a tree of at most {_DEEPEST} levels")
    description.nodes[place] = node
    if node is ... and like:
        return {}
    if isinstance(node, Host):
        return _describe(node.tree, place, description, like, True, depth + 1)
    if node is None or isinstance(node, bool | int | str) or (isinstance(node, float) and math.isfinite(node)):
        if isinstance(node, int) and node.bit_length() > 10_000:  # JSON has a limit of about 4,300 digits
            raise KindError(f"{place}: expected an int of at most 10,000 bits, got one of {node.bit_length()}")
        return {"value": node}
    if isinstance(node, float):
        return {"float": repr(float(node))}
    if isinstance(node, Held):
        return _describe_held(node, description)
    if isinstance(node, tuple | list | dict | Record):
        kind = _kind_of(node)
        if not hasattr(node, "_fields") and type(node) not in (tuple, list, dict):
            raise KindError(f"{place or 'the tree'}: expected a tuple, NamedTuple, list or dict, got a {kind}")
        if hasattr(node, "_fields"):
            add_classes(description.tuples, {type(node).__name__: type(node)})
        return {
            kind: [
                [k, _describe(child, at, description, like, host, depth + 1)] for k, at, child in children(node, place)
            ]
        }
    name = place.removeprefix(".") or "array"
    if name in description.leaves:
        raise ArgumentError(f"{name}: expected distinct places, got two with this name")
    description.leaves[name] = node
    if host:
        description.hosts.add(name)
    return {"array": name}


def _kind_of(node):
    """The kind of a node that has children, as the file says it."""
    return f"class {type(node).__name__}" if hasattr(node, "_fields") else type(node).__name__


def _describe_held(node, description):
    """A choice as text, where text rebuilds it."""
    try:
        text = text_of(node.thing)
    except KindError:
        return {"held": shorten(node)}
    add_classes(description.statics, own_classes(node.thing))
    return {"choice": text}


def children(node: Any, place: str) -> list[tuple]:
    """`(key, place, child)` of everything within a tuple, NamedTuple, list or dict."""
    if isinstance(node, dict):
        if not all(isinstance(key, str) for key in node):
            raise KindError(f"{place or 'the tree'}: expected strings as keys, got {shorten(list(node))}")
        return [(key, f"{place}[{key!r}]", child) for key, child in node.items()]
    if hasattr(node, "_fields"):
        return [(name, f"{place}.{name}", child) for name, child in zip(node._fields, node, strict=True)]
    return [(i, f"{place}[{i}]", child) for i, child in enumerate(node)]


def array_names(node: Any) -> list:
    """The names of all arrays in a tree of JSON, which has not been checked."""
    names, stack = [], [node]
    while stack:
        match stack.pop():
            case dict() as inner:
                stack.extend(inner.values())
                names.extend([inner["array"]] if "array" in inner else [])
            case list() as inner:
                stack.extend(inner)
    return names


class Source(NamedTuple):
    """What `restore` needs besides the JSON.

    path          of the file, for messages
    array         gives an array by its name
    tuples        the NamedTuples, by name
    statics       the classes of layers, losses and initializers, by name
    like          the nodes of the caller's tree, by place
    xp            the namespace of the chosen backend
    """

    path: Any
    array: Callable[[str], Any]
    tuples: Classes
    statics: Classes
    like: dict[str, Any]
    xp: Any


def restore(node: Any, place: str, source: Source, depth: int = 0) -> Any:
    """The tree that `describe` wrote as JSON; raises `CheckpointError` for anything that it does not write."""
    where = f"{source.path}: {shorten(place) if len(place) > 200 else place or 'the tree'}"
    if not isinstance(node, dict) or len(node) != 1 or depth > _DEEPEST:
        raise CheckpointError(f"{where}: expected a node of a tree, got {shorten(node)}")
    ((kind, inner),) = node.items()
    match kind, inner:
        case "value", None | bool() | int() | float() | str():
            like = source.like.get(place, ...)
            if like is not ... and (like is None) != (inner is None):
                raise ShapeError(f"{where}: {inner} in the file, {shorten(like)} expected")
            return inner
        case "float", "inf" | "-inf" | "nan":
            return float(inner)
        case "array", str():
            return source.array(inner)
        case "choice", str():
            return _choice(inner, where, source.like.get(place), source)
        case "held", _ if isinstance(source.like.get(place), Held):
            return source.like[place]
        case "held", _:
            raise CheckpointError(f"{where} is {shorten(inner)}, which belongs to another library: load it with like=")
        case str(), list() if all(isinstance(pair, list) and len(pair) == 2 for pair in inner):
            return _container(kind, inner, place, where, source, depth)
    raise CheckpointError(f"{where}: expected a node of a tree, got {shorten(node)}")


def _choice(text, where, like, source):
    try:
        choice = Held(rebuild(text, source.statics))
    except FnnError as error:
        raise error.at(where) from None
    if isinstance(like, Held) and like != choice:
        raise ShapeError(f"{where}: {shorten(choice)} in the file, {shorten(like)} expected")
    return choice


def _container(kind, pairs, place, where, source, depth):
    """A tuple, list, dict or NamedTuple of `[key, node]` pairs."""
    keys, cls, like = [key for key, _ in pairs], None, source.like.get(place, ...)
    if like is not ... and kind != _kind_of(like):
        raise ShapeError(f"{where}: {shorten(kind)} in the file, {shorten(_kind_of(like))} expected")
    fields = range(len(keys)) if kind in ("tuple", "list") else keys
    if kind.startswith("class "):
        try:
            cls = source.tuples[kind.removeprefix("class ")]
        except FnnError as error:
            raise CheckpointError(f"{where}: {error}") from None
        fields = cls._fields  # type: ignore[attr-defined]
    elif kind not in ("tuple", "list", "dict") or not all(isinstance(key, str) for key in keys if kind == "dict"):
        raise CheckpointError(f"{where}: expected a node of a tree, got {shorten(kind)}")
    if keys != list(fields) or len(set(keys)) < len(keys):
        hint = "; load_network gives the parameters of a run" if "opt_state" in keys else ""
        raise CheckpointError(f"{where}: expected {shorten(list(fields))}, got {shorten(keys)}{hint}")
    end = {"tuple": "[{}]", "list": "[{}]", "dict": "[{!r}]"}.get(kind, ".{}")
    values = [restore(node, place + end.format(key), source, depth + 1) for key, node in pairs]
    if kind == "dict":
        return dict(zip(keys, values, strict=True))
    if cls is None:
        return values if kind == "list" else tuple(values)
    if issubclass(cls, Record):
        return cls._make(values)
    made: Any = tuple.__new__(cls, values)  # not by its constructor, which may be anybody's
    if cls.__name__ == "TrainState" and is_fnns(cls) and made.key is not None:  # None in a file of another process
        made = made._replace(key=random.like(made.key, source.xp))
    return made
