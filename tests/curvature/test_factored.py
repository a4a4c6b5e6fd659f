"""Kronecker factors are the sums that they stand for, and the block itself where theory says so."""

import functools
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, Mean, compiled, key, moved, on
from helpers import problem as simple
from helpers_curvature import CASES, Problem, dense, dense_of, empirical, ggn, on_jax, problem, shares

import fnn
from fnn import curvature, errors, trees
from fnn.curvature import Kronecker, blocks, columns
from fnn.curvature.spectrum import like
from fnn.factors import Outer, Rows, pairs

EXACT = {"ggn": {}, "ggn, reduce": {"positions": "reduce"}, "ggn, summed": {"denominator": 1}}
EMPIRICAL = {"empirical": {"kind": "empirical"}, "empirical, reduce": {"kind": "empirical", "positions": "reduce"}}


def of_options(p, make, options):
    return make(p.net, p.loss, **options)(p.params, p.x, p.y, p.weights)


def both(p, _=None, of=(*EXACT, *EMPIRICAL)):
    """K-FAC and EK-FAC with these options."""
    makers = curvature.kfac, curvature.ekfac
    return {what: [of_options(p, make, (EXACT | EMPIRICAL)[what]) for make in makers] for what in of}


# ---- a second implementation, by loops over examples, columns and positions ------------------------------------------


def errors_at_the_output(p, d, kind):
    """A list of errors (N, ..., K): the columns of a root of the dense Hessian, or δ."""
    prediction = p.net.forward(p.params, p.x)[0]

    if kind == "empirical":
        return [p.loss.delta(prediction, p.y)]
    values, vectors = np.linalg.eigh(d.hessian)
    roots = vectors * np.sqrt(np.maximum(values, 0))[:, None]
    return [roots[:, :, r].reshape(prediction.shape) for r in range(roots.shape[2])]


def by_loops(p, d, kind="ggn", positions="expand", denominator=None):
    """A and G of each weight, with the bias in it, by the definition."""
    residuals = p.net.forward(p.params, p.x)[1]
    s, mean = shares(p.weights, denominator), shares(p.weights)
    biases = blocks.biases(p.params)
    found: dict = {}
    for e in errors_at_the_output(p, d, kind):
        deltas = p.net.propagate(p.params, residuals, e, need_dx=False)[1]
        leaves = pairs(p.params, p.net.outer_factors(p.params, residuals, deltas))
        joint = {i: j for i, j in biases.items() if isinstance(leaves[i][1], Outer)}
        for i, (w, f) in enumerate(leaves):
            if f is None or i in joint.values():
                continue
            a, g = found.setdefault(i, [0, 0])
            if isinstance(f, Outer):
                delta, x = (v.reshape(len(v), -1, v.shape[-1]) for v in f)
                x = np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=2) if i in joint else x
                if positions == "reduce":
                    delta, x = delta.sum(axis=1, keepdims=True), x.mean(axis=1, keepdims=True)
                a = sum(mean[n] * np.outer(v, v) / len(x[n]) for n in range(len(x)) for v in x[n])
                g = g + sum(s[n] * np.outer(v, v) for n in range(len(x)) for v in delta[n])
            elif isinstance(f, Rows):
                a = np.zeros(len(w))
                for n in range(len(f.index)):
                    for v in f.index[n]:
                        a[v] += mean[n] / f.index.shape[1]
                g = g + sum(s[n] * np.outer(v, v) for n in range(len(f.index)) for v in f.delta[n])
            else:
                m = f.reshape(len(f), len(w), -1)
                a = np.ones((1, 1)) if w.ndim == 1 else a + sum(s[n] * m[n].T @ m[n] for n in range(len(m)))
                g = g + sum(s[n] * m[n] @ m[n].T for n in range(len(m)))
            found[i] = [a, g]
    for i, (a, g) in found.items():
        if a.ndim == 2 and not isinstance(leaves[i][1], Outer) and leaves[i][0].ndim > 1:
            found[i][0] = a / np.trace(g)
    return found


