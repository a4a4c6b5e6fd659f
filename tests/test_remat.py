"""Rematerialization changes no number, keeps only inputs, and a compiler does not undo it."""

import numpy as np
import oracle
import pytest
from helpers import GATED, Gain, key, moved, on

import fnn
from fnn import curvature, factors, per_example, trees
from fnn.composition import forward_recorded, walk
from fnn.losses import Quadratic, SoftmaxCrossEntropy
from fnn.pieces import once_known

D, R, S = fnn.Dense, fnn.Remat, fnn.Serial
BLOCK = S((D(4), fnn.Tanh(), D(5), fnn.Tanh()))
NETS = {  # by name: with and without, and the shape of the input
    "a block": (lambda R: S((D(5), R(BLOCK), R(BLOCK), D(3))), (5,)),
    "a layer": (lambda R: S((R(D(4)), fnn.Tanh(), R(fnn.PRelu()), D(2))), (5,)),
    "all": (lambda R: R(S((D(4), fnn.LayerNorm(), D(3)))), (5,)),
    "in one another": (lambda R: S((R(S((R(BLOCK), D(5), R(fnn.Tanh())))), D(2))), (5,)),
    "a skip": (lambda R: S((fnn.Residual(R(BLOCK)), R(fnn.Residual(BLOCK)), D(2))), (5,)),
    "side by side": (lambda R: S((fnn.Parallel((R(BLOCK), R(D(2)))), R(fnn.Parallel((D(2), BLOCK))))), (5,)),
    "frozen": (lambda R: S((D(5), R(S((fnn.Frozen(BLOCK), D(4)))), fnn.Frozen(R(BLOCK)), D(2))), (5,)),
    "at the bottom": (lambda R: S((R(fnn.Frozen(D(4))), R(fnn.Relu()), D(2))), (5,)),
    "one of your own": (lambda R: S((R(GATED), R(Gain()), D(2))), (5,)),
    "positions": (lambda R: S((R(S((D(4), fnn.Tanh()))), fnn.Flatten(), D(2))), (3, 5)),
}
N = 6


def pair(name):
    with_, input_shape = NETS[name]
    net, plain = with_(R), with_(lambda layer: layer)
    params, rng = moved(plain, input_shape), np.random.default_rng(0)
    return (
        net,
        plain,
        params,
        rng.normal(size=(N, *input_shape)),
        rng.normal(size=(N, *plain.output_shape(input_shape))),
    )


def quantities(net, params, x, y, key=None):
    """All that a layer's methods give, and some of what is computed from them."""
    prediction, residuals = net.forward(params, x, key)
    dx, deltas = net.propagate(params, residuals, y)
    grads, f = net.gradient(params, residuals, deltas), net.factors(params, residuals, deltas)
    outer = factors.total(params, net.outer_factors(params, residuals, deltas))
    tape = fnn.backprop(net, Quadratic())(params, x, y, key=key)
    own = any(type(layer).tangent is fnn.Layer.tangent for _, layer in walk(net))  # on NumPy they have none
    moving = None if own else [net.tangent(params, residuals, d, x) for d in (params, None)]
    from_tape = net.gradient(params, tape.residuals, tape.deltas)
    clipped = per_example.clipped_gradient(net, Quadratic(), 1.0)(params, x, y, key=key)
    return (
        prediction,
        dx,
        deltas,
        grads,
        factors.made(params, f, N),
        outer,
        tape[:2],
        tape[4:],
        moving,
        from_tape,
        clipped,
    )


@pytest.mark.parametrize("name", NETS)
def test_every_number_is_the_same_as_without(name):
    net, plain, params, x, y = pair(name)
    found, wanted = quantities(net, params, x, y), quantities(plain, params, x, y)
    assert trees.outline(found) == trees.outline(wanted)
    for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)
    assert trees.outline(net.init(key(), x.shape[1:])) == trees.outline(params)


def test_layers_inside_that_draw_draw_the_same_again():
    drops = lambda R: S((D(8), R(S((fnn.Dropout(0.5), D(8), fnn.RRelu()))), D(2)))
    net, plain, rng = drops(R), drops(lambda layer: layer), np.random.default_rng(0)
    params, x, y = moved(plain, (5,)), rng.normal(size=(N, 5)), rng.normal(size=(N, 2))
    found, wanted, other = (quantities(n, params, x, y, key(seed=s)) for n, s in ((net, 1), (plain, 1), (net, 2)))
    for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(found[0], other[0])


