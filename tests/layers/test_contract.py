"""Every layer keeps the contract of fnn.layers.base, users' own ones included: one table, and each promise over it."""

import functools
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import GATED, THOROUGH, Gain, GainParams, Mean, key, moved, on, wide

import fnn
from fnn import errors, factors, static, trees
from fnn.backend import Unbatched, jax
from fnn.composition import Kept
from fnn.networks import like_inputs
from fnn.testing import check_layer

D, S = fnn.Dense, fnn.Serial

SMALL = fnn.Normal(0.02)  # weights with which a Hopfield network settles to the last digit
HOPFIELD = fnn.Hopfield((D(3), fnn.Tanh(), D(2, initializer=SMALL), fnn.Tanh(), D(2, initializer=SMALL)), steps=24)
HOPFIELD_OF_IMAGES = fnn.Hopfield((fnn.Conv(2, (2, 2)), fnn.Tanh(), fnn.Conv(2, (2, 2), initializer=SMALL)), steps=24)
GOODNESS = fnn.Goodness((D(4), fnn.Tanh(), D(3), fnn.Softplus(), D(2)), classes=3)

# By name: the layer, and the shapes of its input and output.
LAYERS = {
    "dense": (D(3), (5,), (3,)),
    "dense without bias": (D(3, bias=False), (5,), (3,)),
    "dense on positions": (D(3), (4, 5), (4, 3)),
    "dense on two axes of positions": (D(3), (2, 2, 5), (2, 2, 3)),
    "rnn": (fnn.Rnn(3), (4, 2), (3,)),
    "lstm": (fnn.Lstm(3), (4, 2), (3,)),
    "lstm, all states": (fnn.Lstm(3, all_states=True), (4, 2), (4, 3)),
    "gru, all states": (fnn.Gru(3, all_states=True), (4, 2), (4, 3)),
    "images": (S((fnn.Conv(3, (2, 2)), fnn.Relu(), fnn.MaxPool((2, 2)), fnn.Flatten(), D(2))), (5, 5, 2), (2,)),
    "scale": (fnn.Scale(0.3), (2, 3), (2, 3)),
    "flatten": (fnn.Flatten(), (2, 3), (6,)),
    "dropout": (fnn.Dropout(0.3), (5,), (5,)),
    "layer norm": (fnn.LayerNorm(), (5,), (5,)),
    "layer norm of rows": (fnn.LayerNorm(), (2, 3), (2, 3)),
    "rms norm": (fnn.RMSNorm(), (5,), (5,)),
    "rms norm of rows": (fnn.RMSNorm(eps=0.1), (2, 3), (2, 3)),
    "standardize": (fnn.Standardize(), (2, 3), (2, 3)),
    "standardize numbers": (S((fnn.Standardize(), fnn.Sigmoid())), (), ()),
    "learnt activations": (S((fnn.PRelu(), fnn.Swish(learnt=True, per_unit=True))), (5,), (5,)),
    "residual": (fnn.Residual(S((D(4), fnn.Tanh(), D(5)))), (5,), (5,)),
    "computed again": (fnn.Remat(S((D(4), fnn.Tanh(), D(5)))), (5,), (5,)),
    "residual that drops out": (fnn.Residual(fnn.Dropout(0.3)), (5,), (5,)),
    "parallel": (fnn.Parallel((fnn.Identity(), D(4), fnn.mlp((3, 2), fnn.Tanh()))), (5,), (11,)),
    "parallel of rows": (fnn.Parallel((fnn.LayerNorm(), fnn.Scale(2.0))), (2, 3), (2, 6)),
    "parallel that drops out": (fnn.Parallel((fnn.Dropout(0.3), fnn.Dropout(0.3))), (5,), (10,)),
    "rrelu in training": (fnn.RRelu(), (5,), (5,)),
    "hopfield": (HOPFIELD, (2,), (2,)),
    "goodness": (GOODNESS, (4,), (3,)),
    "own": (Gain(), (5,), (5,)),
    "own without a tangent": (S((D(3), Mean(), D(2))), (4, 5), (2,)),
    "own composition": (S((GATED, fnn.Tanh(), D(3))), (5,), (3,)),
    "own in a serial": (S((fnn.Flatten(), Gain(), D(4))), (2, 3), (4,)),
    "empty serial": (S(()), (5,), (5,)),
}
IMAGES = {  # which test_convolution.py and test_pooling.py compare with JAX
    "conv": (fnn.Conv(3, (3, 2), (2, 1), "same"), (5, 4, 2), (3, 4, 3)),
    "conv of sequences in groups": (fnn.Conv(4, (2,), 1, ((1, 0),), 2, 2), (6, 2), (5, 4)),
    "conv without bias, of many channels": (fnn.Conv(6, (2,), bias=False), (3, 8), (2, 6)),
    "max pool": (fnn.MaxPool((2, 2), 1, "same"), (3, 4, 2), (3, 4, 2)),
    "avg pool": (fnn.AvgPool((2, 2), 1, "same"), (3, 4, 2), (3, 4, 2)),
    "global max pool": (fnn.GlobalMaxPool(), (3, 2, 2), (2,)),
    "global avg pool": (fnn.GlobalAvgPool(), (3, 2, 2), (2,)),
}
OTHERS = {  # of which the table above has another one
    "hopfield of images": (S((HOPFIELD_OF_IMAGES, fnn.Flatten())), (3, 3, 1), (2,)),
    "goodness of one stage": (fnn.Goodness((D(3), fnn.Tanh()), classes=2), (4,), (2,)),
}
FROZEN = {  # for which jax.vjp of the formula has another gradient: it is 0 by hand
    "frozen": (fnn.Frozen(D(3)), (5,), (3,)),
    "frozen within": (S((D(3), fnn.Frozen(D(3)), fnn.PRelu())), (5,), (3,)),
    "frozen at the bottom": (S((fnn.Frozen(fnn.mlp((4, 3))), D(2))), (5,), (2,)),
}
ALL = LAYERS | IMAGES | OTHERS | FROZEN
N = 5


