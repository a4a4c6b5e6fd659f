"""Every quantity in factors is that of the gradients they stand for: dense algebra on both backends, to 1e-12."""

import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, on, wide

import fnn
from fnn import factors, numerics, trees
from fnn.backend import jax
from fnn.factors import Outer, Rows

N, M = 6, 4  # examples, and others


class Case(NamedTuple):
    """Parameters, and how the factors of n examples are drawn for them."""

    params: Any
    draw: Any


class Layer(NamedTuple):
    w: Any
    b: Any


def outer(shape, outputs, inputs, *positions):
    return Case(
        np.zeros(shape),
        lambda rng, n: Outer(rng.normal(size=(n, *positions, outputs)), rng.normal(size=(n, *positions, inputs))),
    )


def rows(rng, n, positions=5, width=3, table=4):
    """Of five positions in a table of four rows at least one row is used twice, by every example."""
    return Rows(rng.normal(size=(n, positions, width)), rng.integers(0, table, (n, positions)).astype(np.int32))


CASES = {
    "outer products": outer((3, 4), 3, 4),
    "few positions": outer((5, 6), 5, 6, 2),
    "many positions": outer((3, 2), 3, 2, 7),
    "one position": outer((3, 4), 3, 4, 1),
    "a kernel, few positions": outer((3, 2, 2, 4), 3, 16, 2),
    "a kernel, many positions": outer((2, 1, 3, 2), 2, 6, 9),
    "rows of a table": Case(np.zeros((4, 3)), rows),
    "arrays": Case(np.zeros((2, 3)), lambda rng, n: rng.normal(size=(n, 2, 3))),
    "a tree": Case(
        {"b": Layer(np.zeros((3, 4)), np.zeros(3)), "a": (np.zeros((4, 3)), np.zeros((2, 2)), ())},
        lambda rng, n: {
            "b": Layer(Outer(rng.normal(size=(n, 2, 3)), rng.normal(size=(n, 2, 4))), rng.normal(size=(n, 3))),
            "a": (rows(rng, n), None, ()),
        },
    ),
    "nothing": Case((), lambda rng, n: ()),
}


def dense(p, f, n):
    """The gradients of n examples at one parameter, entry by entry."""
    g = np.zeros((n, *p.shape))
    for i in range(n) if f is not None else ():
        if isinstance(f, Outer):
            deltas, inputs = (v[i].reshape(-1, v.shape[-1]) for v in f)
            g[i] = sum(np.outer(d, a) for d, a in zip(deltas, inputs, strict=True)).reshape(p.shape)
        elif isinstance(f, Rows):
            for d, row in zip(f.delta[i], f.index[i], strict=True):
                g[i, row] += d
        else:
            g[i] = f[i]
    return g


def draws(name):
    """Parameters, factors, those of others, scales, weights (some of them negative, one 0), and a direction."""
    case, rng = CASES[name], np.random.default_rng(0)
    f, g = case.draw(rng, N), case.draw(rng, M)
    scale, weights = rng.random(N), rng.normal(size=N)
    scale[2] = weights[3] = 0
    return case.params, f, g, scale, weights, trees.map(lambda p: rng.normal(size=p.shape), case.params)


def quantities(params, f, g, scale, weights, direction):
    """Each of fnn.factors."""
    zeros = 0 * scale
    return {
        "total": factors.total(params, f),
        "total, scaled": factors.total(params, f, scale),
        "total of the scaled": factors.total(params, factors.scaled(f, weights)),
        "made": factors.made(params, f, N),
        "made of the scaled": factors.made(params, factors.scaled(f, weights), N),
        "norm": factors.norm(f) + zeros,
        "norm2": factors.norm2(f) + zeros,
        "products": factors.products(f, g) + zeros[:, None] + zeros[:M],
        "products with themselves": factors.products(f, f) + zeros[:, None] + zeros,
        "squares": factors.squares(params, f),
        "squares, weighted": factors.squares(params, f, weights),
        "along": factors.along(f, direction) + zeros,
        "along nothing": factors.along(f, trees.map(lambda v: None, direction)) + zeros,
        "weighed": factors.weighed(f, direction) + zeros,
    }