def test_it_takes_integers_and_sequences():
    words = lambda R: S((R(S((fnn.Embedding(7, 4), fnn.Lstm(3)))), D(2)))
    x, y = np.random.default_rng(0).integers(0, 7, (N, 5)), np.zeros(N, int)
    params = moved(words(lambda layer: layer), (5,))
    for quantity in (fnn.grad, per_example.gradients):
        found, wanted = (quantity(words(r), SoftmaxCrossEntropy())(params, x, y) for r in (R, lambda layer: layer))
        for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_the_input_is_kept():
    net, _, params, x, _ = pair("a block")
    residuals = net.forward(params, x)[1]
    assert [leaf.shape for leaf in trees.leaves(residuals[1])] == [(N, 5)]
    outputs = forward_recorded(net, params, x)[2]  # a tape has all outputs, as always
    assert [a.shape for a in trees.leaves(outputs[1])] == [(N, 4), (N, 4), (N, 5), (N, 5)]


def test_it_is_summarised_and_trained_as_its_layers_are():
    net, plain, _, x, y = pair("a block")
    lines = [" ".join(line.split()[:2]) for line in fnn.summary(net, (5,)).splitlines()[1:4]]
    assert lines == ["0 Dense", "1 Remat", "1.0.0 Dense"]
    states = [fnn.init_state(n, fnn.Adam(), key(), (5,)) for n in (net, plain)]
    rule = fnn.rules.KFac(kind="ggn")
    states += [fnn.init_state(n, fnn.Sgd(0.1), key(), (5,), rule=rule) for n in (net, plain)]
    run = lambda net, state: fnn.train(net, Quadratic(), state, (x, y), epochs=2, batch_size=4)[0]
    after = [run(*pair) for pair in zip((net, plain) * 2, states, strict=True)]
    for i in (0, 2):
        for a, b in zip(trees.leaves(after[i].params), trees.leaves(after[i + 1].params), strict=True):
            np.testing.assert_array_equal(a, b)


# ---- compiled --------------------------------------------------------------------------------------------------------


def test_a_compiler_does_not_undo_it(needs_jax):
    width, blocks, n = 64, 4, 2**14  # so that 4 MB of cuBLAS's own are few
    block = S((D(width), fnn.Relu()) * 4)
    params = on("jax", trees.map(np.float32, moved(S((block,) * blocks), (width,))))
    x = needs_jax.ShapeDtypeStruct((n, width), np.float32)

    def planned(net):
        program = needs_jax.jit(fnn.value_and_grad(net, Quadratic())).lower(params, x, x).compile()
        return program.memory_analysis().temp_size_in_bytes, program.cost_analysis()["flops"]

    (less, more), (plain, once) = planned(S((R(block),) * blocks)), planned(S((block,) * blocks))
    assert less < 0.62 * plain  # 8 of 16 arrays of activations, and gradients
    if needs_jax.default_backend() == "cpu":  # a GPU's plan does not count what its libraries compute
        assert 1.2 * once < more < 1.36 * once  # one more forward pass, not two


def test_what_waits_for_many_errors_is_computed_once(needs_jax):
    x, dys = np.ones((3, 2), np.float32), np.ones((5, 3, 4), np.float32)
    again = lambda dy: once_known({"x": x}, dy)["x"]
    found = needs_jax.vmap(again, out_axes=None)(dys)  # an error, if it had the axis of the errors
    np.testing.assert_array_equal(found, x)
    assert again(np.full((3, 4), np.inf)) is x  # at once there is nothing to wait for
    direction = needs_jax.jvp(lambda x, dy: once_known(x, dy), (x, dys[0]), (2 * x, dys[0]))[1]
    np.testing.assert_array_equal(direction, 2 * x)


@pytest.mark.thorough
def test_curvature_and_derivatives_of_runs_are_the_same_compiled(needs_jax):
    net, plain, params, x, _ = pair("a block")
    params, x, y = on("jax", trees.map(lambda a: a.astype(np.float32), params)), x.astype(np.float32), np.arange(N) % 3
    loss, state = SoftmaxCrossEntropy(), fnn.init_state(net, fnn.Sgd(0.1), key("jax"), (5,), params=params)

    def after(net, rate):
        run = state._replace(optimizer=fnn.Sgd(rate))
        return fnn.train(net, loss, run, (x, y), steps=3, batch_size=4)[1]["loss"][-1]

    for of in (
        lambda net: curvature.hessian_product(net, loss)(params, x, y, params),
        lambda net: curvature.ggn_product(net, loss)(params, x, y, params),
        lambda net: curvature.kfac(net, loss)(params, x, y),
        lambda net: curvature.diagonal(net, loss)(params, x, y),
        lambda net: needs_jax.grad(lambda rate: after(net, rate))(0.1),
    ):
        found, wanted = (oracle.quick_jit(lambda n=n, of=of: of(n))() for n in (net, plain))
        oracle.assert_close(found, wanted, 1e-5)