def case(name):
    """Layer, parameters, x, δ and directions (dparams, dx), in float64 on NumPy."""
    layer, input_shape, output_shape = (ALL)[name]
    params, rng = moved(layer, input_shape), np.random.default_rng(0)
    x, dx = rng.normal(size=(2, N, *input_shape))
    return (
        layer,
        params,
        x,
        rng.normal(size=(N, *output_shape)),
        trees.map(lambda p: rng.normal(size=p.shape), params),
        dx,
    )


QUANTITIES = "output", "gradient", "total of the factors", "dx", "factors", "tangent"
NotThere = object()


def by_hand(layer, params, x, dy, dparams, dx, key=None, tangent=True):
    """What QUANTITIES names, by the layer's own formulas."""
    y, residuals = layer.forward(params, x, key)
    below, deltas = layer.propagate(params, residuals, dy)
    f = layer.factors(params, residuals, deltas)
    made, total = factors.made(params, f, len(x)), factors.total(params, f)
    grads = layer.gradient(params, residuals, deltas)
    return y, grads, total, below, made, layer.tangent(params, residuals, dparams, dx) if tangent else NotThere


def by_jax(layer, params, x, dy, dparams, dx, key=None):
    """The same by JAX of `forward` alone."""
    f = lambda params, x: layer.forward(params, x, key)[0]
    y, tangent = jax.jvp(f, (params, x), (dparams, dx))
    grads, below = jax.vjp(f, params, x)[1](dy)
    of_one = lambda n, dy: jax.vjp(lambda p: f(p, x)[n], params)[1](dy)[0]
    made = jax.vmap(of_one)(np.arange(len(x)), dy)
    return y, grads, grads, below, made, tangent


@functools.cache
def both(names):
    """`(by hand, by JAX, new parameters and their output)` of each layer, in training: one program, not many."""
    run = lambda cases: [
        (*(of(layer, *c, key("jax", 2)) for of in (by_hand, by_jax)), new(layer, c[1], "jax"))
        for layer, c in zip([(ALL)[name][0] for name in names], cases, strict=True)
    ]
    with wide():
        found = oracle.quick_jit(run)([on("jax", case(name)[1:]) for name in names])
        return dict(zip(names, trees.map(np.asarray, found), strict=True))


