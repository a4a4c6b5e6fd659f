"""Matrices, traces and eigenvalues are those of dense algebra, on both backends."""

import numpy as np
import oracle
import pytest
from helpers import compiled, key, on, wide
from helpers_curvature import dense_of, ggn, problem, shares

import fnn
from fnn import curvature, errors

pytestmark = pytest.mark.thorough(backend="jax")


def matrix_product(matrix):
    """A product `(params, x, y, v, ...) -> M v` with a given matrix."""
    return lambda params, x, y, v, *rest: fnn.backend.namespace(v).asarray(matrix, dtype=v.dtype) @ v


def symmetric(size=12, seed=0):
    """A matrix with eigenvalues of both signs."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([[5.0, -3.0], rng.normal(size=size - 2)])
    q = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return q @ np.diag(values) @ q.T


def test_a_matrix_is_that_of_its_product_and_0_where_parameters_are_frozen(backend):
    p = problem("frozen between")
    with wide():
        run = compiled(backend, curvature.matrix(curvature.ggn_product(p.net, p.loss)))
        found = np.asarray(run(*on(backend, tuple(p[2:]))))
    wanted = ggn(dense_of("frozen between"), shares(p.weights))
    oracle.assert_close(found, wanted, 1e-12)
    assert (wanted == 0).all(axis=1).sum() == 20


def test_a_matrix_need_not_be_symmetric():
    m = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(curvature.matrix(matrix_product(m))(np.zeros(3), None, None), m)


def test_a_trace_is_within_its_standard_error_and_that_is_right(backend):
    m = symmetric()
    run = compiled(backend, curvature.trace(matrix_product(m), samples=400))
    with wide():
        found = [run(*on(backend, (np.zeros(12),)), None, None, sample_key=key(backend, s)) for s in range(4)]
    values, stated = (np.array([np.asarray(e[i]) for e in found]) for i in range(2))
    assert (abs(values - m.trace()) <= 4.5 * stated).all()
    exact = np.sqrt(2 * ((m**2).sum() - (np.diag(m) ** 2).sum()) / 400)  # the variance of vᵀ M v for random signs
    assert (abs(stated / exact - 1) < 0.3).all()


def test_a_trace_of_a_diagonal_matrix_is_exact_and_one_sample_has_no_error():
    m = np.diag([1.0, 2.0, 4.0])
    value, error = curvature.trace(matrix_product(m), samples=1)(np.zeros(3), None, None)
    assert (value, error) == (7, np.inf)
    assert curvature.trace(matrix_product(m))(np.zeros(3), None, None) == (7, 0)


def test_as_many_steps_as_parameters_give_all_eigenvalues(backend):
    m = symmetric()
    with wide():
        run = compiled(backend, curvature.eigenvalues(matrix_product(m)))
        values, off, weights = on("numpy", run(on(backend, np.zeros(12)), None, None))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(m)[::-1], atol=1e-11)
    assert (off < 1e-8).all()
    assert abs(weights.sum() - 1) < 1e-12


def test_nothing_is_made_up_where_there_are_fewer_eigenvalues_than_steps():
    for matrix, wanted in ((np.eye(5), [1]), (np.diag([2.0, 0, 0, 0, 0]), [2, 0]), (np.zeros((5, 5)), [0])):
        values, off, _ = curvature.eigenvalues(matrix_product(matrix))(np.zeros(5), None, None)
        np.testing.assert_allclose(values, wanted + [np.nan] * (5 - len(wanted)), atol=1e-12)
        assert (off[: len(wanted)] <= 1e-12).all()


def test_the_largest_and_smallest_eigenvalues_come_first_and_their_errors_are_bounds():
    rng = np.random.default_rng(0)
    spectrum = np.concatenate([[40.0, 25.0, -12.0], rng.normal(size=197)])
    q = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    values, off, _ = curvature.eigenvalues(matrix_product(q @ np.diag(spectrum) @ q.T), steps=30)(
        np.zeros(200), None, None
    )
    np.testing.assert_allclose(values[[0, 1, -1]], [40, 25, -12], rtol=1e-9)
    nearest = abs(values[:, None] - spectrum).min(axis=1)
    assert (nearest <= off + 1e-9).all()
    assert (values[:-1] >= values[1:]).all()


def test_weights_estimate_the_density_of_the_spectrum():
    m = symmetric(60)
    run = curvature.eigenvalues(matrix_product(m), steps=20)
    found = [run(np.zeros(60), None, None, sample_key=key(seed=s)) for s in range(60)]
    for f in (lambda v: v, np.square, np.exp):
        drawn = np.array([(weights * f(values)).sum() for values, _, weights in found])
        wanted = f(np.linalg.eigvalsh(m)).mean()
        assert abs(drawn.mean() - wanted) <= 4.5 * drawn.std() / np.sqrt(len(drawn))


def test_eigenvalues_of_a_network_are_those_of_its_dense_matrix(backend):
    p = problem("norms")
    d = dense_of("norms")
    with wide():
        run = compiled(backend, curvature.eigenvalues(curvature.ggn_product(p.net, p.loss), steps=30))
        values = np.asarray(run(*on(backend, tuple(p[2:]))).values)
    wanted = np.linalg.eigvalsh(ggn(d, shares(p.weights)))[::-1]
    np.testing.assert_allclose(values[:5], wanted[:5], rtol=1e-9)


@pytest.mark.parametrize("make", [curvature.trace, curvature.eigenvalues])
def test_what_is_no_number_of_products_is_refused(make):
    with pytest.raises(errors.ArgumentError, match="expected an integer of at least 1, got 0"):
        make(matrix_product(np.eye(2)), 0)
