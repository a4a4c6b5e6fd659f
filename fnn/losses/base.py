"""The contract of a cost, helpers that costs share, and a cost defined by any JAX function."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from .. import backend, random
from ..backend import cast, floating, is_floating, namespace
from ..checks import finite, known
from ..errors import ArgumentError, DataError, KindError, ShapeError, shorten
from ..examples import parts
from ..layers import Dense
from ..layers.activations.base import Activation, Learnt
from ..networks import last_layer
from ..static import Static


@dataclass(frozen=True)
class Loss(Static):
    """Base class of all costs.

    A cost of your own must define `value` and `delta`, and also `check` if its target is not shaped as the prediction.
    Two class attributes are optional: `takes`, what its prediction is ("numbers", "logits" or "probabilities"), so that
    a network whose output is something else is refused; and `targets`, the range of its targets in words, for `wrong`.
    `root`, and `sample` and `fisher_target`, are what `fnn.curvature` needs of a cost that is convex, or a likelihood.

    >>> @dataclass(frozen=True)
    ... class Quartic(Loss):
    ...     def value(self, prediction, target):
    ...         return ((prediction - target) ** 4).sum(axis=1)
    ...
    ...     def delta(self, prediction, target):
    ...         return 4 * (prediction - target) ** 3
    """

    takes: ClassVar[str] = "numbers"
    targets: ClassVar[str] = "finite numbers"

    def __call__(self, *args, **kwargs) -> NoReturn:
        """Costs are not called."""
        raise KindError(
            f"{type(self).__name__} cannot be called; write loss.value(prediction, y) for the cost of each example, "
            "or fnn.value_and_grad(net, loss)(params, x, y) for the mean and its gradient"
        )

    def value(self, prediction, target, /):
        """ℓ (N,), the cost of each example."""
        raise NotImplementedError

    def delta(self, prediction, target, /):
        """∂ℓ/∂prediction, shaped as the prediction."""
        raise NotImplementedError

    def value_and_delta(self, prediction, target, /):
        """`(value, delta)`; costs override it where the two share work."""
        return self.value(prediction, target), self.delta(prediction, target)

    def outer(self, mean, /):
        """The cost of a batch as a function of the weighted mean of ℓ, and its derivative: by default the mean and 1.

        A cost that is not a mean over the examples overrides it, as `RootMeanSquaredError` does.
        """
        return mean, 1.0

    def root(self, prediction, target, /) -> Any:
        """S (N, ..., K, R) with S Sᵀ = ∂²ℓ/∂prediction² (N, ..., K, K), the block of each position where there are any.

        Costs that are convex in the prediction have one; the others raise.
        """
        raise KindError(f"{self}: expected a cost with a `root`, as those have that are convex in the prediction")

    def sample(self, key, prediction, target=None, /) -> Any:
        """Draw targets from the likelihood p(y | prediction) that the cost is minus the logarithm of, but for a
        function of y alone; a target that is ignored stays so. Costs that are no such logarithm raise.
        """
        raise KindError(f"{self}: expected a cost with a `sample`, as those have that are minus a log-likelihood")

    def fisher_target(self, prediction, target, /) -> Any:
        """The target at which ∂²ℓ/∂prediction² is its expectation over `sample`, the Fisher information.

        It is the target itself where ∂²ℓ does not depend on it, and the mean of `sample` where ∂²ℓ is linear in it.
        """
        raise KindError(f"{self}: expected a cost whose Fisher information is known in closed form; use samples=")

    def predict(self, prediction, /):
        """The prediction from the network's output: probabilities if the output is logits, else the output itself."""
        return prediction

    def log_probabilities(self, prediction, /) -> Any:
        """log p of each class (N, ..., C), or of 0 and 1 for each output (N, ..., K, 2). Costs without raise."""
        raise KindError(f"{self}: expected a cost on logits of classes or of yes or no, such as SoftmaxCrossEntropy()")

    def wrong(self, target, prediction_shape, /) -> Any:
        """Where a target is out of this cost's range, as bools of its shape; None if it certainly is not.

        Such a target raises where data enter and their values are known; where they are traced, its cost is NaN.
        """
        return None

    def check(self, prediction_shape, target, values=True):
        """Raise if the target does not fit a prediction of this shape or, with `values`, has values out of range."""
        check_entries(target, prediction_shape)
        if values:
            check_values(self, prediction_shape, target, self.targets)

    def misfit(self, net, predict=None, /) -> tuple[str, str] | None:
        """Why the output of this network cannot be what this cost takes, and what to do about it; or None.

        The last layer decides where it can, else concrete predictions, if `predict` is given, which computes them.
        """
        layer = last_layer(net)
        limits = limits_of(layer)
        if self.takes == "logits" and limits == (0, 1):
            why = f"{self} applies the last function itself, but the network ends in {layer}"
            return why, "omit that layer, or use a cost of probabilities, fnn.CrossEntropy or fnn.BinaryCrossEntropy"
        if self.takes != "probabilities" or limits == (0, 1):
            return None
        found = f"the network ends in {layer}" if limits or type(layer) is Dense else ""
        if not found and predict is not None:
            a = np.asarray(predict(), np.float32)
            outside = a[(a < -0.01) | (a > 1.01)]  # beyond rounding, in bfloat16 too
            found = f"one of the network's outputs is {outside[0]:.3g}" if outside.size else ""
        if not found:
            return None
        return f"{self} takes probabilities, but {found}", (
            "end it in fnn.Softmax() or fnn.Sigmoid() or, better, use fnn.SoftmaxCrossEntropy or "
            "fnn.SigmoidBinaryCrossEntropy"
        )