def new(layer, x, backend):
    """Parameters in float32, and an output of theirs."""
    params = layer.init(key(backend, 2), x.shape[1:])
    return params, layer.apply(params, x.astype(np.float32), key(backend, 2))


@pytest.mark.parametrize("names", [tuple(LAYERS)[i::3] for i in range(3 if THOROUGH else 1)], ids=str)
def test_output_gradient_factors_dx_and_tangent_of_a_layer_are_jaxs_on_both_backends(names, needs_jax):
    for name, (ours, wanted, in_float32) in both(names).items():
        layer, *arguments = case(name)
        assert ours[0].shape == (N, *LAYERS[name][2]) == (N, *layer.output_shape(LAYERS[name][1])), name
        found = [ours]
        if "rrelu" not in name:  # whose slopes are drawn in float32
            found += [by_hand(layer, *arguments, key(seed=2), tangent="own" not in name)]
        for what, *pair in zip(QUANTITIES, *found, wanted, strict=True):
            for a in pair[:-1]:
                if a is not NotThere:
                    oracle.assert_close({name: {what: a}}, {name: {what: pair[-1]}}, 1e-12)
        oracle.assert_close(new(layer, arguments[1], "numpy"), in_float32, 1e-5)
        assert {leaf.dtype for leaf in trees.leaves(in_float32)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.numpy_alone
def test_a_layer_has_the_derivatives_of_the_complex_step_and_factors_of_each_example(name, dtype):
    layer, input_shape, _ = (ALL)[name]
    x = np.random.default_rng(3).normal(size=(8, *input_shape))
    check_layer(layer, x, method="complex", on="numpy", dtype=dtype)


# ---- tangents --------------------------------------------------------------------------------------------------------


def zeros(tree):
    return trees.map(lambda a: 0 * a, tree)


def without_each(dparams):
    """For each leaf of a direction: with None, and with 0, in its place."""
    places = range(len(trees.leaves(dparams)))
    for i in places:
        numbers = iter(places), iter(places)
        yield tuple(
            trees.map(lambda v, n=n, zero=zero: zero(v) if next(n) == i else v, dparams)  # noqa: B023 - called at once
            for n, zero in zip(numbers, (lambda v: None, lambda v: 0 * v), strict=True)
        )


@pytest.mark.parametrize("name", [name for name in ALL if "own" not in name])
def test_none_in_a_direction_means_zero(name):
    layer, params, x, _, dparams, dx = case(name)
    residuals = layer.forward(params, x)[1]
    tangent = lambda dparams, dx: layer.tangent(params, residuals, dparams, dx)
    nothing = trees.map(lambda v: None, dparams)
    assert tangent(None, None) is None
    assert tangent(nothing, None) is None
    for none in (None, nothing):
        oracle.assert_close(tangent(none, dx), tangent(zeros(dparams), dx), 1e-12)
    if tangent(dparams, None) is not None:
        oracle.assert_close(tangent(dparams, None), tangent(dparams, zeros(dx)), 1e-12)
    for none, zero in without_each(dparams):
        oracle.assert_close(tangent(none, dx), tangent(zero, dx), 1e-12)


def test_none_in_the_direction_of_an_inherited_tangent_means_zero(needs_jax):
    layer, *rest = case("own composition")

    def run(params, x, dy, dparams, dx):
        residuals = layer.forward(params, x)[1]
        tangent = lambda dparams, dx: layer.tangent(params, residuals, dparams, dx)
        assert tangent(None, None) is tangent(trees.map(lambda v: None, dparams), None) is None
        at_the_top, at_a_leaf = (None, *dparams[1:]), (*dparams[:2], dparams[2]._replace(b=None))
        still = (zeros(dparams[0]), *dparams[1:]), (*dparams[:2], dparams[2]._replace(b=zeros(dparams[2].b)))
        return [
            (tangent(None, dx), tangent(zeros(dparams), dx)),
            (tangent(dparams, None), tangent(dparams, zeros(dx))),
            *[
                (tangent(none, dx), tangent(zero, dx))
                for none, zero in zip((at_the_top, at_a_leaf), still, strict=True)
            ],
        ]

    with wide():
        for found, wanted in oracle.quick_jit(run)(*on("jax", rest)):
            oracle.assert_close(found, wanted, 1e-12)


def drawn(rng, width, depth=3):
    """A network of that many inputs and outputs at each position, nested at random."""
    if depth == 0 or width == 1:
        return [D(width), fnn.Tanh(), fnn.LayerNorm(), fnn.PRelu(), fnn.Dropout(0.4), fnn.Softmax()][rng.integers(6)]
    half, inner = width // 2, lambda: drawn(rng, width, depth - 1)
    return [
        lambda: S((inner(), D(width, bias=False), inner())),
        lambda: fnn.Residual(inner()),
        lambda: fnn.Parallel((S((D(half), drawn(rng, half, depth - 1))), S((inner(), D(width - half))))),
        lambda: fnn.Frozen(inner()),
        lambda: Gated3(inner(), inner(), inner()),
    ][rng.integers(5)]()


@dataclass(frozen=True)
class Gated3(type(GATED)):
    """A user's composition with a tangent, for NumPy."""

    def tangent(self, params, residuals, dparams, dx):
        (f, g), inner = residuals
        moved = None if dparams is None else dparams
        sides = lambda tree: (tree.value, tree.gates["scale"], tree.gates["shift"])
        none = (None,) * 3
        df, dg, dh = (
            layer.tangent(p, r, d, dx)
            for layer, p, r, d in zip(
                self._layers(), sides(params), sides(inner), none if moved is None else sides(moved), strict=True
            )
        )
        return fnn.layers.base.added(None if df is None else df * g, None if dg is None else f * dg, dh)


def assert_transposed(net, params, x, key, rng):
    """⟨tangent(u), δ⟩ = ⟨u, (dx, gradient)(δ)⟩."""
    y, residuals = net.forward(params, x, key)
    draw = lambda a: fnn.backend.namespace(a).asarray(rng.normal(size=a.shape))
    dy, dparams, dx = draw(y), trees.map(draw, params), trees.map(draw, x)
    below, deltas = net.propagate(params, residuals, dy)
    forwards = (net.tangent(params, residuals, dparams, dx) * dy).sum()
    of = zip(*map(trees.leaves, ((dparams, dx), (net.gradient(params, residuals, deltas), below))), strict=True)
    terms = [np.asarray(u * v) for u, v in of]
    scale = sum(abs(term).sum() for term in terms)
    assert abs(forwards - sum(term.sum() for term in terms)) <= 1e-12 * scale, net


@pytest.mark.parametrize("seed", range(60 if THOROUGH else 20))
def test_a_tangent_is_the_transpose_of_backward_and_gradient_in_nested_networks(seed):
    rng = np.random.default_rng(seed)
    net = drawn(rng, 6)
    input_shape = [(6,), (3, 6)][seed % 2]
    assert_transposed(net, moved(net, input_shape), rng.normal(size=(N, *input_shape)), key(seed=seed), rng)


NAMED = fnn.Parallel((D(3), S((D(2), fnn.Tanh())), D(4)), inputs=("b", "a", "b"))


def test_a_tangent_of_several_inputs_is_the_transpose():
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(N, 3)), "b": rng.normal(size=(N, 5)), "unused": rng.normal(size=(N, 2))}
    params = NAMED.init(key(), {"a": (3,), "b": (5,)}, np.float64)
    assert_transposed(NAMED, params, x, key(), rng)


