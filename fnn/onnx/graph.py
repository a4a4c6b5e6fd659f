"""A graph of ONNX operators while it is being made, and the translations of layers, which add their operators to it.

An array of the graph is a `Value`. Its shape is that of fnn, (N, *shape), and its `order` says how the axes are stored:
axis j of the array is axis order[j] of (N, *shape). ONNX has the channels of an image first, (N, C, H, W), and its
recurrent operators the positions, (T, N, I). So an operator asks for the order that it needs, its result stays in that
order, and the next one that needs another order transposes it: transposes that would cancel never arise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backend import is_floating
from ..errors import KindError, shorten
from ..layers import Layer
from ..losses import Loss
from ..static import check_static


class Value(NamedTuple):
    """An array of the graph: an input, or what a node gives.

    Args:
        name: its name in the graph.
        shape: the shape of an example, without the batch axis.
        dtype: its dtype; None for an input that no operator has read so far.
        order: how the axes of (N, *shape) are stored.

    >>> Value("x", (8, 8, 1), np.float32, (0, 1, 2, 3)).shape
    (8, 8, 1)
    """

    name: str
    shape: Any
    dtype: Any
    order: tuple[int, ...]

    def axis(self, i):
        """Where axis i of (N, *shape) is stored."""
        return self.order.index(i % len(self.order))


class Node(NamedTuple):
    """An operator, the names of the arrays that it reads and gives ("" for one that is left out), and attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class _Translation(NamedTuple):
    function: Callable
    any_order: bool
    any_kind: bool


_TRANSLATIONS: dict[type, _Translation] = {}


def translation(*classes: type, any_order: bool = False, any_kind: bool = False) -> Callable:
    """A decorator for the function that adds the operators of layers to a graph, for layers of your own too.

        function(layer, params, x, graph) -> y        x, y: `Value`, (N, ...), of `layer.forward` without a key

    It holds for exactly these classes, not for those that extend them, whose formulas may be others.

    Args:
        classes: of layers, or of costs, whose `predict` is translated: `function(loss, (), prediction, graph)`.
        any_order: whether x may come with its axes in any order, as for a function of single entries. Default: False,
            in the order of fnn.
        any_kind: whether x may be what the layer itself gets: integers, or a dict of several inputs. Default: False,
            floating-point numbers.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        KindError: for what is not a class of layers or costs.

    >>> from dataclasses import dataclass
    >>> import fnn
    >>> @dataclass(frozen=True)
    ... class Square(fnn.Elementwise):
    ...     def function(self, z):
    ...         return z * z
    ...
    ...     def derivative(self, z):
    ...         return 2 * z
    >>> @fnn.onnx.translation(Square, any_order=True)
    ... def square(layer, params, x, graph):
    ...     return graph.node("Mul", x, x)
    """
    for cls in classes:
        if not isinstance(cls, type) or not issubclass(cls, Layer | Loss):
            raise KindError(f"translation: expected classes of layers or costs, got {shorten(cls)}")

    def register(function):
        _TRANSLATIONS.update(dict.fromkeys(classes, _Translation(function, any_order, any_kind)))
        return function

    return register


def is_translated(cls: type) -> bool:
    """Whether this class has a translation."""
    return cls in _TRANSLATIONS