def assert_right(name, found):
    p, d = problem(name), dense_of(name)
    for what, (k, e) in found.items():
        options = (EXACT | EMPIRICAL)[what]
        of_loops = by_loops(p, d, **options)
        in_place = [(i, block) for i, (_, block) in enumerate(pairs(p.params, k)) if block is not None]
        assert [i for i, _ in in_place] == sorted(of_loops)
        for i, block in in_place:
            oracle.assert_close({name: {what: tuple(block)}}, {name: {what: tuple(of_loops[i])}}, 1e-12)
        of = empirical if options.get("kind") == "empirical" else ggn
        wanted = dict(blocks_of(p, k, of(d, shares(p.weights, options.get("denominator")))))
        for (i, block), eigen in zip(in_place, trees.leaves(e, is_leaf=blocks.is_block), strict=True):
            off, nearer = (np.linalg.norm(made(one) - wanted[i]) for one in (block, eigen))
            assert nearer <= off + 1e-12 * np.linalg.norm(wanted[i]), (name, what, i)
            oracle.assert_close({name: made(eigen).trace()}, {name: wanted[i].trace()}, 1e-12)


def made(block):
    """A block as a matrix, for a parameter (O, I) flattened row by row."""
    if isinstance(block, Kronecker):
        return np.kron(block.g, np.diag(block.a) if block.a.ndim == 1 else block.a)
    q = np.kron(block.g, np.eye(block.values.shape[1]) if block.a is None else block.a)
    return q @ np.diag(block.values.ravel()) @ q.T