@dataclass(frozen=True)
class Weighed(fnn.networks.Around):
    """A user's composition of several inputs, y = s f(x), without a tangent."""

    @property
    def parts(self):
        return self.layer

    def forward(self, params, x, key=None):
        y, residuals = self.layer.forward(params, x["x"], key)
        return x["s"][:, None] * y, Kept((y, x), residuals)

    def propagate(self, params, residuals, dy, need_dx=True):
        (y, x), inner = residuals
        dx, deltas = self.layer.propagate(params, inner, x["s"][:, None] * dy, need_dx)
        return (like_inputs({"x": dx, "s": (dy * y).sum(axis=1)}, x) if need_dx else None), deltas


def test_an_inherited_tangent_of_several_inputs_is_jaxs_and_integers_have_none(needs_jax):
    net, draw = Weighed(D(2)), np.random.default_rng(0).normal
    params, x = moved(D(2), (3,)), {"x": draw(size=(N, 3)), "s": draw(size=N), "unused": np.arange(N)}
    still, moving = {"unused": x["unused"]}, {"x": draw(size=(N, 3)), "s": draw(size=N)}

    def run(params, x, moving):
        ours = net.tangent(params, net.forward(params, x)[1], None, moving | {"unused": 0 * x["unused"]})
        return ours, jax.jvp(
            lambda part: net.forward(params, part | still)[0], ({k: x[k] for k in moving},), (moving,)
        )[1]

    with wide():
        oracle.assert_close(*oracle.quick_jit(run)(*on("jax", (params, x, moving))), 1e-12)


