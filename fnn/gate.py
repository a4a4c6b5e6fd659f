"""The gate: the one place where data enter, and where shapes, dtypes, structure and values are checked.

Every public function that takes parameters and data begins here. Data that have passed the gate are on the parameters'
backend, have their dtype (x) or at least float32 (targets and weights), and fit the network; formulas check nothing.
`examples` has what can be said of them without a network.
"""

import functools
import inspect
from functools import partial
from typing import Any

import numpy as np

from . import backend, random, trees
from .backend import at_least_float32, floating, is_floating, namespace
from .checks import as_array, check_size, check_sum, finite, known, not_negative, on_host, real
from .errors import ArgumentError, FnnError, KindError, ShapeError, shorten, shown
from .examples import FIRST, Data, arrays, each, opened, parts, shape_of
from .static import Static, check_static, instead

# ---- what kind of thing it is ----------------------------------------------------------------------------------------


def check_network(net):
    """Raise unless `net` is a layer that can be compared by value."""
    if not all(callable(getattr(net, method, None)) for method in ("forward", "propagate", "output_shape")) or (
        isinstance(net, type)
    ):
        hint = instead(net, Static) or "; make one by fnn.mlp((32, 2)), for example"
        if isinstance(net, list | tuple) and net and all(hasattr(layer, "output_shape") for layer in net):
            hint = f"; write fnn.Serial({shorten(tuple(net))})"
        raise KindError(f"net: expected a layer or network, got {shorten(net)}{hint}")
    check_static(net)


def check_cost(loss):
    """Raise unless `loss` is a cost that can be compared by value."""
    if not callable(getattr(loss, "value_and_delta", None)) or isinstance(loss, type):
        hint = instead(loss, Static) if isinstance(loss, type) else ""
        if inspect.isfunction(loss):
            hint = "; write fnn.FunctionLoss(f) for a function f(prediction, y) that returns the cost of each example"
        raise KindError(f"loss: expected a loss such as fnn.SoftmaxCrossEntropy(), got {shorten(loss)}{hint}")
    check_static(loss)


# ---- through the gate ------------------------------------------------------------------------------------------------


def inputs(net, params, x):
    """`(params, x)`, checked, for applying a network."""
    check_parameters(params)
    x = converted(params, x)[0]
    fits(net, params, x)
    return params, x


def batch(net, loss, params, x, y, weights=None) -> tuple[Any, Data]:
    """`(params, Data)` of a batch, checked: at least one example, a target for each, and shapes that fit."""
    data = entered(net, params, x, y, weights)
    shape = check_targets(net, loss, data, data.y, values=False)
    return params, within(loss, shape, data, y, _wide(params, data.x))


def dataset(net, loss, params, data, name="data", weights="positive", like=None, output=True) -> Data:
    """Data for training or evaluation, in memory, after all checks: kinds, shapes, and values if they are known.

    Weights must be at least 0 (`weights="positive"`), may have any sign (`"any"`), or must be absent (`"none"`). With
    `like`, the examples must have the shape of those data. With `output`, the network's output must be what the cost
    takes.
    """
    given = opened(data, name)
    try:
        check_like(given, like)
        if weights == "none" and given.weights is not None:
            raise ArgumentError("weights: expected (x, y), as the rule of this run draws its own weights")
        data = entered(net, params, *given)
        known, targets = data.known and given.known, data.y
        if known:  # as they were given, before they are converted to another dtype
            targets = trees.map(on_host, given.y)
            for place, array in (*parts("x", data.x), *parts("y", data.y)):
                if is_floating(array.dtype):
                    finite(place, array)
        shape = check_targets(net, loss, data, targets, values=known)
        if not known:
            data = within(loss, shape, data, given.y, _wide(params, data.x))
        elif output and not backend.is_traced(*trees.leaves(params)):
            check_output(net, loss, params, data)
        if known and data.weights is not None:
            check_sum(data.weights)
            if weights == "positive":
                not_negative("weights", data.weights)
    except FnnError as error:
        raise error.at(name) if name != "data" else error  # noqa: B904 - the same error, its place added
    return data