def of_dense(params, f, g, scale, weights, direction):
    """The same of gradients that have been made, by NumPy."""
    places = [f"{i}" for i in range(len(trees.leaves(params)))]
    made, others = ([dense(p, h, n) for p, h in factors.pairs(params, tree)] for tree, n in ((f, N), (g, M)))
    flat = lambda leaves, n: np.concatenate([np.zeros((n, 0)), *(leaf.reshape(n, -1) for leaf in leaves)], axis=1)
    mine, theirs = flat(made, N), flat(others, M)
    line = np.concatenate([np.zeros(0), *(v.ravel() for v in trees.leaves(direction))])
    like = lambda leaves: dict(zip(places, leaves, strict=True))
    summed = lambda s, power=1: like([np.tensordot(s, leaf**power, 1) for leaf in made])
    each = lambda s: like([leaf * s.reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in made])
    ones = np.ones(N)
    return {
        "total": summed(ones),
        "total, scaled": summed(scale),
        "total of the scaled": summed(weights),
        "made": each(ones),
        "made of the scaled": each(weights),
        "norm": np.linalg.norm(mine, axis=1),
        "norm2": (mine**2).sum(axis=1),
        "products": mine @ theirs.T,
        "products with themselves": mine @ mine.T,
        "squares": summed(ones, 2),
        "squares, weighted": summed(weights, 2),
        "along": mine @ line,
        "along nothing": np.zeros(N),
        "weighed": mine**2 @ line,
    }


def assert_right(found, name):
    wanted = of_dense(*draws(name))
    for what, value in found.items():
        if isinstance(wanted[what], dict):  # of trees: nested as the parameters, which are compared leaf by leaf
            assert [p for p, _ in trees.paths(value)] == [p for p, _ in trees.paths(CASES[name].params)]
            value = dict(zip(wanted[what], trees.leaves(value), strict=True))
        oracle.assert_close({name: {what: value}}, {name: {what: wanted[what]}}, 1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [2**24, 1, 4 * 4 * 24])
def test_each_quantity_on_numpy_is_that_of_dense_gradients_in_blocks_too(name, block, monkeypatch):
    monkeypatch.setattr(fnn.outer, "BLOCK", block)
    assert_right(quantities(*draws(name)), name)


@pytest.mark.parametrize("block", [2**24, 4 * 4 * 24] if THOROUGH else [4 * 4 * 24])
@pytest.mark.thorough
def test_each_quantity_on_jax_is_that_of_dense_gradients_in_blocks_too(block, needs_jax, monkeypatch):
    monkeypatch.setattr(fnn.outer, "BLOCK", block)
    names = list(CASES) if block == 2**24 or not THOROUGH else ["few positions", "many positions", "rows of a table"]
    with wide():
        arguments = {name: on("jax", draws(name)) for name in names}
        found = oracle.quick_jit(lambda all_: {name: quantities(*some) for name, some in all_.items()})(arguments)
        for name, results in on("numpy", found).items():
            assert_right(results, name)


@pytest.mark.parametrize(
    ("name", "branch"),
    [("few positions", "_gram"), ("many positions", "_wide_product"), ("a kernel, few positions", "_gram")],
)
def test_norms_and_products_take_the_cheaper_way(name, branch, monkeypatch):
    """T (I + O) against I O: 2 · 11 < 30, 7 · 5 > 6, and 2 · 19 < 48."""
    used = []

    def count(way):
        f = getattr(fnn.outer, way)
        monkeypatch.setattr(fnn.outer, way, lambda *args: (used.append(way), f(*args))[1])

    count("_gram")
    count("_wide_product")
    _, f, g, *_ = draws(name)
    for quantity in (lambda: factors.norm(f), lambda: factors.products(f, g)):
        used.clear()
        quantity()
        assert set(used) == {branch}


def test_in_blocks_the_memory_is_bounded_on_numpy(monkeypatch):
    """512 examples of 16 KiB each, if made, and a third of that as factors: beside copies of those, a block or so."""
    rng = np.random.default_rng(0)
    f, params = Outer(rng.normal(size=(512, 8, 64)), rng.normal(size=(512, 8, 32))), np.zeros((64, 32))
    monkeypatch.setattr(fnn.outer, "BLOCK", 2**18)
    for quantity in (lambda: factors.norm(f), lambda: factors.squares(params, f)):
        tracemalloc.start()
        quantity()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < f.delta.nbytes + f.a.nbytes + 2**21 < factors.made(params, f).nbytes


# ---- numbers at the ends of float32 ----------------------------------------------------------------------------------

SIZES = {  # of δ and of a, and of the result
    "large by small": (1e30, 1e-20),
    "small by large": (1e-25, 1e35),
    "the largest": (3e38, 1e-10),
    "the largest by the smallest": (3e38, 5e-38),
    "ordinary": (1.0, 1.0),
}
SHAPES = {"one position": (), "few positions": (2,), "many positions": (9,)}


def compiled(backend, f):
    """The function as it is used: compiled on JAX, where arithmetic is rearranged."""
    return f if backend == "numpy" else jax.jit(f)