def limits_of(layer):
    """The numbers between which the outputs of a layer lie, if it is an activation that declares them; else None."""
    declared = isinstance(layer, Activation) and type(layer).limits is not Activation.limits
    return layer.limits(()) if declared and not isinstance(layer, Learnt) else None


# ---- targets ---------------------------------------------------------------------------------------------------------


def check_entries(target, prediction_shape, what="the prediction's shape"):
    """Raise unless the target is an array of this shape, which the message calls `what`."""
    check_one(target)
    if tuple(target.shape) != tuple(prediction_shape):
        hint = "; use np.expand_dims(y, -1)" if tuple(prediction_shape) == (*target.shape, 1) else ""
        raise ShapeError(f"y: expected targets of {what} {tuple(prediction_shape)}, got {tuple(target.shape)}{hint}")


def check_one(target):
    """Raise if the target is a dict or NamedTuple of arrays, for a cost that takes one."""
    if not hasattr(target, "shape"):
        raise KindError(f"y: expected one array, got {shorten(target)}; several need a cost with a `check` of its own")


def check_values(loss, prediction_shape, target, what):
    """Raise unless all values of a concrete target are finite and in range, naming the first that is not."""
    if is_floating(target.dtype):
        finite("y", target)
    wrong = loss.wrong(target, prediction_shape)
    if wrong is not None:
        check_all("y", target, ~wrong, what)


def check_all(name, array, valid, what):
    """Raise unless all values of a concrete array are valid, naming the first that is not."""
    if not bool(valid.all()):
        first = tuple(np.argwhere(~np.asarray(valid))[0])
        place = ", ".join(str(i) for i in first)
        raise DataError(f"{name}: expected {what}, got {np.asarray(array)[first]} at {name}[{place}]")


def entries(y, a):
    """The target as floating-point numbers, one for each entry of the prediction: costs never broadcast."""
    if y.shape != a.shape:
        check_entries(y, a.shape)
    return floating(y, a.dtype)


def no_probability(target):
    """Where a target is below 0 or above 1."""
    return (target < 0) | (target > 1)


def over_outputs(values):
    """Sum over the outputs of each example: (N, ...) -> (N,)."""
    return values if values.ndim == 1 else values.reshape(values.shape[0], -1).sum(axis=1)


def on_diagonal(values):
    """A diagonal matrix for each example and position: (N, ..., K) -> (N, ..., K, K), and (N,) -> (N, 1)."""
    return values[:, None] if values.ndim == 1 else values[..., None] * np.eye(values.shape[-1], dtype=values.dtype)


def outputs(a):
    """K, the number of outputs per example."""
    return a[:1].size or 1


def each_output(name, numbers, like):
    """One number, or a tuple of one for each of K outputs, as it multiplies values `like` (N, ..., K), or their shape.

    A tuple becomes an array (K,) of the values' dtype; raises if there are not K.
    """
    if not isinstance(numbers, tuple):
        return numbers
    shape = getattr(like, "shape", like)
    if shape[1:] == () or len(numbers) != shape[-1]:
        raise ShapeError(f"{name}: expected a number for each output of {tuple(shape)}, got {len(numbers)}")
    return namespace(like).asarray(numbers, dtype=like.real.dtype) if hasattr(like, "shape") else numbers


# ---- targets that are classes ----------------------------------------------------------------------------------------


def no_class(target, prediction_shape, ignored=None):
    """`Loss.wrong` for labels (N, ...), which must be one of the classes 0 to C − 1, or probabilities (N, ..., C)."""
    if target.ndim == len(prediction_shape):
        return no_probability(target)
    size, classes = target.dtype.itemsize, prediction_shape[-1]
    if isinstance(target, np.ndarray) and np.maximum.reduce(target.view(f"u{size}"), None, initial=0) < classes:
        return None  # the usual case, found in half the time: a negative label is a large one without its sign
    wrong = (target < 0) | (target > min(classes - 1, np.iinfo(target.dtype).max))  # JAX compares in the labels' dtype
    return wrong if ignored is None else wrong & ~is_ignored(target, ignored)