def admitted(net, loss, params, data, name="data", weights="positive", like=None) -> Data:
    """`dataset`, except that data in files are checked in pieces and stay where they are."""
    data = opened(data, name)
    if not data.streamed:
        return dataset(net, loss, params, data, name, weights, like)
    data = Data(*trees.map(lambda a: np.asarray(a) if backend.is_jax(a) else a, tuple(data)))
    try:
        check_counts(data)
    except FnnError as error:
        raise error.at(name) if name != "data" else error  # noqa: B904 - the same error, its place added
    for start, piece in data.pieces():
        try:
            dataset(net, loss, params, piece, name, weights, like)
        except FnnError as error:
            place = f"of examples {start} to {start + piece.size - 1}, counted here from 0 to {piece.size - 1}"
            raise error.at(place)  # noqa: B904 - the same error, its place added
    return data


def entered(net, params, x, y, weights=None) -> Data:
    """A batch after all checks except that of the targets' shape and values."""
    check_parameters(params)
    data = converted(params, x, y, weights)
    fits(net, params, data.x)
    check_counts(data)
    if weights is not None:
        check_size("weights", arrays("weights", weights), data.weights)
    return data


def within(loss, shape, data, given, dtype) -> Data:
    """The batch after a check that its targets are in the cost's range: where they are traced, those outside are NaN.

    Integers become that dtype, so that they can be NaN. Labels stay integers; their cost is NaN.
    """
    if isinstance(data.y, np.ndarray) and data.y.shape != shape:
        return data  # labels, which a cost that sees their values checks itself
    if isinstance(given, np.ndarray):
        sure, wrong = True, loss.wrong(given, shape)
    else:
        given = data.y
        sure = all(known(array) for _, array in parts("y", given))
        wrong = loss.wrong(each(lambda _, array: on_host(array), "y", given) if sure else given, shape)
    if sure and wrong is not None and wrong.any():
        loss.check(shape, given)
    if sure or wrong is None or tuple(data.y.shape) != shape:
        return data
    y = floating(data.y, dtype)
    return data._replace(y=namespace(y).where(wrong, np.nan, y))


def _wide(params, x):
    """The dtype of targets and weights: that of the parameters, or else of x, and at least float32."""
    leaves = trees.leaves(params)
    arrays = leaves[:1] or [array for _, array in parts("x", x) if is_floating(array.dtype)]
    return at_least_float32(arrays[0].dtype) if arrays else np.dtype(np.float32)


def misfit(net, loss, params=None, data=None):
    """`loss.misfit`, with the network's outputs for the first few data, if there are any."""
    return loss.misfit(net, None if data is None else lambda: net.forward(params, data.take(slice(0, 32)).x)[0])


def check_output(net, loss, params=None, data=None):
    """Raise if the network's output cannot be what the cost takes."""
    if (found := misfit(net, loss, params, data)) is not None:
        raise ArgumentError(f"loss: {found[0]}; {found[1]}")


def converted(params, x, y=None, weights=None) -> Data:
    """Data on the parameters' backend, x in their dtype, targets and weights in float32 or wider."""
    leaves = trees.leaves(params)
    given = [array for _, array in (*parts("x", x), *parts("y", y), ("weights", weights)) if array is not None]
    xp = backend.jnp if backend.is_traced(*given) else namespace(*leaves) if leaves else namespace(*given)
    if xp is not np:
        _check_broadcasting()
    x = each(partial(_to_dtype, leaves[0].dtype if leaves else None), "x", arrays("x", x, xp))
    wide = at_least_float32(leaves[0].dtype) if leaves else _wide((), x)
    y = None if y is None else each(partial(_to_dtype, wide), "y", arrays("y", y, xp))
    if weights is not None:
        weights = _to_dtype(wide, "weights", floating(as_array("weights", weights, xp), wide))
    return Data(x, y, weights)