@pytest.mark.parametrize("positions", SHAPES)
@pytest.mark.parametrize("name", SIZES)
def test_a_norm_overflows_or_underflows_only_where_the_result_does(name, positions, backend):
    (large, small), rng = SIZES[name], np.random.default_rng(0)
    delta, a = (rng.uniform(0.3, 1, (N, *SHAPES[positions], k)) for k in (3, 4))
    f = Outer(*(np.float32(size * v) for size, v in zip((large, small), (delta, a), strict=True)))
    wanted = np.linalg.norm(dense(np.zeros((3, 4)), Outer(*map(np.float64, f)), N).reshape(N, -1), axis=1)
    with np.errstate(all="raise"):
        norm = compiled(backend, factors.norm)(on(backend, f))
    assert norm.dtype == np.float32
    np.testing.assert_allclose(norm, wanted, rtol=1e-5)


@pytest.mark.parametrize("size", [3e38, 4e-37, 1e30, 1e-30])
def test_a_norm_of_arrays_rows_and_of_all_together_overflows_or_underflows_only_where_the_result_does(size, backend):
    rng = np.random.default_rng(0)
    g = np.float32(size / 4 * rng.uniform(0.3, 1, (N, 3)))
    f = on(backend, (g, Rows(g.reshape(N, 1, 3), np.zeros((N, 1), np.int32)), Outer(g, np.ones((N, 2), np.float32))))
    wanted = np.sqrt(4 * (g.astype(np.float64) ** 2).sum(axis=1))
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_allclose(compiled(backend, factors.norm)(f), wanted, rtol=1e-5)


def test_what_does_overflow_is_infinite_and_zero_is_zero(backend):
    big = np.full((N, 2), 1e30, np.float32)
    with np.errstate(over="ignore"):
        assert np.isinf(compiled(backend, factors.norm)(on(backend, Outer(big, big)))).all()
    for none in (Outer(0 * big, big), 0 * big, Rows(0 * big[:, None], np.zeros((N, 1), np.int32))):
        np.testing.assert_array_equal(compiled(backend, factors.norm)(on(backend, none)), np.zeros(N))


UNFIT = {"∞": np.inf, "not a number": np.nan}


@pytest.mark.parametrize("value", UNFIT)
@pytest.mark.parametrize("place", ["delta", "a"])
@pytest.mark.parametrize("positions", [(), (3,)])
def test_an_example_of_scale_0_counts_nothing_whatever_its_factors_are(value, place, positions, backend):
    rng = np.random.default_rng(0)
    delta, a = (rng.normal(size=(N, *positions, k)).astype(np.float32) for k in (3, 4))
    scale = np.float32(rng.random(N))
    scale[1] = 0
    clean = factors.total(np.zeros((3, 4), np.float32), Outer(delta[scale != 0], a[scale != 0]), scale[scale != 0])
    (delta if place == "delta" else a)[1] = UNFIT[value]
    found = compiled(backend, factors.total)(*on(backend, (np.zeros((3, 4), np.float32), Outer(delta, a), scale)))
    oracle.assert_close(found, clean, 1e-5)


# ---- dtypes and structure --------------------------------------------------------------------------------------------


def test_sums_have_the_parameters_dtypes_and_lengths_at_least_float32(needs_jax):
    half = lambda a: jax.ShapeDtypeStruct(a.shape, "bfloat16" if a.dtype == np.float64 else a.dtype)
    for name in ("outer products", "many positions", "rows of a table", "arrays"):
        found = jax.eval_shape(quantities, *trees.map(half, draws(name)))
        for what in ("total", "total, scaled", "made", "squares", "squares, weighted"):
            assert found[what].dtype == "bfloat16", (name, what)
        for what in ("norm", "norm2", "products", "along"):
            assert found[what].dtype == np.float32, (name, what)


def test_factors_nest_as_the_parameters_do_and_none_stands_for_all_below():
    params, f, *_ = draws("a tree")
    assert [type(g) for _, g in factors.pairs(params, f)] == [Rows, type(None), Outer, np.ndarray]
    assert [g for _, g in factors.pairs(params, {"a": None, "b": None})] == [None] * 4
    assert [type(g) for g in factors.leaves(f)] == [Rows, Outer, np.ndarray]
    total = factors.total(params, {"a": None, "b": f["b"]})
    assert not total["a"][0].any()
    fnn.trees.same_structure("total", total, params)


def test_a_length_of_nothing_is_0():
    assert numerics.length() == 0
    assert factors.norm(()) == 0