@pytest.mark.parametrize("seed", range(12 if THOROUGH else 2))
def test_an_inherited_tangent_is_jaxs_of_apply_in_nested_networks(seed, needs_jax):
    rng = np.random.default_rng(seed)
    net = S((GATED, drawn(rng, 4, 2), Gain(), D(2)))
    params, draw = moved(net, (4,)), lambda a: rng.normal(size=a.shape)
    x = rng.normal(size=(N, 4))
    free = trees.map_learnt(draw, params, fixed=lambda p: 0 * p)  # what is frozen doesn't move

    def run(params, x, dparams, dx):
        ours = net.tangent(params, net.forward(params, x, key("jax"))[1], dparams, dx)
        return ours, jax.jvp(lambda p, x: net.apply(p, x, key("jax")), (params, x), (dparams, dx))[1]

    with wide():
        oracle.assert_close(*oracle.quick_jit(run)(*on("jax", (params, x, free, draw(x)))), 1e-12)


@dataclass(frozen=True)
class Bent(fnn.Layer):
    """y = x, with a backward pass that is no linear function of δ."""

    fault: str

    def forward(self, params, x, key=None):
        return x, x

    def backward(self, params, x, dy):
        return dy * dy if self.fault == "square" else _with_own_derivative(dy)


if jax is not None:

    @jax.custom_vjp
    def _with_own_derivative(dy):
        return dy

    _with_own_derivative.defvjp(lambda dy: (dy, ()), lambda _, d: (d,))


@pytest.mark.parametrize("fault", ["square", "custom_vjp"])
def test_a_backward_pass_that_is_not_linear_is_named(fault, needs_jax):
    x = jax.numpy.ones((2, 3))
    with pytest.raises(errors.KindError, match=r"Bent\.backward: expected a function that is linear in dy"):
        Bent(fault).tangent((), x, (), x)


def test_an_inherited_tangent_needs_jax_and_names_the_method():
    params, x = GainParams(np.ones(3)), np.ones((2, 3))
    with pytest.raises(errors.KindError, match=r"Gain\.tangent"):
        Gain().tangent(params, x, params, x)