def is_ignored(target, ignored):
    """Which labels are the one to be ignored: none, if their dtype cannot hold it, since JAX compares in that dtype."""
    if target.dtype.kind in "iu" and not np.iinfo(target.dtype).min <= ignored <= np.iinfo(target.dtype).max:
        return namespace(target).zeros(target.shape, bool)
    return target == ignored


ONE_OUTPUT = "for two classes use fnn.Dense(2), or fnn.Dense(1) with fnn.SigmoidBinaryCrossEntropy() and y[:, None]"


def check_classes(loss, prediction_shape, target, values):
    """`Loss.check` for predictions (N, ..., C): the target is labels (N, ...) or probabilities (N, ..., C)."""
    if len(prediction_shape) < 2:
        raise ShapeError(f"{loss}: expected predictions of shape (N, C) or (N, T, C), got {tuple(prediction_shape)}")
    check_one(target)
    *places, classes = prediction_shape
    of_labels, labels = tuple(places), target.ndim < len(prediction_shape)
    if tuple(target.shape) not in (of_labels, tuple(prediction_shape)):
        axes = ":" if len(of_labels) == 1 else "..."
        hint = f"; use y[{axes}, 0] for labels" if tuple(target.shape) == (*of_labels, 1) else ""
        raise ShapeError(
            f"y: expected labels of shape {of_labels} or probabilities {tuple(prediction_shape)}, "
            f"got {tuple(target.shape)}{hint}"
        )
    if classes == 1 and not labels:
        raise ShapeError(f"{loss}: expected at least two outputs, one for each class, got one; {ONE_OUTPUT}")
    if labels and target.dtype.kind not in "iu":
        raise KindError(f"y: expected integer labels, got dtype {target.dtype}; use y.astype(int)")
    if not values:
        return
    what = f"labels from 0 to {classes - 1}" + (f" or {loss.ignored}" if loss.ignored is not None else "")
    what += f", as there is one output ({ONE_OUTPUT})" if classes == 1 else ""
    check_values(loss, prediction_shape, target, what if labels else loss.targets)
    sums = np.ones(1) if labels else target.sum(axis=-1)
    if bool((abs(sums - 1) > 1e-2).any()):
        row = tuple(np.argwhere(np.asarray(abs(sums - 1) > 1e-2))[0].tolist())
        place = row[0] if len(row) == 1 else row
        raise DataError(f"y: expected probabilities that sum to 1 in each row, got a sum of {sums[row]} in row {place}")


def check_labels(loss, prediction_shape, target):
    """Raise if the target has rows, or there is one class, for a cost whose target is integer labels only."""
    if prediction_shape[-1:] == (1,):
        raise ShapeError(
            f"{loss}: expected at least two outputs, one for each class, got one; for two classes use fnn.Dense(2), "
            "or fnn.Dense(1) with fnn.BinaryFocal() and y[:, None]"
        )
    if getattr(target, "ndim", 0) >= len(prediction_shape):
        raise ShapeError(
            f"y: expected labels of shape {tuple(prediction_shape[:-1])}, as {loss} takes no rows, "
            f"got {tuple(target.shape)}; use y.argmax(axis=-1) for the labels of one-hot rows"
        )


def one_hot(loss, y, z):
    """Labels y (N, ...) as rows of bools (N, ..., C), all False for a label that is ignored, and what is to be added.

    That is (N, ..., 1): 0, but NaN for a label that is no class. Where the values are known, such a label raises, and
    None takes the place of zeros.
    """
    if y.shape != z.shape[:-1] or y.dtype.kind not in "iu":
        check_classes(loss, z.shape, y, values=False)
    xp, ignored = namespace(z, y), loss.ignored
    on_numpy = xp is np
    hot = (y if on_numpy else cast(y, np.int32))[..., None] == xp.arange(
        z.shape[-1], dtype=None if on_numpy else np.int32
    )
    if ignored is not None:
        hot = hot & ~is_ignored(y, ignored)[..., None]
    if on_numpy:
        if np.count_nonzero(hot) < (y.size if ignored is None else np.count_nonzero(~is_ignored(y, ignored))):
            check_classes(loss, z.shape, y, values=True)
        return hot, None
    wrong = no_class(y, z.shape, ignored)
    if wrong is not None and not known(wrong):
        return hot, xp.where(wrong, np.nan, 0).astype(z.dtype)[..., None]
    if wrong is not None and wrong.any():
        check_classes(loss, z.shape, y, values=True)
    return hot, None


