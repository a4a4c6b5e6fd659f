"""Diagonals are those of the dense matrices, exact or within the standard error of their samples."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, key, moved
from helpers_curvature import CASES, dense_of, empirical, flat, ggn, on_jax, problem, shares

import fnn
from fnn import curvature, errors, trees
from fnn.curvature import columns


def diagonals(p, _=None):
    """All exact ones but the Hessian's."""
    run = lambda kind, *weights, **options: curvature.diagonal(p.net, p.loss, kind, **options)(
        p.params, p.x, p.y, *weights
    )
    found = {
        "ggn": run("ggn", p.weights),
        "ggn, summed": run("ggn", p.weights, denominator=1),
        "ggn without weights": run("ggn"),
        "empirical": run("empirical", p.weights),
    }
    if isinstance(p.loss, fnn.SoftmaxCrossEntropy) and not p.loss.label_smoothing:
        found["fisher"] = run("fisher", p.weights)
    return found


def wanted(name):
    p, d = problem(name), dense_of(name)
    n = len(p.x)
    found = {
        "ggn": ggn(d, shares(p.weights)),
        "ggn, summed": ggn(d, p.weights),
        "ggn without weights": ggn(d, np.full(n, 1 / n)),
        "empirical": empirical(d, shares(p.weights)),
    }
    return {what: np.diag(m) for what, m in (found | {"fisher": found["ggn"]}).items()}


def assert_right(name, found, right):
    for what, tree in found.items():
        trees.same_structure(what, tree, problem(name).params)
        oracle.assert_close({name: {what: flat(tree)}}, {name: {what: right[what]}}, 1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.numpy_alone
def test_diagonals_on_numpy_are_those_of_dense_matrices_a_few_columns_at_a_time_too(name, monkeypatch):
    p = problem(name)
    right = wanted(name)
    assert_right(name, diagonals(p), right)
    monkeypatch.setattr(columns, "BLOCK", 1)
    assert_right(name, diagonals(p), right)


ON_JAX = tuple(CASES) if THOROUGH else ("tags",)


@pytest.mark.parametrize("block", [2**28, 2**13] if THOROUGH else [2**13])
@pytest.mark.thorough
def test_diagonals_on_jax_are_those_of_dense_matrices(block, needs_jax, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", block)
    for name, found in on_jax(ON_JAX, diagonals).items():
        assert_right(name, found, wanted(name))


@pytest.mark.parametrize("name", ["norms", "images", "symbols", "frozen between"][:: 1 if THOROUGH else 2])
def test_the_diagonal_of_the_hessian_is_that_of_its_matrix(name):
    p = problem(name)
    of = p.params, p.x, p.y, p.weights
    matrix = curvature.matrix(curvature.hessian_product(p.net, p.loss))(*of)
    oracle.assert_close(flat(curvature.diagonal(p.net, p.loss, "hessian")(*of)), np.diag(matrix), 1e-12)


SAMPLED = {"fisher": 60, "ggn": 60, "hessian": 5}
ROUNDS = 50  # of 60 samples: 3,000


@pytest.mark.parametrize("kind", SAMPLED if THOROUGH else ["fisher"])
@pytest.mark.thorough
def test_a_sampled_diagonal_approaches_the_exact_one_within_its_standard_error(kind):
    p = problem("mlp", 3)
    of = p.params, p.x, p.y, p.weights
    exact = flat(curvature.diagonal(p.net, p.loss, kind)(*of))
    run = curvature.diagonal(p.net, p.loss, kind, samples=SAMPLED[kind])
    drawn = np.array([flat(run(*of, sample_key=fnn.random.fold_in(key(), i))) for i in range(ROUNDS)])
    error = drawn.std(axis=0, ddof=1) / np.sqrt(ROUNDS)
    assert (abs(drawn.mean(axis=0) - exact) <= 4.5 * error + 1e-12).all()
    assert 0 < np.linalg.norm(error) < 0.3 * np.linalg.norm(exact)


def test_the_same_key_draws_the_same_samples_and_another_others(backend):
    p = problem("mlp")
    run = curvature.diagonal(p.net, p.loss, "fisher", samples=2)
    first, again, other = (flat(run(p.params, p.x, p.y, sample_key=key(seed=s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_with_a_key_the_layers_are_in_training_mode():
    net, loss = fnn.Serial((fnn.Dense(8), fnn.Dropout(0.5), fnn.Dense(3))), fnn.Quadratic()
    params, x, y = moved(net, (4,)), np.ones((5, 4)), np.zeros((5, 3))
    run = curvature.diagonal(net, loss)
    still, dropped, again = (run(params, x, y, None, k)[2].w for k in (None, key(seed=3), key(seed=3)))
    assert (still != 0).all()
    assert (dropped == 0).any()
    np.testing.assert_array_equal(dropped, again)


def test_an_example_of_weight_0_counts_nothing_even_if_its_error_is_infinite():
    net, loss = fnn.Dense(1), fnn.PoissonNll()
    params, y = moved(net, (2,)), np.ones((2, 1))
    x = np.array([[1.0, 2.0], [1e4, 1e4]])
    with np.errstate(over="ignore", invalid="ignore"):
        for kind in ("ggn", "empirical"):
            run = curvature.diagonal(net, loss, kind)
            oracle.assert_close(run(params, x, y, [1.0, 0.0]), run(params, x[:1], y[:1]), 1e-12)


REFUSED = {
    "another kind": ({"kind": "fischer"}, errors.ArgumentError, "kind: expected one of .*'fisher'.*, got 'fischer'"),
    "samples of the data": ({"kind": "empirical", "samples": 2}, errors.ArgumentError, "samples: expected None"),
    "half a sample": ({"kind": "fisher", "samples": 0.5}, errors.KindError, "samples: expected an integer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        curvature.diagonal(fnn.Dense(1), fnn.Quadratic(), **options)


def test_a_cost_without_a_root_is_refused():
    params = moved(fnn.Dense(1), (1,))
    with pytest.raises(errors.KindError, match=r"ItakuraSaito.*convex"):
        curvature.diagonal(fnn.Dense(1), fnn.ItakuraSaito())(params, np.ones((1, 1)), np.ones((1, 1)))
