"""What a composition says of its parts is enough: one traversal serves every tree, and a user's own composition too."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import GATED, Gain, Mean, Sides, key, moved, on, wide

import fnn
from fnn import composition, errors, factors, trees
from fnn.backend import jax
from fnn.composition import each, forward_recorded, over_parts, walk

D, S = fnn.Dense, fnn.Serial
NETS = {
    "a layer": (D(3), (5,)),
    "serial": (S((D(4), fnn.Tanh(), S((D(3), fnn.Relu())), D(2))), (5,)),
    "empty": (S((S(()), D(2))), (5,)),
    "residual": (fnn.Residual(S((D(4), fnn.Tanh(), D(5)))), (5,)),
    "parallel": (fnn.Parallel((fnn.Identity(), S((D(4), fnn.Tanh())), D(2))), (5,)),
    "frozen": (S((D(4), fnn.Frozen(S((D(4), fnn.Tanh()))), D(2))), (5,)),
    "own": (S((GATED, fnn.Tanh(), D(2))), (5,)),
    "own within": (fnn.Parallel((fnn.Residual(S((GATED, D(5)))), fnn.Frozen(GATED))), (5,)),
    "positions": (S((D(4), Mean(), Gain(), D(2))), (3, 5)),
}
N = 6


def ends(layer, params):
    """The parameters with the name of a layer in the place of each that is no composition: how every tree is nested."""
    return each(lambda leaf, p: type(leaf).__name__, layer, params)


@pytest.mark.parametrize("name", NETS)
def test_residuals_deltas_factors_outputs_and_gradients_are_nested_as_the_parameters(name):
    net, input_shape = NETS[name]
    params, x = moved(net, input_shape), np.random.default_rng(0).normal(size=(N, *input_shape))
    tape = fnn.backprop(net, fnn.Quadratic())(params, x, np.zeros((N, *net.output_shape(input_shape))))
    f, grads = net.factors(params, tape.residuals, tape.deltas), net.gradient(params, tape.residuals, tape.deltas)
    fnn.trees.same_structure("gradient", grads, params)
    for tree in (tape.residuals, tape.deltas, tape.outputs, f):
        assert ends(net, tree) == ends(net, params)
    outputs = each(lambda layer, a: np.shape(a), net, tape.outputs)
    assert all(shape[0] == N for _, layer, shape in walk(net, outputs) if not isinstance(layer, fnn.Composition))


@pytest.mark.parametrize("name", NETS)
def test_a_recorded_forward_pass_is_the_plain_one_with_the_output_of_every_layer(name):
    net, input_shape = NETS[name]
    params, x = moved(net, input_shape), np.random.default_rng(0).normal(size=(N, *input_shape))
    for k in (None, key()):
        y, residuals, outputs = forward_recorded(net, params, x, k)
        plain, wanted = net.forward(params, x, k)
        np.testing.assert_array_equal(y, plain)
        for a, b in zip(trees.leaves(residuals), trees.leaves(wanted), strict=True):
            np.testing.assert_array_equal(a, b)
        assert trees.outline(residuals) == trees.outline(wanted)
        last = [a for _, layer, a in walk(net, outputs) if not isinstance(layer, fnn.Composition)][-1]
        if name not in ("residual", "parallel", "own within"):  # where the last layer's output is the network's
            np.testing.assert_array_equal(last, y)


def test_a_composition_of_ones_own_has_the_derivatives_of_jax(needs_jax):
    net, loss, rng = NETS["own"][0], fnn.SoftmaxCrossEntropy(), np.random.default_rng(0)
    params, x, y = moved(net, (5,)), rng.normal(size=(N, 5)), rng.integers(0, 2, N)
    dparams, dx = trees.map(lambda p: rng.normal(size=p.shape), params), rng.normal(size=x.shape)

    def run(params, x, dparams, dx):
        tape = fnn.backprop(net, loss)(params, x, y)
        made = factors.made(params, net.factors(params, tape.residuals, tape.deltas))
        of_one = lambda p, x, y: loss.value(net.forward(p, x[None])[0], y[None])[0]
        one_by_one, dxs = jax.vmap(jax.grad(of_one, (0, 1)), (None, 0, 0))(params, x, y)
        moved = jax.jvp(lambda p, x: net.forward(p, x)[0], (params, x), (dparams, dx))[1]
        return (made, tape.dx, net.tangent(params, tape.residuals, dparams, dx)), (one_by_one, dxs, moved)

    with wide():
        oracle.assert_close(*oracle.quick_jit(run)(*on("jax", (params, x, dparams, dx))), 1e-12)


LEAVES = ["0.0 Dense", "0.1.0 Dense", "0.1.1 Sigmoid", "0.2 Dense", "1 Tanh", "2 Dense"]


@pytest.mark.thorough(backend="jax")
def test_a_composition_of_ones_own_trains_is_summarised_and_diagnosed(backend, capsys):
    net, loss = S((GATED, fnn.Tanh(), D(2))), fnn.SoftmaxCrossEntropy()
    x = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    state, history = fnn.fit(net, loss, fnn.Adam(0.05), (x, y), key=key(backend), epochs=20, batch_size=32)
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    lines = [" ".join(line.split()[:2]) for line in fnn.summary(net, (5,)).splitlines()[1:-1]]
    assert lines == ["0 Gated", *LEAVES]
    if backend == "numpy":
        assert fnn.diagnose(net, loss, state.params, x, y).layers == tuple(LEAVES)


# ---- the traversal ---------------------------------------------------------------------------------------------------


def test_a_walk_goes_over_all_trees_at_once_in_the_order_of_the_parameters():
    net = S((GATED, fnn.Residual(D(4))))
    params = moved(net, (5,))
    rows = [(place, type(layer).__name__, p) for place, layer, p in walk(net, params)]
    assert [row[:2] for row in rows] == [
        ("", "Serial"),
        ("0", "Gated"),
        ("0.0", "Dense"),
        ("0.1", "Serial"),
        ("0.1.0", "Dense"),
        ("0.1.1", "Sigmoid"),
        ("0.2", "Dense"),
        ("1", "Residual"),
        ("1.0", "Dense"),
    ]
    leaves = [leaf for _, name, p in rows if name == "Dense" for leaf in p]
    assert [id(leaf) for leaf in leaves] == [id(leaf) for leaf in trees.leaves(params)]


def test_parts_keep_their_tuples_namedtuples_and_dicts_and_none_has_parts_of_none():
    count = lambda layer, a: (type(layer).__name__, a)
    sides = Sides(1, {"scale": 2, "shift": 3})
    assert over_parts(count, GATED, sides) == Sides(("Dense", 1), {"scale": ("Serial", 2), "shift": ("Dense", 3)})
    assert over_parts(count, GATED, None) == Sides(
        ("Dense", None), {"scale": ("Serial", None), "shift": ("Dense", None)}
    )
    assert over_parts(count, GATED, composition.Kept("own", sides)) == over_parts(count, GATED, sides)
    assert over_parts(count, fnn.Frozen(D(1)), trees.Fixed(1)) == trees.Fixed(("Dense", 1))


def test_a_composition_draws_where_one_of_its_parts_does():
    assert not GATED.draws
    assert S((GATED, fnn.Residual(fnn.Dropout()))).draws


class Block(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class OfNumbers(fnn.Composition):
    """A composition whose layers are made of its fields, and stand in none of them."""

    units: int

    @property
    def parts(self):
        return Block(D(self.units), D(self.units))

    def output_shape(self, input_shape):
        return (self.units,)

    def init(self, key, input_shape, dtype=np.float32):
        first, second = self.parts
        return Block(first.init(key, input_shape, dtype), second.init(key, (self.units,), dtype))

    def forward(self, params, x, key=None):
        h, below = self.parts.first.forward(params.first, x)
        y, above = self.parts.second.forward(params.second, h)
        return y, Block(below, above)

    def propagate(self, params, residuals, dy, need_dx=True):
        h, above = self.parts.second.propagate(params.second, residuals.second, dy)
        dx, below = self.parts.first.propagate(params.first, residuals.first, h, need_dx)
        return dx, Block(below, above)


def test_parts_that_are_no_fields_learn_and_a_tape_names_them():
    params, x, y = moved(OfNumbers(3), (5,)), np.ones((N, 5)), np.zeros((N, 3))
    _, wanted = fnn.value_and_grad(S((D(3), D(3))), fnn.Quadratic())(tuple(params), x, y)
    oracle.assert_close(fnn.grad(OfNumbers(3), fnn.Quadratic())(params, x, y), Block(*wanted), 1e-12)
    with pytest.raises(errors.KindError, match=r"OfNumbers\.parts: expected layers that are fields"):
        fnn.backprop(OfNumbers(3), fnn.Quadratic())(params, x, y)


@pytest.mark.parametrize(("wrong", "message"), [(np.tanh, "got <ufunc 'tanh'>"), (D, r"write fnn.Dense\(\.\.\.\)")])
def test_what_is_no_layer_is_refused(wrong, message):
    with pytest.raises(errors.KindError, match=f"inner: expected a layer, .*{message}"):
        composition.check_layer("inner", wrong)