def _check_broadcasting():
    """Raise if JAX forbids what formulas do with biases and gains."""
    if backend.jax.config.jax_numpy_rank_promotion == "raise":
        raise ArgumentError(
            "jax_numpy_rank_promotion: expected 'allow' or 'warn', got 'raise', but fnn's formulas broadcast biases "
            "and gains over the examples: call fnn within `with jax.numpy_rank_promotion('allow'):`"
        )


def key_for(key, x):
    """The key for the backend of x, or None."""
    if key is None:
        return None
    arrays = trees.leaves(x)
    return random.like(key, namespace(*arrays, key) if backend.is_traced(key) else namespace(*arrays))


# ---- what is checked -------------------------------------------------------------------------------------------------


def check_like(data, like):
    """Raise unless the examples have the same shape as those of `like`."""
    if like is not None and data.shape != like.shape:
        hint = "; pad or cut the sequences to the same length" if _other_lengths(data.x, like.x) else ""
        expected, actual = shown(like.shape), shown(data.shape, data.size)
        raise ShapeError(f"expected x of shape {expected}, as the data have, got {actual}{hint}")


def _other_lengths(x, like) -> bool:
    """Whether x has the arrays of `like`, sequences (N, T, I), or (N, T) of integers, and only their lengths differ."""
    pairs = list(zip(parts("x", x), parts("x", like), strict=False))
    apart = [(a, b) for (_, a), (_, b) in pairs if a.shape[1:] != b.shape[1:]]
    of_sequences = lambda a: a.ndim == 3 or (a.ndim == 2 and not is_floating(a.dtype))
    return (
        all(name == other for (name, _), (other, _) in pairs)
        and bool(apart)
        and all(of_sequences(a) and a.ndim == b.ndim and a.shape[2:] == b.shape[2:] for a, b in apart)
    )


def check_counts(data):
    """Raise unless there is at least one example, and a target and a weight for each."""
    n = data.size
    if data.y is None:
        raise KindError("y: expected targets, got None")
    if n == 0:
        raise ShapeError("x: expected at least one example, got none")
    for name, array in parts("y", data.y):
        if array.shape[:1] != (n,):
            raise ShapeError(f"{name}: expected a target for each of {n} examples, got shape {array.shape}")
    if data.weights is not None and data.weights.shape != (n,):
        raise ShapeError(f"weights: expected shape {(n,)}, got {data.weights.shape}")


def check_targets(net, loss, data, targets, values):
    """The shape of the prediction; raises unless the targets fit it and the cost."""
    prediction_shape = (data.size, *_output_shape(net, data.shape))
    try:
        loss.check(prediction_shape, targets, values=values)
    except ShapeError as error:
        raise ShapeError(f"{error}{_for_targets(data, prediction_shape, targets)}") from None
    return prediction_shape


def _for_targets(data, prediction_shape, targets) -> str:
    """A hint for a message: how a network gives one prediction for each example, or for each position."""
    ndim, labels = getattr(targets, "ndim", 3), not is_floating(getattr(targets, "dtype", np.float32))
    if len(prediction_shape) > 2 and ndim < 3 - labels:
        return (
            "; for one prediction per example, begin the dense layers with fnn.Flatten(), or leave all_states=True out "
            "of the last recurrent layer"
        )
    if len(prediction_shape) == 2 and labels and ndim == 2 and targets.shape[1] in data.shape[:1]:
        return "; for one prediction per position, recurrent layers take all_states=True"
    return ""


def check_parameters(params):
    """Raise unless every leaf is a floating-point array."""
    for leaf in trees.leaves(params):
        if not is_floating(getattr(leaf, "dtype", None)):
            place, wrong = next((p, a) for p, a in trees.paths(params) if a is leaf)
            got = getattr(wrong, "dtype", None) or shorten(wrong)
            raise KindError(f"{place}: expected a floating-point array, got {got}; {_for_parameters(params, wrong)}")


