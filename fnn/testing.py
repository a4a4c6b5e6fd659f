"""The gradient checker: tests whether a hand-written derivative is the derivative of the formula above it.

For f and a random cotangent c let s(θ) = Σ c ⊙ f(θ), where θ are parameters and inputs. ∂s/∂θ by hand is compared,
leaf by leaf, with ∂s/∂θ by one of four methods:

    jax           jax.vjp of f itself
    complex       Im s(θ + i h e) / h with h = 10⁻³⁰: nothing is subtracted, so nothing is lost; f takes complex numbers
    difference    (4 D(h/2) − D(h)) / 3 with D(h) = (s(θ + he) − s(θ − he)) / 2h: Richardson's extrapolation
    taylor        |s(θ + εv) − s(θ) − ε ∂s/∂θ · v| for a random v: it falls fourfold as ε halves if f is smooth

Only the first needs JAX. For a leaf in which s is linear, and so has no remainder, taylor falls back to difference. A
leaf passes if its largest error is within a tolerance of its own largest entry (normwise), or is no larger than the
effect of rounding, measured by changing the last digit of c.

Source: W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions" (1998).
"""

from typing import Any

import numpy as np

from . import examples, factors, gate, random, trees
from .backend import widened
from .backpropagation import check_problem, mean_cost, value_and_grad
from .comparison import Check, floating_inputs
from .comparison import taylor_slope as taylor_slope
from .composition import walk
from .curvature.blocks import biases
from .errors import ArgumentError, KindError, ShapeError, shape, shorten
from .layers import Layer
from .losses import Loss

__all__ = ["check_gradients", "check_layer", "check_loss"]

EXAMPLES = 5