class Graph:
    """The nodes, constants and inputs of a graph, to which translations add.

    Args:
        dtype: of all floating-point arrays in it, float32 or float64.

    >>> Graph(np.float32).nodes
    []
    """

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, Value] = {}
        self.sizes: list[tuple[int, ...]] = []
        self._place = ""
        self._taken: set[str] = set()
        self._names: dict[tuple, str] = {}
        self._forms: dict[str, dict] = {}
        self._casts: dict[tuple, Value] = {}

    # ---- what translations use ---------------------------------------------------------------------------------------

    def node(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add an operator.

        Args:
            op: the name of a standard operator.
            inputs: values; numbers, which take the dtype of the first value; arrays of constants; tuples of ints, as
                int64; None for an input that is left out.
            outputs: the number of outputs. Default: 1.
            attributes: numbers, text, tuples of numbers, or a dtype.

        Returns:
            A `Value` with the shape, dtype and order of the first value, which `_replace` changes; a tuple of several.
        """
        like = next(value for value in inputs if isinstance(value, Value))
        names = tuple(self._name_of(value, like.dtype) for value in inputs)
        given = tuple(self._new(op) for _ in range(outputs))
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(Node(op, given[0], names, given, attributes))
        values = tuple(like._replace(name=name) for name in given)
        return values if outputs > 1 else values[0]

    def constant(self, array: Any, label: str = "constant") -> Value:
        """An array that is part of the file: of the dtype of the graph if it is floating, else int64 or bool.

        The same memory, seen in the same way, is written once: weights that are used several times are shared.
        """
        array = np.asarray(array)
        dtype = self.dtype if is_floating(array.dtype) else np.dtype(bool if array.dtype == bool else np.int64)
        array = array.astype(dtype, copy=False)
        memory = _memory(array)
        if memory not in self._names:
            self._names[memory] = self._new(label)
            self.constants[self._names[memory]] = array
        return Value(self._names[memory], array.shape[1:], dtype, tuple(range(max(1, array.ndim))))

    def like(self, array: Any, x: Value, label: str = "constant") -> Value:
        """A constant shaped as an example, with its axes in the order of x."""
        return self.constant(np.asarray(array)[None].transpose(x.order), label)

    def ordered(self, x: Value, order: Any) -> Value:
        """x with its axes stored in this order; each order of an array is made at most once."""
        order = tuple(order)
        if order == x.order:
            return x
        forms = self._forms.setdefault(x.name, {x.order: x})
        if order not in forms:
            y = self.node("Transpose", x, perm=tuple(x.order.index(axis) for axis in order))._replace(order=order)
            forms[order] = y
            self._forms[y.name] = forms
        return forms[order]

    def natural(self, x: Value) -> Value:
        """x with its axes in the order of fnn."""
        return self.ordered(x, range(len(x.shape) + 1))

    def floating(self, x: Value) -> Value:
        """x as floating-point numbers; an input that nothing has read becomes one of these."""
        return self._as(x, self.dtype)

    def integers(self, x: Value) -> Value:
        """x as int64; an input that nothing has read becomes one of these."""
        if self._dtype_of(x) is not None and not self.reads_integers(x):
            raise KindError(
                f"{x.name}: expected integers, got {self._dtype_of(x)}; if they are an input, write input_dtype='int64'"
            )
        return self._as(x, np.dtype(np.int64))

    def reads_integers(self, x: Value) -> bool:
        """Whether x is known to be integers."""
        known = self._dtype_of(x)
        return known is not None and known.kind in "iu"

    def apply(self, layer: Layer, params: Any, x: Any, *place: Any) -> Value:
        """The output of a layer: what its translation adds, at this place among the parameters."""
        check_static(layer)
        outer, self._place = self._place, ".".join(filter(None, [self._place, *map(str, place)]))
        try:
            y = self._translated(layer, params, x)
            shape = layer.output_shape(x.shape if isinstance(x, Value) else {k: v.shape for k, v in x.items()})
        finally:
            self._place = outer
        order = y.order if len(y.order) == len(shape) + 1 else tuple(range(len(shape) + 1))
        return y._replace(shape=shape, order=order)

    def depends_on(self, sizes: tuple[int, ...]):
        """Declare that the nodes are right for axes of these sizes only, where nothing else in the graph shows it."""
        self.sizes.append(sizes)

    # ---- what `export` uses ------------------------------------------------------------------------------------------

    def input(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> Value:
        """A new input."""
        self._taken.add(name)
        self.inputs[name] = Value(name, shape, None if dtype is None else np.dtype(dtype), tuple(range(len(shape) + 1)))
        return self.inputs[name]

    def predicted(self, loss: Loss, y: Value) -> Value:
        """What a cost predicts from the output of a network, y."""
        owner = next(cls for cls in type(loss).__mro__ if "predict" in vars(cls))
        if owner is Loss:
            return y
        self._place = "loss"
        return self._translated(loss, (), y, owner)

    def finish(self, y: Value, name: str = "y") -> Value:
        """y in the order of fnn under a name of its own, as the output; what it does not depend on goes."""
        y = self.floating(self.natural(y))
        y = self.node("Identity", y) if y.name in self.inputs else y
        while name in self._taken:
            name += "_"
        read, nodes = {y.name}, []
        renamed = lambda names: tuple(name if given == y.name else given for given in names)
        for node in reversed(self.nodes):
            if read.intersection(node.outputs):
                outputs = tuple(given if given in read else "" for given in node.outputs)
                nodes.append(node._replace(inputs=renamed(node.inputs), outputs=renamed(outputs)))
                read.update(node.inputs)
        self.nodes = nodes[::-1]
        self.constants = {given: array for given, array in self.constants.items() if given in read}
        return y._replace(name=name)

    def same(self, other: "Graph") -> bool:
        """Whether two graphs have the same nodes and constants."""
        return (
            (self.nodes, self.sizes) == (other.nodes, other.sizes)
            and self.constants.keys() == other.constants.keys()
            and all(_alike(array, other.constants[name]) for name, array in self.constants.items())
        )

    # ---- details -----------------------------------------------------------------------------------------------------

    def _translated(self, layer, params, x, cls: Any = None):
        cls, where = cls or type(layer), f"{self._place} {type(layer).__name__}".strip()
        if cls not in _TRANSLATIONS:
            raise KindError(
                f"{where}: expected a layer with a translation to ONNX; write one, "
                f"@fnn.onnx.translation({cls.__name__}) above a function (layer, params, x, graph) that returns "
                "graph.node(...)"
            )
        function, any_order, any_kind = _TRANSLATIONS[cls]
        if not any_kind:
            if not isinstance(x, Value):
                raise KindError(f"{where}: expected one array, got several inputs {sorted(x)}")
            x = self.floating(x)
        if not any_order and isinstance(x, Value):
            x = self.natural(x)
        y = function(layer, params, x, self)
        if not isinstance(y, Value):
            raise KindError(f"{where}: expected a Value of its translation, as graph.node gives, got {shorten(y)}")
        return y

    def _as(self, x, dtype):
        if self._dtype_of(x) is None:
            self.inputs[x.name] = self.inputs[x.name]._replace(dtype=dtype)
        if self._dtype_of(x) == dtype:
            return x._replace(dtype=dtype)
        if (x.name, dtype) not in self._casts:
            self._casts[x.name, dtype] = self.node("Cast", x, to=dtype)._replace(dtype=dtype)
        return self._casts[x.name, dtype]

    def _dtype_of(self, x):
        return self.inputs[x.name].dtype if x.name in self.inputs else x.dtype

    def _name_of(self, value, dtype):
        if value is None:
            return ""
        if isinstance(value, Value):
            return value.name
        if isinstance(value, int | float):
            key = (value, dtype)
            if key not in self._names:
                self._names[key] = self.constant(np.asarray(value, dtype), "number").name
            return self._names[key]
        return self.constant(value).name

    def _new(self, label):
        """A name that nothing else has, which begins with the place of the layer."""
        name = base = f"{self._place}.{label}".removeprefix(".")
        number = 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def _memory(array):
    """What the numbers of an array are read from."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype


def _alike(a, b):
    """Whether two arrays have the same numbers; those of the same memory are not compared."""
    return _memory(a) == _memory(b) or (a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True))