@dataclass(frozen=True)
class Forgetful(fnn.Layer):
    """y = x + g, which remembers nothing."""

    def init(self, key, input_shape, dtype=np.float32):
        return GainParams(fnn.Ones()(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        return x + params.gain, ()

    def backward(self, params, residuals, dy):
        return dy

    def factors(self, params, residuals, dy):
        return GainParams(dy)


def test_an_inherited_tangent_that_cannot_know_the_outputs_shape_asks_for_dx(needs_jax):
    params, x = on("jax", (GainParams(np.ones(3, np.float32)), np.ones((2, 3), np.float32)))
    with pytest.raises(errors.KindError, match=r"Forgetful\.tangent: expected dx as an array of zeros"):
        Forgetful().tangent(params, (), params, None)
    np.testing.assert_array_equal(Forgetful().tangent(params, (), params, 0 * x), np.ones((2, 3)))


# ---- what is inherited, and what is not ------------------------------------------------------------------------------


@pytest.mark.thorough(backend="jax")
def test_of_factors_and_gradient_the_one_that_is_missing_is_derived_and_never_the_parents(backend):
    @dataclass(frozen=True)
    class OnlyGradient(D):
        def gradient(self, params, x, dy):
            return trees.map(lambda g: 2 * g, fnn.DenseParams(dy.T @ x, dy.sum(axis=0)))

    @dataclass(frozen=True)
    class OnlyFactors(D):
        def factors(self, params, x, dy):
            return fnn.DenseParams(factors.Outer(2 * dy, x), 2 * dy)

    params, x, dy = on(backend, (moved(D(2), (3,)), *np.random.default_rng(0).normal(size=(2, N, 3))))
    dy = dy[:, :2]
    for layer in (OnlyGradient(2), OnlyFactors(2)):
        made = factors.made(params, layer.factors(params, x, dy))
        oracle.assert_close(made, trees.map(lambda g: 2 * g, factors.made(params, D(2).factors(params, x, dy))), 1e-5)
        oracle.assert_close(layer.gradient(params, x, dy), trees.map(lambda g: g.sum(axis=0), made), 1e-5)
    again = type("Again", (OnlyGradient,), {"factors": lambda self, params, x, dy: fnn.DenseParams(dy, dy)})
    assert again.gradient is fnn.Layer.gradient, "also two classes down"


def forward(self, params, x, key=None):
    return x, x


def backward(self, params, x, dy):
    return dy


REFUSED = {
    "forward of Dense": (D, {"forward": forward}, "expected `factors` or `gradient`.*those of Dense"),
    "backward of Dense": (D, {"backward": backward}, "expected `factors` or `gradient`"),
    "forward of a layer of one's own": (Gain, {"forward": forward}, "expected.*those of Gain belong to another one"),
    "forward of LayerNorm": (fnn.LayerNorm, {"forward": forward}, "expected `factors` or `gradient`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_formula_that_replaces_one_with_parameters_without_its_gradient_is_refused(name):
    base, methods, message = REFUSED[name]
    with pytest.raises(errors.KindError, match=f"New: {message}"):
        type("New", (base,), methods)


@pytest.mark.parametrize("base", [fnn.Scale, fnn.Relu, fnn.Dropout, S, fnn.Residual, fnn.Frozen, fnn.Layer])
def test_where_there_are_no_parameters_of_its_own_forward_may_be_replaced_alone(base):
    assert type("New", (base,), {"forward": forward, "backward": backward}).factors is base.factors


@pytest.mark.parametrize("name", ["forward", "backward", "propagate"])
@pytest.mark.parametrize("base", [D, fnn.Tanh, S, fnn.LayerNorm])
def test_a_formula_that_is_replaced_takes_the_parents_tangent_with_it(base, name):
    own = {name: getattr(base, name), "factors": base.factors, "gradient": base.gradient}
    assert type("New", (base,), own).tangent is fnn.Layer.tangent
    assert type("New", (base,), own | {"tangent": base.tangent}).tangent is base.tangent
    assert type("New", (base,), {"output_shape": base.output_shape}).tangent is base.tangent


@pytest.mark.parametrize("name", ["factors", "gradient"])
def test_a_gradient_that_is_replaced_takes_the_parents_outer_factors_with_it(name):
    assert type("New", (fnn.Conv,), {name: getattr(fnn.Conv, name)}).outer_factors is fnn.Layer.outer_factors
    assert type("New", (fnn.Conv,), {"output_shape": fnn.Conv.output_shape}).outer_factors is fnn.Conv.outer_factors


def test_a_class_that_is_defined_again_replaces_the_earlier_one():
    define = lambda: type("Notebook", (fnn.Relu,), {"__module__": "__main__", "__qualname__": "Notebook"})
    first, second = define(), define()
    assert first is not second
    assert static.registered(fnn.Layer)["__main__.Notebook"] is second
    assert list(static.registered(fnn.Layer))[-1] == "__main__.Notebook"


def test_each_class_that_has_a_gradient_of_its_own_is_in_the_table_that_compares_it_with_the_factors():
    def with_gradient(cls):
        return vars(cls).get("gradient", fnn.Layer.gradient) is not fnn.Layer.gradient

    known = [type(part) for layer, *_ in (ALL).values() for _, part in fnn.composition.walk(layer)]
    ours = [cls for cls in static.registered(fnn.Layer).values() if cls.__module__.startswith("fnn.")]
    missing = [cls for cls in ours if with_gradient(cls) and not any(issubclass(k, cls) for k in known)]
    assert not missing
    assert D in filter(with_gradient, ours)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_the_total_of_the_factors(name):
    layer, params, x, dy, *_ = case(name)
    residuals = layer.forward(params, x, key(seed=2))[1]
    deltas = layer.propagate(params, residuals, dy)[1]
    total = factors.total(params, layer.factors(params, residuals, deltas))
    oracle.assert_close(total, layer.gradient(params, residuals, deltas), 1e-12)


# ---- residuals without examples --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit(fnn.Layer):
    """y = x · w / ‖w‖, with a norm that is computed once for all examples."""

    def init(self, key, input_shape, dtype=np.float32):
        return GainParams(fnn.Normal(1.0)(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        norm = fnn.backend.namespace(x).sqrt((params.gain**2).sum())
        return x * params.gain / norm, (x, Unbatched(norm))

    def backward(self, params, residuals, dy):
        return dy * params.gain / residuals[1].value

    def gradient(self, params, residuals, dy):
        (x, norm), w = residuals, params.gain
        g = (dy * x).sum(axis=0) / norm.value
        return GainParams(g - w * (g @ w) / norm.value**2)


@pytest.mark.thorough(backend="jax")
def test_residuals_without_an_axis_of_examples_are_handed_on_whole(backend):
    net, loss = S((D(4), Unit(), fnn.Frozen(Unit()), D(3))), fnn.SoftmaxCrossEntropy()
    x, y = np.random.default_rng(0).normal(size=(N, 5)), np.arange(N) % 3

    def run(params):
        of = fnn.per_example.gradients, fnn.per_example.norms
        one_by_one = [fnn.grad(net, loss)(params, x[n : n + 1], y[n : n + 1]) for n in range(N)]
        return *(make(net, loss)(params, x, y) for make in of), one_by_one

    with wide():
        params = on(backend, moved(net, (5,)))
        made, norms, one_by_one = (run if backend == "numpy" else oracle.quick_jit(run))(params)
        squares = [sum((np.asarray(g) ** 2).sum() for g in trees.leaves(one)) for one in one_by_one]
        oracle.assert_close(norms, np.sqrt(squares), 1e-12)
        for n, one in enumerate(one_by_one):
            oracle.assert_close(trees.map(lambda g, n=n: g[n], made), one, 1e-12)


@dataclass(frozen=True)
class Unmarked(Unit):
    """Its norm is not marked as one without examples."""

    def forward(self, params, x, key=None):
        y, (x, norm) = super().forward(params, x)
        return y, (x, norm.value)

    def backward(self, params, residuals, dy):
        return super().backward(params, (residuals[0], Unbatched(residuals[1])), dy)

    def gradient(self, params, residuals, dy):
        return super().gradient(params, (residuals[0], Unbatched(residuals[1])), dy)


def test_residuals_without_an_axis_of_examples_that_are_not_marked_are_named():
    net, loss = S((Unmarked(), D(3))), fnn.SoftmaxCrossEntropy()
    params, x, y = moved(net, (5,), np.float32), np.ones((N, 5), np.float32), np.arange(N) % 3
    assert np.isfinite(fnn.value_and_grad(net, loss)(params, x, y)[0])
    for make in (fnn.per_example.norms, fnn.per_example.gradients):
        with pytest.raises(errors.ShapeError, match=rf"Unmarked: expected residuals with the {N} examples .*Unbatched"):
            make(net, loss)(params, x, y)


def test_the_checker_takes_residuals_without_an_axis_of_examples():
    check_layer(Unit(), (4,), method="complex", on="numpy")


# ---- what a layer without a gradient says ----------------------------------------------------------------------------


@dataclass(frozen=True)
class NoGradient(fnn.Layer):
    def init(self, key, input_shape, dtype=np.float32):
        return fnn.Ones()(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        return x * params, x

    def backward(self, params, x, dy):
        return dy * params


def test_a_layer_with_parameters_and_without_a_gradient_says_so():
    params = NoGradient().init(key(), (2,))
    for run in (fnn.grad, fnn.per_example.norms):
        with pytest.raises(errors.KindError, match="NoGradient: expected a method `factors` or `gradient`"):
            run(NoGradient(), fnn.Quadratic())(params, np.ones((1, 2)), np.ones((1, 2)))