def check_layer(
    layer: Layer,
    x: Any,
    params: Any = None,
    *,
    key: Any = None,
    method: str | None = None,
    on: str | None = None,
    dtype: Any = np.float64,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Check that a layer, or a network, fulfils its contract and has the right derivatives.

    It checks the shape and dtype of the output, that no example depends on another, dx and the gradient of every
    parameter for two random δ, the factors of each example, that the tangent is the transpose of dx and the gradient,
    and that `need_dx=False` changes no gradient.

    At a kink each method has its own derivative, and a failure there says that it is one: "jax" has JAX's derivative of
    the formula, "complex" that of one side, and "difference" the mean of both sides.

    Args:
        layer: the layer or network.
        x: the shape of an input, without the batch axis, or inputs (N, ...); for several inputs a dict of shapes or of
            inputs. Integers, which have no derivative, must be given.
        params: the parameters. Default: new ones, moved off their initial values.
        key: a random key for training mode. Default: None; a layer that draws is then checked in both modes.
        method: "jax", "complex", "difference" or "taylor". Default: "jax" if JAX is installed, else "difference".
        on: the backend on which the layer runs, "jax" or "numpy". Default: that of the method.
        dtype: the dtype of the derivative by hand, float64 or float32; it is compared with float64. Default: float64.
        tolerance: the largest error allowed, relative to the largest entry of the leaf. Default: 10⁻¹² for "jax" and
            "complex", 10⁻⁷ for the others, 10⁻⁵ in float32.
        seed: the seed of everything that is drawn, including the 256 entries checked of a larger leaf if the method is
            not "jax". Default: 0.

    Raises:
        AssertionError: if a check fails; the message names the leaf, the entry and both values.

    >>> from fnn import Last, PRelu, Rnn
    >>> check_layer(PRelu(), (3,))
    >>> x = {"x": np.random.default_rng(0).normal(size=(2, 4, 2)), "length": np.array([1, 4])}
    >>> check_layer(Last(Rnn(3, all_states=True)), x, on="numpy", method="complex")
    """
    gate.check_network(layer)
    rng, dtype = np.random.default_rng(seed), _check_dtype(dtype)
    with Check(layer, method, on, dtype, tolerance, rng) as check:
        x = check.inputs(_drawn(x, rng))
        if params is None:
            new = layer.init(random.key(seed, backend="numpy"), examples.shape_of(x), np.float64)
            params = trees.map(lambda p: p + 0.1 * rng.normal(size=p.shape), new)
        params = trees.map(lambda p: check.array("params", p), params)
        for k in (key,) if key is not None or not layer.draws else (None, random.key(seed, backend="numpy")):
            _check_layer(check, layer, x, params, gate.key_for(k, trees.map(check.xp.asarray, x)))


def _drawn(x, rng):
    """Inputs, drawn where x is the shape of one, or a dict of shapes."""
    is_shape = lambda x: isinstance(x, tuple) and not hasattr(x, "_fields")
    if isinstance(x, dict):
        return {name: _drawn(x[name], rng) for name in x}
    return rng.normal(size=(EXAMPLES, *shape("x", x))) if is_shape(x) else x


def _with(x, point):
    """Inputs, with those of a point in their places."""
    return examples.each(lambda name, a: point.get(name, a), "x", x)


def _check_layer(check, layer, x, params, key):
    of_x, count = floating_inputs(x), examples.size_of(x)

    def f(point):
        return layer.forward(point["params"], _with(x, point), key)[0]

    y, residuals = layer.forward(params, x, key)
    expected = (count, *layer.output_shape(examples.shape_of(x)))
    check.that(y.shape == expected, f"output of shape {y.shape}, not {expected}, as output_shape says")
    if of_x or trees.leaves(params):
        check.that(y.dtype == check.dtype, f"output in {y.dtype}, expected {check.dtype}, as parameters and inputs are")
    for n in range(min(count, EXAMPLES)):
        its_like = trees.map(lambda a, n=n: check.xp.broadcast_to(a[n], a.shape), x)
        among_its_like = layer.forward(params, its_like, key)[0]
        check.close(f"the output of example {n} depends on the others", among_its_like[n], y[n])

    def by_hand(dy):
        dx, deltas = layer.propagate(params, residuals, dy, bool(of_x))
        return {"params": layer.gradient(params, residuals, deltas)} | check.errors_of(x, dx)

    point = {"params": params} | of_x
    random_dy = lambda: check.array("dy", check.rng.normal(size=y.shape))
    check.compare(f, point, by_hand, random_dy())
    dy = random_dy()
    check.compare(f, point, by_hand, dy)

    dx, deltas = layer.propagate(params, residuals, dy, bool(of_x))
    total, f = layer.gradient(params, residuals, deltas), layer.factors(params, residuals, deltas)
    each = factors.made(params, f, count)
    none, fewer = layer.propagate(params, residuals, dy, need_dx=False)
    check.that(none is None, "propagate with need_dx=False gives a dx")
    if trees.leaves(params):
        check.same("need_dx=False changes the gradient of", layer.gradient(params, residuals, fewer), total)
        outer = layer.outer_factors(params, residuals, deltas)
        check.same("gradient differs from the total of factors in", factors.total(params, f), total)
        check.same("gradient differs from the total of outer_factors in", factors.total(params, outer), total)
        _check_biases(check, params, outer)
    for n in range(min(count, EXAMPLES)):
        mask = (np.arange(count) == n).astype(np.float64)
        one = by_hand(dy * check.array("mask", mask.reshape(-1, *[1] * (dy.ndim - 1))))["params"]
        of_n = trees.map(lambda g, n=n: g[n], each)
        check.same(f"factors of example {n} differ from its gradient in", of_n, one, trees.map(abs, total))
    if check.on == "jax" or not any(type(part).tangent is Layer.tangent for _, part in walk(layer)):
        _check_tangent(check, layer, x, params, residuals, dy, {"params": total} | check.errors_of(x, dx))


def _check_biases(check, params, outer):
    """A parameter `b` beside a weight `w` is its bias, as K-FAC assumes: its gradient is the sum of the δ of w."""
    leaves = [g for _, g in factors.pairs(params, outer)]
    for w, b in biases(params).items():
        if isinstance(leaves[w], factors.Outer) and not isinstance(leaves[b], factors.Outer | factors.Rows | None):
            delta = widened(leaves[w].delta)
            what = "b, beside w, is not its bias, whose gradient is the sum of the δ of w; give b another name:"
            check.same(what, leaves[b], delta.sum(axis=1) if delta.ndim == 3 else delta)


def _check_tangent(check, layer, x, params, residuals, dy, by_hand):
    """⟨tangent(u), δ⟩ = ⟨u, (dx, gradient)⟩ for a random u: forward mode is the transpose of backward mode."""
    of_x = floating_inputs(x)
    u = trees.map(lambda a: check.array("direction", check.rng.normal(size=a.shape)), {"params": params} | of_x)

    def both(u):
        """The two sides, and the size of what is added."""
        dx = examples.each(lambda name, a: u.get(name, 0 * a), "x", x) if of_x else None
        moved = layer.tangent(params, residuals, u["params"], dx)
        check.that(moved is None or moved.shape == dy.shape, "tangent is not shaped as the output")
        terms = [np.asarray(a) * np.asarray(b) for a, b in zip(*map(trees.leaves, (u, by_hand)), strict=True)]
        forwards = 0.0 if moved is None else float((np.asarray(moved) * np.asarray(dy)).sum())
        return forwards, sum(float(term.sum()) for term in terms), sum(float(abs(term).sum()) for term in terms)

    what = "tangent is not the transpose of backward and gradient"
    if check.agree(*both(u)):
        return
    places = [place for root in sorted(u) for place, _ in trees.paths(u[root], root)]
    for i, place in enumerate(places):  # the first that is wrong alone is named
        number = iter(range(len(places)))
        check.close(f"{what}, along {place}", *both(trees.map(lambda a: a if next(number) == i else 0 * a, u)))  # noqa: B023
    check.close(what, *both(u))


def check_loss(
    loss: Loss,
    prediction: Any,
    target: Any,
    *,
    method: str | None = None,
    on: str | None = None,
    dtype: Any = np.float64,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Check that the `delta` of a cost is the derivative of its `value`, for each example.

    It also checks shapes and dtypes, that no example depends on another, and that `value_and_delta` agrees with both.

    Args:
        loss: the cost.
        prediction: (N, ...).
        target: a target that fits the prediction.
        method: as for `check_layer`.
        on: as for `check_layer`.
        dtype: as for `check_layer`.
        tolerance: as for `check_layer`.
        seed: as for `check_layer`.

    Raises:
        AssertionError: if a check fails.

    >>> from fnn import Huber
    >>> check_loss(Huber(), np.array([[0.3], [-2.0]]), np.array([[0.1], [0.2]]))
    """
    gate.check_cost(loss)
    rng, dtype = np.random.default_rng(seed), _check_dtype(dtype)
    with Check(loss, method, on, dtype, tolerance, rng) as check:
        a, y = check.array("prediction", prediction).astype(dtype), check.array("target", target)
        if a.ndim < 1 or not len(a):
            raise ShapeError(f"prediction: expected (N, ...), got an array of shape {a.shape}")
        try:
            loss.check(a.shape, y)
        except ArgumentError as error:  # a function that couples examples
            raise AssertionError(str(error)) from None

        value, delta = loss.value(a, y), loss.delta(a, y)
        check.that(value.shape == a.shape[:1], f"value of shape {value.shape}, expected {a.shape[:1]}")
        check.that(delta.shape == a.shape, f"delta of shape {delta.shape}, expected {a.shape}")
        check.that(value.dtype == delta.dtype == dtype, f"value, delta in {value.dtype}, {delta.dtype}, not in {dtype}")
        for n in range(min(len(a), EXAMPLES)):
            among_its_like = loss.value(check.xp.broadcast_to(a[n], a.shape), y)
            alone = loss.value(a[n : n + 1], trees.map(lambda t, n=n: t[n : n + 1], y))
            check.close(f"the value of example {n} depends on the others", among_its_like[n], value[n])
            check.close(f"the value of example {n} depends on the others", alone[0], value[n])
        check.same("value_and_delta differs from value and delta in", loss.value_and_delta(a, y), (value, delta))

        def by_hand(c):
            return {"prediction": delta * c.reshape(-1, *[1] * (a.ndim - 1))}

        for _ in range(2):
            c = check.array("cotangent", rng.normal(size=len(a)))
            check.compare(lambda point: loss.value(point["prediction"], y), {"prediction": a}, by_hand, c)
        slope = loss.outer(value.mean())[1]
        mean = {"mean of the values": check.array("mean", value.mean()[None])}
        check.compare(
            lambda point: loss.outer(point["mean of the values"].sum())[0],
            mean,
            lambda c: {"mean of the values": (slope * c)[None]},
            check.array("cotangent", 1.0),
        )


def check_gradients(
    net: Layer,
    loss: Loss,
    params: Any,
    x: Any,
    y: Any,
    weights: Any = None,
    key: Any = None,
    *,
    penalty: Any = None,
    method: str | None = None,
    on: str | None = None,
    dtype: Any = np.float64,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Check that `value_and_grad` is right for a network: the gradient of the mean cost, penalty included, and dx.

    Args:
        net: the network.
        loss: the cost.
        params: the parameters.
        x: the inputs (N, ...).
        y: their targets.
        weights: (N,). Default: None.
        key: a random key for training mode. Default: None.
        penalty: as for `value_and_grad`. Default: None.
        method: as for `check_layer`.
        on: as for `check_layer`.
        dtype: as for `check_layer`.
        tolerance: as for `check_layer`.
        seed: as for `check_layer`.

    Raises:
        AssertionError: if a check fails.

    >>> from fnn import Dense, Quadratic
    >>> net = Dense(2)
    >>> params = net.init(random.key(0, backend="numpy"), (4,))
    >>> check_gradients(net, Quadratic(), params, np.ones((5, 4)), np.zeros((5, 2)))
    """
    check_problem(net, loss, penalty)
    rng, dtype = np.random.default_rng(seed), _check_dtype(dtype)
    with Check(net, method, on, dtype, tolerance, rng) as check:
        params = trees.map(lambda p: check.array("params", p), params)
        x, y = check.inputs(x), examples.each(check.array, "y", y)
        weights = None if weights is None else check.array("weights", weights)
        key, of_x = gate.key_for(key, x), floating_inputs(x)
        count = examples.size_of(x)
        loss.check((count, *net.output_shape(examples.shape_of(x))), y)

        def f(point):
            prediction = net.forward(point["params"], _with(x, point), key)[0]
            value = mean_cost(loss, loss.value(prediction, y), weights)[0]
            return value if penalty is None else value + penalty.value(point["params"])

        run = value_and_grad(net, loss, penalty=penalty, need_dx=bool(of_x))

        def by_hand(c, weights=weights):
            grads = run(params, x, y, weights, key)[1]
            grads, dx = grads if of_x else (grads, None)
            grads = {"params": grads} | check.errors_of(x, dx)
            return trees.map(lambda g: g * check.xp.asarray(c, dtype=g.dtype), grads)

        def noise():  # weights take the place of a cotangent: the last digit of each example's share
            ones = np.ones(count) if weights is None else np.asarray(weights, np.float64)
            return by_hand(1.0, check.array("weights", check.last_digit(ones)))

        point = {"params": params} | of_x
        check.close("the value is not that of forward", run(params, x, y, weights, key)[0], f(point))
        check.compare(f, point, by_hand, check.xp.asarray(1.0, dtype=dtype), noise=noise)


def _check_dtype(dtype):
    if dtype not in (np.float64, np.float32, "float64", "float32"):
        raise KindError(f"dtype: expected float64 or float32, got {shorten(dtype)}")
    return np.dtype(dtype)