def blocks_of(p, tree, matrix):
    """`(index of the weight, its block of a matrix over all parameters)`, flattened as the blocks are."""
    places = like(p.params, np.arange(len(matrix), dtype=np.float64))
    found = [inside.astype(int).ravel() for _, inside in blocks.block_matrices(p.params, tree, places)]
    indices = [i for i, (_, block) in enumerate(pairs(p.params, tree)) if block is not None]
    return [(i, matrix[np.ix_(inside, inside)]) for i, inside in zip(indices, found, strict=True)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.numpy_alone
def test_factors_on_numpy_are_the_sums_they_stand_for_and_ekfac_is_nearer_to_the_block(name):
    assert_right(name, both(problem(name)))


ON_JAX = tuple(CASES) if THOROUGH else ("tags",)


def test_factors_on_jax_are_the_same_a_few_columns_at_a_time_and_by_quarters_too(needs_jax, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 2**13)
    monkeypatch.setattr(columns, "SMALL", 2)
    some = functools.partial(both, of=("ggn", "empirical, reduce"))
    for name, found in on_jax(ON_JAX, both if THOROUGH else some).items():
        for what, (k, _) in found.items():
            wanted = of_options(problem(name), curvature.kfac, (EXACT | EMPIRICAL)[what])
            oracle.assert_close({name: {what: k}}, {name: {what: wanted}}, 1e-12)
        assert_right(name, found)


# ---- where theory says that they are the block -----------------------------------------------------------------------

LINEAR = fnn.Serial((fnn.Dense(4), fnn.Scale(0.5), fnn.Dense(3, bias=False), fnn.Dense(2)))


def assert_is_the_block(p, **options):
    """K-FAC is the block of the Gauss-Newton matrix (or of the empirical Fisher matrix)."""
    k = of_options(p, curvature.kfac, options)
    matrix = (empirical if options.get("kind") == "empirical" else ggn)(dense(p), shares(p.weights))
    for (_, wanted), block in zip(blocks_of(p, k, matrix), trees.leaves(k, is_leaf=blocks.is_block), strict=True):
        oracle.assert_close(made(block), wanted, 1e-12)


def linear(net, input_shape, loss=None, n=5, seed=0):
    """A linear network with a squared error, and weighted examples."""
    p, rng = simple(net, loss, input_shape, n, dtype=np.float64), np.random.default_rng(seed)
    return Problem(*p[:5], rng.random(n))


@pytest.mark.parametrize("loss", [fnn.Quadratic(), fnn.MeanSquaredError()], ids=str)
def test_of_a_deep_linear_network_under_squared_error_kfac_is_the_block(loss):
    assert_is_the_block(linear(LINEAR, (3,), loss))


def test_expand_is_exact_where_each_position_has_a_cost_of_its_own():
    p = linear(LINEAR, (6, 3))
    assert_is_the_block(p, positions="expand")
    with pytest.raises(AssertionError):
        assert_is_the_block(p, positions="reduce")


def test_reduce_is_exact_where_positions_are_averaged():
    p = linear(fnn.Serial((*LINEAR.layers, Mean())), (6, 3))
    assert_is_the_block(p, positions="reduce")
    with pytest.raises(AssertionError):
        assert_is_the_block(p, positions="expand")


def test_reduce_is_exact_for_a_linear_convolution_whose_positions_are_averaged():
    assert_is_the_block(linear(fnn.Serial((fnn.Conv(3, (2, 2)), fnn.GlobalAvgPool())), (4, 5, 2)), positions="reduce")


def test_of_one_example_the_empirical_factors_are_the_empirical_fisher_matrix():
    p = linear(fnn.mlp((4, 3), fnn.Tanh()), (3,), n=1)
    assert_is_the_block(p, kind="empirical")
    with pytest.raises(AssertionError):
        assert_is_the_block(linear(fnn.mlp((4, 3), fnn.Tanh()), (3,), n=2), kind="empirical")


@dataclass(frozen=True)
class Times(fnn.Layer):
    """y = c x, with one number c that has no axis."""

    def init(self, key, input_shape, dtype=np.float32):
        return np.ones((), dtype)

    def forward(self, c, x, key=None):
        return c * x, x

    def backward(self, c, x, dy):
        return c * dy

    def gradient(self, c, x, dy):
        return (dy * x).sum()


def test_the_block_of_a_number_is_its_square():
    p = linear(fnn.Serial((Times(), fnn.Dense(2))), (3,))
    wanted = ggn(dense(p), shares(p.weights))[0, 0]
    for make in (curvature.kfac, curvature.ekfac):
        assert made(of_options(p, make, {})[0]) == pytest.approx(wanted)


# ---- scale, weights, samples -----------------------------------------------------------------------------------------


def test_each_weight_counts_once():
    """A weight of 3 is an example three times; all weights doubled change a mean by nothing, and a sum twofold."""
    p = problem("mlp")
    times = p.weights.astype(int)
    repeated = p._replace(**{name: np.repeat(getattr(p, name), times, axis=0) for name in ("x", "y", "weights")})
    repeated = repeated._replace(weights=np.ones(times.sum()))
    for make in (curvature.kfac, curvature.ekfac):
        for options in ({}, {"denominator": 2.5}):
            found, wanted = (of_options(q, make, options) for q in (p, repeated))
            if make is curvature.ekfac:
                found, wanted = (trees.map(lambda e: e.values, t, is_leaf=blocks.is_block) for t in (found, wanted))
            oracle.assert_close(found, wanted, 1e-10)
        twice = p._replace(weights=2 * p.weights)
        mean, doubled = (of_options(q, curvature.kfac, {})[0].w for q in (p, twice))
        oracle.assert_close(doubled, mean, 1e-12)
        total, doubled = (of_options(q, curvature.kfac, {"denominator": 1})[0].w for q in (p, twice))
        oracle.assert_close(doubled, total._replace(g=2 * total.g), 1e-12)


@pytest.mark.thorough
def test_sampled_factors_approach_the_exact_ones_within_their_standard_error():
    p = problem("mlp")
    of = p.params, p.x, p.y, p.weights
    for kind in ("fisher", "ggn"):
        exact = curvature.kfac(p.net, p.loss)(*of)
        run = curvature.kfac(p.net, p.loss, kind, samples=60)
        drawn = [run(*of, sample_key=fnn.random.fold_in(key(), i)) for i in range(50)]  # 3,000 samples
        for i in (0, 2, 4):
            np.testing.assert_array_equal(drawn[0][i].w.a, exact[i].w.a)
            g = np.array([d[i].w.g for d in drawn])
            error = g.std(axis=0, ddof=1) / np.sqrt(len(g))
            assert (abs(g.mean(axis=0) - exact[i].w.g) <= 4.5 * error + 1e-12).all()
            assert 0 < np.linalg.norm(error) < 0.1 * np.linalg.norm(exact[i].w.g)


def test_factors_of_a_tape_are_the_empirical_ones():
    p = problem("images")
    tape = fnn.backprop(p.net, p.loss)(p.params, p.x, p.y, p.weights)
    f = p.net.outer_factors(p.params, tape.residuals, tape.deltas)
    for positions in ("expand", "reduce"):
        wanted = curvature.kfac(p.net, p.loss, "empirical", positions=positions)(p.params, p.x, p.y, p.weights)
        oracle.assert_close(curvature.kronecker(p.params, f, tape.shares, positions), wanted, 1e-12)


def test_variances_in_a_given_basis_are_those_along_its_directions():
    p, other = problem("mlp"), problem("mlp", 9)
    basis = of_options(other, curvature.ekfac, {})
    run = curvature.ekfac(p.net, p.loss)
    found = run(p.params, p.x, p.y, p.weights, basis=basis)
    for (i, wanted), block in zip(
        blocks_of(p, found, ggn(dense(p), shares(p.weights))), trees.leaves(found, is_leaf=blocks.is_block), strict=True
    ):
        q = np.kron(block.g, block.a)
        oracle.assert_close({i: block.values.ravel()}, {i: np.diag(q.T @ wanted @ q)}, 1e-12)
    own = run(p.params, p.x, p.y, p.weights)
    oracle.assert_close(run(p.params, p.x, p.y, p.weights, basis=own), own, 1e-12)


def test_blocks_nest_as_the_parameters_and_have_at_least_float32(backend):
    net = fnn.Serial((fnn.Frozen(fnn.Dense(3)), fnn.LayerNorm(), fnn.Dense(2), fnn.Dense(2, bias=False)))
    params = on(backend, moved(net, (4,), np.float16))
    run = compiled(backend, curvature.kfac(net, fnn.Quadratic(), "empirical"))
    frozen, norm, dense, last = run(params, np.ones((5, 4)), np.zeros((5, 2)))
    assert frozen == fnn.trees.Fixed(fnn.DenseParams(None, None))
    assert [b.g.shape for b in norm] == [(3, 3), (3, 3)]
    assert (dense.w.a.shape, dense.w.g.shape, dense.b) == ((4, 4), (2, 2), None)
    assert (last.w.a.shape, last.w.g.shape, last.b) == ((2, 2), (2, 2), ())
    assert {leaf.dtype for leaf in trees.leaves((norm, dense, last))} == {np.dtype(np.float32)}


def test_an_example_of_weight_0_counts_nothing_even_if_it_is_infinite():
    net, loss = fnn.Dense(1), fnn.PoissonNll()
    params, y = moved(net, (2,)), np.ones((2, 1))
    x = np.array([[1.0, 2.0], [np.inf, 1e4]])
    with np.errstate(over="ignore", invalid="ignore"):
        for kind in ("ggn", "empirical"):
            run = curvature.kfac(net, loss, kind)
            oracle.assert_close(run(params, x, y, [1.0, 0.0]), run(params, x[:1], y[:1]), 1e-12)


def test_where_all_weights_are_0_all_factors_are(backend):
    net = fnn.Serial((fnn.Embedding(3, 2), fnn.Flatten(), fnn.Dense(2)))
    params = on(backend, moved(net, (3,), np.float32))
    x, y = np.array([[0, 1, 1], [2, 2, 0]]), np.zeros((2, 2))
    run = compiled(backend, curvature.kfac(net, fnn.Quadratic()))
    for leaf in trees.leaves(run(params, x, y, np.zeros(2))):
        assert not np.asarray(leaf).any()


REFUSED = {
    "another kind": ({"kind": "hessian"}, "kind: expected one of .*'ggn'.*, got 'hessian'"),
    "another way": ({"positions": "flatten"}, "positions: expected one of .*'expand', 'reduce'.*, got 'flatten'"),
    "samples of the data": ({"kind": "empirical", "samples": 2}, "samples: expected None"),
}


@pytest.mark.parametrize("make", [curvature.kfac, curvature.ekfac], ids=["kfac", "ekfac"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name, make):
    options, message = REFUSED[name]
    with pytest.raises(errors.ArgumentError, match=message):
        make(fnn.Dense(1), fnn.Quadratic(), **options)