def drawn_class(loss, key, p, target=None):
    """A label for each row of probabilities p (N, ..., C): (N, ...), the number of cumulated p that u does not reach.

    Where `target` has labels, those that are ignored stay.
    """
    xp, u = namespace(p), random.uniform(key, p.shape[:-1], p.dtype)
    label = (p.cumsum(axis=-1)[..., :-1] <= u[..., None]).sum(axis=-1).astype(np.int32)
    if loss.ignored is None or target is None or target.ndim == p.ndim:
        return label
    return xp.where(is_ignored(target, loss.ignored), loss.ignored, label)


# ---- a cost that is a function ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FunctionLoss(Loss):
    """A cost defined by any JAX function of a batch; needs JAX.

        ℓ = f(a, y)        δ = ∂ℓ/∂a, by `jax.vjp`

    Functions compare by identity, so define f once, at the top of a module.

    Args:
        f: the function, (prediction, target) -> (N,), which must treat each example independently: a function that does
            not is refused. The target may be any array, dict or NamedTuple of arrays that f accepts.

    >>> import jax
    >>> loss = FunctionLoss(lambda a, y: ((a - y) ** 4).sum(axis=1))
    >>> loss.delta(jax.numpy.array([[2.0]]), jax.numpy.array([[1.0]]))
    Array([[4.]], dtype=float32)
    """

    f: Callable[[Any, Any], Any]

    def __post_init__(self):
        super().__post_init__()
        if not callable(self.f):
            raise KindError(f"f: expected a function, got {shorten(self.f)}")

    def value(self, prediction, target):
        value = self.f(prediction, target)
        if np.shape(value) != prediction.shape[:1]:
            raise ShapeError(
                f"{self}: expected one value for each example, shape {prediction.shape[:1]}, got {np.shape(value)}; "
                f"sum over axis=-1, or use jax.vmap on a function of one example"
            )
        return value

    def delta(self, prediction, target):
        return self.value_and_delta(prediction, target)[1]

    def value_and_delta(self, prediction, target):
        if not backend.is_jax(prediction):
            raise KindError("FunctionLoss: its derivative is jax.vjp, so it needs parameters on JAX, not on NumPy")
        value, vjp = backend.need_jax("FunctionLoss").vjp(lambda a: self.value(a, target), prediction)
        return value, vjp(backend.jnp.ones_like(value))[0]

    def check(self, prediction_shape, target, values=True):
        for name, array in parts("y", target):
            if array.shape[:1] != tuple(prediction_shape[:1]):
                raise ShapeError(
                    f"{name}: expected a target for each of {prediction_shape[0]} examples, got shape {array.shape}"
                )
            if values and is_floating(array.dtype):
                finite(name, array)
        if backend.jax is not None:
            leaves, structure = backend.jax.tree.flatten(target)
            check_independent(self, prediction_shape[1:], structure, *((a.shape[1:], a.dtype) for a in leaves))


@functools.lru_cache(maxsize=1024)
def check_independent(loss, shape, structure, *targets):
    """Raise if the values of three examples differ from those of each alone, for made-up predictions and targets.

    This depends on shapes only, so it is computed once. The numbers lie in (0, 1) and, if there are several, sum to 1
    along the last axis, so that a function of probabilities takes them as well as one of logits.
    """
    rng, jax = np.random.default_rng(0), backend.need_jax("FunctionLoss")

    def made(shape, dtype):
        if not is_floating(dtype):
            return (np.arange(3 * math.prod(shape)) % 2).reshape(3, *shape).astype(dtype)
        numbers = 0.1 + rng.random((3, *shape))
        return (numbers / (1.1 if shape[-1:] in ((), (1,)) else numbers.sum(axis=-1, keepdims=True))).astype(dtype)

    @jax.jit
    def values(a, y):
        each = [loss.value(*jax.tree.map(lambda array: array[n : n + 1], (a, y))) for n in range(3)]  # noqa: B023
        return loss.value(a, y), jax.numpy.concatenate(each)

    y = jax.tree.unflatten(structure, [made(*target) for target in targets])
    with jax.ensure_compile_time_eval():
        together, alone = (np.asarray(v, np.float64) for v in values(made(shape, np.dtype(np.float32)), y))
    apart = abs(together - alone) > 1e-4 * np.nan_to_num(abs(alone)).max()
    if bool((apart & np.isfinite(together) & np.isfinite(alone)).any()):
        raise ArgumentError(
            f"{loss}: expected a function that treats each example independently, got one whose value for an example "
            f"depends on the others: {together} for three examples together, {alone} for each alone"
        )