def _for_parameters(params, wrong) -> str:
    """A hint for a message: what to write in place of parameters of which a leaf is wrong."""
    if hasattr(params, "opt_state"):
        return f"write state.params for the parameters of a {type(params).__name__}"
    if hasattr(wrong, "output_shape"):
        return "the parameters of a network are state.params after fnn.fit, or net.init(key, input_shape)"
    if wrong is params or isinstance(params, list):
        return FIRST
    return "write np.asarray(..., np.float32) for each parameter"


def check_examples(x):
    """Raise unless all arrays of x have the same number of examples along their first axis."""
    for name, array in parts("x", x):
        if array.ndim < 1:
            raise ShapeError(f"{name}: expected a leading axis of examples, got shape {array.shape}")
    if len({array.shape[0] for _, array in parts("x", x)}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in parts("x", x))
        raise ShapeError(f"x: expected arrays of the same number of examples, got {shapes}")


def fits(net, params, x):
    """Raise unless the parameters and the examples fit the network."""
    check_examples(x)
    expected = parameter_shapes(net, shape_of(x))
    net.check(x)
    if expected is not None:
        check_structure(params, expected, f" for x of shape {shown(shape_of(x))}")


def check_structure(params, expected, where=""):
    """Raise unless parameters have the expected structure and shapes."""
    if trees.alike(params, expected):
        return
    try:
        trees.same_structure("params", params, expected)
    except ShapeError as error:
        raise ShapeError(f"{error}{where}") from None
    raise ShapeError(f"params: expected the structure {trees.outline(expected)}, got {trees.outline(params)}{where}")


def check_new(net, params, input_shape):
    """Raise unless the user's parameters can start a run: they must fit the network and be floating-point."""
    check_parameters(params)
    expected = parameter_shapes(net, input_shape)
    if expected is not None:
        check_structure(params, expected)
    xp = namespace(*trees.leaves(params))
    for place, leaf in trees.paths(params):
        try:
            backend.check_dtype(xp, leaf.dtype)
        except FnnError as error:
            raise error.at(place)  # noqa: B904 - the same error, its place added


@functools.lru_cache(maxsize=1024)
def _output_shape(net, input_shape):
    """`net.output_shape`, which takes longer than to remember."""
    return net.output_shape(input_shape)


@functools.lru_cache(maxsize=1024)
def parameter_shapes(net, input_shape, dtype: Any = np.float32):
    """The parameters of a network as arrays without values, which take no memory; None if `init` cannot tell."""
    outline = lambda p: np.broadcast_to(np.zeros((), p.dtype), p.shape)
    try:
        return trees.map(outline, net.init(random.blank_key(), input_shape, dtype))
    except FnnError:
        raise
    except Exception:  # a user's `init` that draws with JAX's own functions
        if backend.jax is None:
            return None
    try:
        make = lambda key: net.init(key, input_shape, dtype)
        return trees.map(outline, backend.jax.eval_shape(make, random.key(0, backend="jax")))
    except Exception:
        return None


def on_zeros(f, input_shape, dtype) -> Any:
    """`f` of one example of zeros; of integers if it takes nothing else, as a network of symbols does."""

    def zeros(dtype):
        if input_shape and isinstance(input_shape[0], tuple):
            return {name: np.zeros((1, *sizes), dtype) for name, sizes in input_shape}
        return np.zeros((1, *input_shape), dtype)

    try:
        return f(zeros(dtype))
    except (FnnError, TypeError, IndexError):
        return f(zeros(np.int32))


def _to_dtype(dtype, name, array):
    """A floating-point array in that dtype (values too large become infinite); integers are returned unchanged."""
    real(name, array)
    if dtype is None or array.dtype == dtype or not is_floating(array.dtype):
        return array
    with np.errstate(over="ignore"):
        return array.astype(dtype)
