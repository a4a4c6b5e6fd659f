"""A function of parameters is minimized by any optimizer, as a network's cost is."""

import numpy as np
import oracle
import pytest
from helpers import BACKENDS, on, run_problem

import fnn
from fnn import errors, trees


def bowl(x, centre=3.0):
    """½ Σ (x − centre)², and its gradient."""
    return ((x - centre) ** 2).sum() / 2, x - centre


@pytest.mark.parametrize("optimizer", [fnn.Adam(0.1), fnn.Lbfgs(3)], ids=["Adam", "Lbfgs"])
def test_it_is_train_for_the_cost_of_a_network(optimizer):
    net, loss, state, data = run_problem("numpy", optimizer)
    x, y = data[0].astype(np.float32), data[1]
    cost = lambda params: fnn.value_and_grad(net, loss)(params, x, y)
    params, history = fnn.minimize(cost, state.params, optimizer, steps=4)
    trained, expected = fnn.train(net, loss, state, data, epochs=4, batch_size=50, shuffle=False)
    oracle.assert_close(params, trained.params, 1e-6)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    assert set(expected) - set(history) == {"weight"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_are_passed_on_and_nothing_of_the_callers_changes(backend):
    start, centre = on(backend, (np.ones(3, np.float32), np.float32([1, 2, 4])))
    params, history = fnn.minimize(bowl, start, fnn.Lbfgs(), args=(centre,))
    np.testing.assert_allclose(params, centre, rtol=1e-6)
    np.testing.assert_array_equal(start, 1)
    assert (params.dtype, history["loss"].dtype) == (np.float32, np.float32)
    assert history["loss"].tolist() == [5.0]
    if backend == "numpy":
        start[0] = 5  # it is the caller's, and is not locked


REFUSED = {
    "no function": ((3, np.ones(2), fnn.Sgd(0.1)), {}, "value_and_grad: expected a function, got 3"),
    "a value alone": (
        (lambda x: (x**2).sum(), np.ones(2), fnn.Sgd(0.1)),
        {},
        r"expected it to return \(value, grads\)",
    ),
    "many values": ((lambda x: (x**2, 2 * x), np.ones(2), fnn.Sgd(0.1)), {}, r"a value of shape \(\), got \(2,\)"),
    "another shape": ((lambda x: (x[0], x[:1]), np.ones(2), fnn.Sgd(0.1)), {}, r"gradient: expected shape \(2,\), got"),
    "integers": ((bowl, np.arange(2), fnn.Sgd(0.1)), {}, "params: expected a tree of arrays of floating-point numbers"),
    "no parameters": ((bowl, (), fnn.Sgd(0.1)), {}, "params: expected a tree of arrays"),
    "no steps": ((bowl, np.ones(2), fnn.Sgd(0.1)), {"steps": 0}, "steps: expected .*1.*got 0"),
    "no optimizer": ((bowl, np.ones(2), "lbfgs"), {}, "optimizer: expected an object with methods init and update"),
    "a combinator": ((bowl, np.ones(2), fnn.ClipByValue(fnn.Lbfgs(), 1.0)), {}, "within ClipByValue.*Lbfgs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name):
    arguments, options, says = REFUSED[name]
    with pytest.raises(errors.FnnError, match=says):
        fnn.minimize(*arguments, **options)


def test_nothing_compiles_twice(needs_jax):
    traced = []

    def counted(x):
        traced.append(None)
        return bowl(x)

    x = needs_jax.numpy.ones(2)
    fnn.minimize(counted, x, fnn.Lbfgs(5))
    before = len(traced)
    fnn.minimize(counted, 2 * x, fnn.Lbfgs(7, gtol=1e-3))
    assert len(traced) <= before + 1, "once more for the shapes of what it returns"


def test_trees_keep_their_form():
    params = {"a": np.ones(2), "b": (np.zeros((2, 2)), ())}
    f = lambda p: (sum((w**2).sum() for w in trees.leaves(p)) / 2, p)
    found, _ = fnn.minimize(f, params, fnn.Lbfgs())
    oracle.assert_close(found, trees.map(np.zeros_like, params), 0)
