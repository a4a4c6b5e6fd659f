"""Private training samples, clips and adds noise as it says, and no example can get round the bound."""

import math

import numpy as np
import pytest
from helpers import THOROUGH, compiled, key, on
from helpers_training import compilations, on_numpy_at_least, same

import fnn
from fnn import DenseParams, errors, per_example, trees
from fnn.backend import jax
from fnn.factors import Outer
from fnn.rules import Private

NET, LOSS = fnn.mlp((5, 3), activation=fnn.Tanh()), fnn.SoftmaxCrossEntropy()
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)).astype(np.float32), RNG.integers(0, 3, 40)
RULE = Private(max_norm=0.5, noise_multiplier=1.0)


def begin(backend="numpy", net=NET, optimizer=None, rule=RULE, input_shape=(4,), seed=0):
    return fnn.init_state(net, optimizer or fnn.Sgd(0.1), key(backend, seed), input_shape, rule=rule)


def run(state, net=NET, data=(X, Y), loss=LOSS, **how):
    return fnn.train(net, loss, state, data, **({"steps": 3, "batch_size": 10} | how))


# ---- what a step is --------------------------------------------------------------------------------------------------


@on_numpy_at_least
def test_without_noise_and_bound_all_examples_are_ordinary_training(backend):
    private, history = run(begin(backend, optimizer=fnn.Adam(0.01), rule=Private(math.inf, 0.0)), batch_size=40)
    ordinary, _ = run(begin(backend, optimizer=fnn.Adam(0.01), rule=None), batch_size=40, shuffle=False)
    same(private.params, ordinary.params, 1e-6)
    assert (np.asarray(history["size"]) == 40).all()
    assert int(private.step) == 3


@on_numpy_at_least
@pytest.mark.parametrize("net", [NET, fnn.Serial((fnn.Dropout(0.5), *NET.layers))], ids=["mlp", "dropout"])
def test_a_step_is_the_clipped_sum_of_the_sampled_examples_over_the_expected_size(net, backend):
    """And dropout draws for the whole room of the batch, of which the examples are the first."""
    state, room = begin(backend, net, fnn.Sgd(1.0), Private(0.5, 0.0)), 40
    for t in range(2):
        after, history = run(state, net, steps=1)
        drawn = fnn.random.bernoulli(fnn.random.fold_in(fnn.random.fold_in(state.key, 2), t), 10 / 40, (40,))
        joined = np.flatnonzero(np.asarray(drawn))
        chosen, used = np.pad(joined, (0, room - len(joined))), np.arange(room) < len(joined)
        noise = fnn.random.fold_in(fnn.random.fold_in(state.key, 1), t)
        grads = per_example.gradients(net, LOSS)(state.params, X[chosen], Y[chosen], used, noise)
        lengths = np.sqrt(sum((np.asarray(g) ** 2).reshape(room, -1).sum(axis=1) for g in trees.leaves(grads)))
        factors = 0.5 / np.maximum(0.5, lengths)
        moved = trees.map(lambda p, g: p - np.tensordot(factors, np.asarray(g), 1) / 10, state.params, grads)  # noqa: B023
        same(after.params, moved, 1e-5)
        assert int(history["size"][0]) == len(joined)
        assert (factors < 1).any()
        state = after


def test_a_penalty_is_added_after_clipping_and_noise():
    state = begin(optimizer=fnn.Sgd(1.0))
    plain, penalised = (run(state, steps=1, penalty=penalty)[0].params for penalty in (None, fnn.L2(10.0)))
    wanted = trees.map(lambda p, g: p - g, plain, fnn.L2(10.0).gradient(state.params))
    same(penalised, wanted, 1e-5)


@on_numpy_at_least
def test_two_calls_are_one(backend):
    state = begin(backend, optimizer=fnn.Momentum(0.1))
    once, sizes = run(state, steps=5)
    twice, first = run(state, steps=2)
    twice, second = run(twice, steps=3)
    same(once.params, twice.params, 1e-6)
    np.testing.assert_array_equal(sizes["size"], np.concatenate([first["size"], second["size"]]))


def test_an_epoch_is_as_many_steps_as_of_batches():
    _, history = run(begin(), steps=None, epochs=2, batch_size=15)
    assert history["size"].shape == (6,)


@on_numpy_at_least
def test_every_example_joins_with_its_chance_and_alone(backend):
    n, steps, net = 50, 2000 if THOROUGH else 500, fnn.Dense(1, bias=False)
    data = np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32)
    state = begin(backend, net, fnn.Sgd(0.0), input_shape=(1,))
    _, history = run(state, net, data, fnn.Quadratic(), steps=steps, batch_size=5)
    sizes = np.asarray(history["size"], np.float64)
    variance = n * 0.1 * 0.9  # of a binomial
    assert abs(sizes.mean() - 5) < 4 * math.sqrt(variance / steps)
    assert abs(sizes.var() / variance - 1) < 4 * math.sqrt(2 / steps)


@on_numpy_at_least
def test_the_noise_is_normal_of_the_size_asked_and_independent(backend):
    """With a gradient of zero what moves the parameters is noise alone: σ C / B."""
    net = fnn.Serial((fnn.Dense(60), fnn.Dense(50)))
    state = begin(backend, net, fnn.Sgd(1.0), Private(2.0, 3.0), (40,))
    data = np.zeros((20, 40), np.float32), np.zeros((20, 50), np.float32)
    zero = state._replace(params=trees.map(lambda p: p * 0, state.params))
    after, _ = run(zero, net, data, fnn.Quadratic(), steps=1, batch_size=4)
    later, _ = run(zero, net, data, fnn.Quadratic(), steps=2, batch_size=4)
    moved = [np.asarray(p).ravel() for p in trees.leaves(after.params)]
    every = np.concatenate(moved) / (3.0 * 2.0 / 4)
    again = np.concatenate([np.asarray(p).ravel() for p in trees.leaves(later.params)]) / (3.0 * 2.0 / 4) - every
    root = math.sqrt(len(every))
    assert abs(every.mean()) < 4 / root
    assert abs(every.std() - 1) < 4 / root
    assert abs((every**4).mean() - 3) < 4 * math.sqrt(96) / root
    assert abs(np.corrcoef(every, again)[0, 1]) < 4 / root  # of the next step
    assert abs(np.corrcoef(moved[0][:2000], moved[2][:2000])[0, 1]) < 4 / math.sqrt(2000)  # of another layer


@on_numpy_at_least
def test_what_is_frozen_gets_no_noise_and_counts_in_no_norm(backend):
    net = fnn.Serial((fnn.Frozen(fnn.Dense(5)), fnn.Dense(3)))
    state = begin(backend, net, fnn.ClipByGlobalNorm(fnn.Sgd(1.0), 1e-2), Private(0.5, 100.0))
    after, _ = run(state, net, steps=1)
    same(after.params[0], state.params[0])
    moved = [np.asarray(p) - np.asarray(q) for p, q in zip(after.params[1], state.params[1], strict=True)]
    assert math.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(1e-2, rel=1e-4)
    assert all((m != 0).all() for m in moved)


# ---- nobody gets round the bound -------------------------------------------------------------------------------------

HUGE = {  # x and y of one example whose gradient is huge, or no number
    "a target of 1e20": ([[0.0]], [[1e20]]),
    "a target that float32 cannot square": ([[1.0]], [[1e37]]),
    "an input of 1e30": ([[1e30]], [[1.0]]),
    "an infinite target": ([[1.0]], [[np.inf]]),
    "nan as target": ([[1.0]], [[np.nan]]),
    "an infinite input": ([[np.inf]], [[1.0]]),
    "nan as input": ([[np.nan]], [[1.0]]),
}


@pytest.mark.parametrize("name", HUGE)
@on_numpy_at_least
def test_no_example_moves_the_clipped_sum_by_more_than_the_bound(name, backend):
    """Whatever it holds; and one whose gradient is not finite counts nothing."""
    net, (x, y) = fnn.Dense(1), (np.float32(a) for a in HUGE[name])
    others = np.float32([[1.0], [2.0]]), np.float32([[3.0], [-1.0]])
    params = net.init(key(backend), (1,))
    params = trees.map(lambda p: p * 0, params)
    clipped = per_example.clipped_gradient(net, fnn.Quadratic(), max_norm=1.0, denominator=1.0)
    with np.errstate(all="ignore"):
        alone = clipped(params, x, y)
        both = clipped(params, *(np.concatenate([a, b]) for a, b in zip((x, y), others, strict=True)))
        without = clipped(params, *others)
    length = lambda tree: math.sqrt(sum(float((np.asarray(g) ** 2).sum()) for g in trees.leaves(tree)))
    finite = np.isfinite(x).all() and np.isfinite(y).all()
    assert length(alone) == pytest.approx(1.0 if finite else 0.0, abs=1e-6)
    assert length(trees.map(lambda a, b: a - b, both, without)) <= 1 + 1e-6


def positions(delta_sign=-1.0, off=1e-4, units=20, size=1e8):
    """An example of two positions that all but cancel: δ, ±δ and a, a (1 + off)."""
    x = np.stack([np.ones(units), np.full(units, 1 + off)])[None]
    return x, np.stack([np.full(units, size), np.full(units, delta_sign * size)])[None]


ODD = {  # a network, its input, its target, and C
    "positions that cancel": (fnn.Dense(20), *positions(), 1.0),
    "positions that cancel, of gradients that are made": (fnn.Dense(2), *positions(units=2), 1.0),
    "the largest input where the error is 0": (
        fnn.Serial((fnn.Dense(3), fnn.Relu())),
        [[[-1e30] * 3, [1.0] * 3]],
        [[[0.0] * 3, [100.0] * 3]],
        1.0,
    ),
    "a unit that is saturated": (fnn.Serial((fnn.Dense(2), fnn.Tanh())), [[8.5, 1.0]], [[1e20, 1.0]], 1.0),
    "nearly no spread": (fnn.Serial((fnn.LayerNorm(), fnn.Dense(2))), [[1.0, 1.0001, 1.0]], [[1e9, 1.0]], 1.0),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.thorough(backend="jax")
def test_the_bound_holds_to_the_rounding_of_the_sum_where_floating_point_is_at_its_worst(name, dtype, backend):
    """Of an example among others: measured as the movement of the sum, before it is rounded to the parameters."""
    if dtype == "bfloat16" and jax is None:
        pytest.skip("NumPy alone has no bfloat16")
    if backend == "jax" and not (THOROUGH or (name == "positions that cancel" and dtype == "bfloat16")):
        pytest.skip("the thorough profile has it on JAX, too")
    net, x, y, bound = ODD[name]
    dtype, (x, y) = np.dtype(dtype if dtype != "bfloat16" else jax.numpy.bfloat16), (np.float64(a) for a in (x, y))
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        x, y = (
            np.concatenate([a, rng.normal(size=(2, *a.shape[1:]))]).astype(t) for a, t in ((x, dtype), (y, np.float32))
        )
        params = trees.map(lambda p: p.astype(dtype) * dtype.type(0.5), net.init(key(), x.shape[1:], np.float32))
        wide = on(backend, trees.map(lambda p: p.astype(np.float32), params))
        params, x, y = on(backend, params), on(backend, x), on(backend, y)

        @fnn.backend.jit
        def clipped(params, x, y):
            f, _ = per_example.factors_of(net, fnn.Quadratic(), params, x, y)
            return per_example.clipped(wide, f, None, np.float32(bound), 1)

        both, without = clipped(params, x, y), clipped(params, x[1:], y[1:])
    moved = np.concatenate(
        [(np.float64(a) - np.float64(b)).ravel() for a, b in zip(*map(trees.leaves, (both, without)), strict=True)]
    )
    assert np.linalg.norm(moved) <= bound * (1 + 1e-5)


RANDOM = np.random.default_rng(0).normal(size=(2, 20, 3))
FACTORS = {  # of single examples, and C
    "a scale that is subnormal": ([np.full((1, 1), 4.5e19, np.float32)], 1e-25),
    "an error that the scale makes subnormal": ([Outer(np.float32([[1e-10]]), np.float32([[1e30]]))], 2.2e-15),
    "factors of 16 bits": ([Outer(d[None], a[None]) for d, a in zip(*RANDOM.astype(np.float16), strict=True)], 1e-3),
}


@pytest.mark.parametrize("name", FACTORS)
def test_scaled_factors_are_no_longer_than_the_bound(name, backend):
    examples, bound = FACTORS[name]
    one = compiled(backend, lambda f: per_example.clipped(on(backend, zero), f, None, np.float32(bound), 1))
    zero = np.zeros((1, 1) if "subnormal" in name else (3, 3), np.float32)
    zero = zero[0] if isinstance(examples[0], np.ndarray) else zero
    for f in examples:
        assert np.linalg.norm(np.float64(one(on(backend, f)))) <= bound * (1 + 1e-5)


def test_norms_are_right_where_one_position_is_huge_and_counts_nothing(backend):
    f = Outer(np.float32([[[0, 0], [1, 2]]]), np.float32([[[1e30, 1], [3, 4]]]))
    for quantity in (fnn.factors.norm, fnn.factors.bound):
        np.testing.assert_allclose(compiled(backend, quantity)(on(backend, f)), [math.sqrt(5 * 25)], rtol=1e-5)


@on_numpy_at_least
def test_an_example_that_did_not_join_does_no_harm(backend):
    """Even the first, with which the room of a sampled batch is filled up."""
    state = begin(backend, fnn.Dense(1), fnn.Sgd(1.0), Private(1.0, 0.0), (1,))
    x, y = np.ones((40, 1), np.float32), np.ones((40, 1), np.float32)
    spoilt = x.copy()
    spoilt[0] = np.inf
    joined = lambda t: np.asarray(fnn.order.Plan(40, 4, sampling="poisson").sample(state.key, t)[0])[:1]
    assert joined(0) != 0
    step = fnn.backend.jit(lambda *data: fnn.training.loop.run(
        state, None, None, fnn.examples.Data(*data), net=fnn.Dense(1), loss=fnn.Quadratic(),
        plan=fnn.order.Plan(40, 4, sampling="poisson"), steps=1, whole=False))  # fmt: skip
    with np.errstate(all="ignore"):
        (ours, history), (theirs, expected) = (
            step(*(fnn.gate.converted(state.params, data, y)[:2])) for data in (spoilt, x)
        )
    same(ours.params, theirs.params)
    same(history, expected)


# ---- noise that hides ------------------------------------------------------------------------------------------------


def gradient(params, data, seed=0, rule=RULE, net=NET, loss=LOSS, size=10):
    """What the rule gives of a batch."""
    batch = fnn.rules.Batch(*data, None, size)
    keys = fnn.rules.Keys(None, key("numpy" if isinstance(trees.leaves(params)[0], np.ndarray) else "jax", seed))
    return rule.gradient(fnn.rules.Problem(net, loss, None), params, (), batch, keys).grads


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_released_is_a_multiple_of_a_grid_that_the_noise_alone_determines(dtype):
    """Whatever the sum is: its low bits, and those of the noise, are lost."""
    params = NET.init(key(), (4,), dtype)
    for data in ((X, Y), (X[:7] * 3, Y[:7])):
        grads = gradient(params, (data[0].astype(dtype), data[1]))
        for g in trees.leaves(grads):
            steps = np.float64(g) / (1.0 * 0.5 / 10 / 128)
            assert g.dtype == dtype
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
            assert abs(steps).max() > 30


@on_numpy_at_least
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_noise_is_added_before_the_sum_is_rounded_to_the_parameters(dtype, backend):
    if dtype == "bfloat16" and jax is None:
        pytest.skip("NumPy alone has no bfloat16")
    dtype = np.dtype(dtype if dtype != "bfloat16" else jax.numpy.bfloat16)
    net, x, y = fnn.Dense(3), np.rint(X), np.float32(Y[:, None] + 0.5) * np.ones(3, np.float32)  # of few bits
    params = trees.map(lambda p: p * 0, on(backend, net.init(key(), (4,), np.float32)))
    wide, narrow = (
        gradient(
            trees.map(lambda p, t=t: p.astype(t), params), on(backend, (x.astype(t), y)), net=net, loss=fnn.Quadratic()
        )
        for t in (np.float32, dtype)
    )
    for a, b in zip(*map(trees.leaves, (wide, narrow)), strict=True):
        assert b.dtype == dtype
        np.testing.assert_array_equal(np.asarray(a.astype(dtype)), np.asarray(b))


def test_one_state_on_two_data_sets_has_the_same_noise_and_another_key_has_not():
    """As the docstring says: the difference has none of it."""
    assert "Training one state on two data sets adds the same noise to both" in " ".join(Private.__doc__.split())
    params, other = NET.init(key(), (4,)), (X[:20] * 2, Y[20:])
    quiet = RULE._replace(noise_multiplier=0.0)
    wanted = trees.map(np.subtract, gradient(params, (X, Y), rule=quiet), gradient(params, other, rule=quiet))
    found = trees.map(np.subtract, gradient(params, (X, Y)), gradient(params, other))
    for a, b in zip(*map(trees.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(a, b, atol=1.01 * 0.05 / 128)
    apart = trees.map(np.subtract, gradient(params, (X, Y)), gradient(params, other, seed=1))
    assert max(abs(a - b).max() for a, b in zip(*map(trees.leaves, (apart, wanted)), strict=True)) > 0.05


def released(backend, canary, runs, seed):
    """The gradient of 4 parameters at 0 for each of many keys, with σ = C = B = 1: (runs, 4).

    The canary's own is (½, ½, ½, ½); in its place another example has none.
    """
    net, params = fnn.Dense(1, bias=False), on(backend, DenseParams(np.zeros((1, 4), np.float32), ()))
    batch = on(backend, (np.full((1, 4), float(canary), np.float32), np.full((1, 1), -1e3 * canary, np.float32)))
    problem, batch = fnn.rules.Problem(net, fnn.Quadratic(), None), fnn.rules.Batch(*batch, None, 1)
    of = lambda k: Private(1.0, 1.0).gradient(problem, params, (), batch, fnn.rules.Keys(None, k)).grads.w[0]
    keys = fnn.random.split(key(backend, seed), runs)
    return np.stack([of(k) for k in keys]) if backend == "numpy" else np.asarray(jax.jit(jax.vmap(of))(keys))


def audited(backend, runs=20_000):
    """Accuracy and least ε (δ = 10⁻⁵, confidence 99.9 %) of an observer by size, and of one who looks at the grid, too.

    The second knows all 2²³ values of `fnn.random.normal`, multiples of many numbers, and last bits; what these say it
    learns from half of the runs. Both are judged by the other half.
    """
    from scipy.stats import beta

    sides = [released(backend, canary, runs, seed) for canary, seed in ((0, 1), (1, 2))]
    unit = ((np.arange(2**23, dtype=np.uint32)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    low = np.nextafter(np.float32(-1), np.float32(0))
    known = np.unique(
        np.float32(math.sqrt(2)) * fnn.threefry.erfinv(np.maximum(low, unit * (np.float32(1) - low) + low))
    )

    def features(w):
        steps = np.rint(w.astype(np.float64) * 2**12).astype(np.int64)
        bits = w.view(np.uint32).astype(np.int64)
        last = np.minimum(8, np.log2(bits & -bits, where=bits != 0, out=np.full(w.shape, 8.0))).astype(np.int64)
        fits = [np.isin(w, values) for values in (known, -known)]
        off = w.astype(np.float64) * 128
        found = [fits[0] + 2 * fits[1], last, steps % 32, np.abs(off - np.rint(off)) < 1e-4]
        return [f.astype(np.int64) for f in found] + [(abs(w) > 5.42).astype(np.int64)]

    learnt = [features(side[: runs // 2]) for side in sides]
    tables = []
    for none, canary in zip(*learnt, strict=True):
        size = max(none.max(), canary.max()) + 1
        counts = [np.bincount(f.ravel(), minlength=size) + 1.0 for f in (none, canary)]
        tables.append(np.log(counts[1] / counts[0]))
    by_size = lambda w: w.sum(axis=1) / 2
    by_grid = lambda w: (
        by_size(w)
        - 0.5
        + sum(table[np.minimum(f, len(table) - 1)].sum(axis=1) for table, f in zip(tables, features(w), strict=True))
    )

    def judged(score):
        (none, canary), (tested, tried) = (
            [score(side[half]) for side in sides] for half in (slice(runs // 2), slice(runs // 2, None))
        )
        at = np.unique(np.quantile(np.concatenate([none, canary]), np.linspace(0, 1, 400)))
        rates = lambda a: (a[:, None] > at).mean(axis=0)
        best = at[np.argmax(rates(canary) - rates(none))]
        extreme = at[np.argmax(np.log((rates(canary) + 1e-9) / (rates(none) + 20 / len(none))))]
        right = ((tried > best).mean() + (tested <= best).mean()) / 2
        n, hits, alarms = len(tested), (tried > extreme).sum(), (tested > extreme).sum()
        least, most = beta.ppf(0.0005, hits, n - hits + 1) if hits else 0, beta.ppf(0.9995, alarms + 1, n - alarms)
        return right, math.log(max(least - 1e-5, 1e-12) / most)

    return judged(by_size), judged(by_grid)


@pytest.mark.skipif(not THOROUGH, reason="the thorough profile makes 40,000 runs")
def test_an_audit_finds_no_more_than_is_claimed(backend):
    """Canary against none: an observer by size is right in Φ(½) of the runs, and the grid helps none."""
    claimed = fnn.privacy.epsilon(steps=1, batch_size=1, n=1, noise_multiplier=1.0, delta=1e-5)
    (right, least), (by_grid, least_by_grid) = audited(backend)
    assert abs(right - 0.6915) < 0.012, "four standard deviations"
    assert by_grid < 0.6915 + 0.012
    assert max(least, least_by_grid) < claimed


@pytest.mark.skipif(not THOROUGH, reason="the thorough profile makes 40,000 runs")
def test_the_audit_finds_noise_of_few_values_guilty(monkeypatch):
    """The float32 normal numbers of `fnn.random.normal`, without rounding."""

    def noised(grads, std, key):
        place = iter(range(9))
        return trees.map(lambda g: g + std * fnn.random.normal(fnn.random.fold_in(key, next(place)), g.shape), grads)

    monkeypatch.setattr(fnn.rules.private, "noised", noised)
    claimed = fnn.privacy.epsilon(steps=1, batch_size=1, n=1, noise_multiplier=1.0, delta=1e-5)
    (right, _), (by_grid, least) = audited("numpy")
    assert abs(right - 0.6915) < 0.012
    assert by_grid > 0.85
    assert least > claimed


# ---- in every loop ---------------------------------------------------------------------------------------------------


def test_it_makes_the_same_run_on_both_backends_and_other_numbers_compile_nothing(needs_jax):
    ours, theirs = (run(begin(backend)) for backend in ("jax", "numpy"))
    same(ours[0].params, theirs[0].params, 1e-4)
    same(ours[1], theirs[1], 1e-4)
    with compilations() as compiled:
        run(begin("jax", optimizer=fnn.Sgd(0.2), rule=Private(2.0, 0.3)))
        assert compiled == []
        if THOROUGH:
            run(begin("jax"), steps=4)
            assert compiled != [], "the listener hears"


def test_runs_can_be_mapped_over_states_and_bounds(backend):
    if backend == "jax" and not THOROUGH:
        pytest.skip("the thorough profile has it on JAX, too")

    def of(max_norm, noise_multiplier):
        return run(begin(backend, rule=Private(max_norm, noise_multiplier)))[0].params

    bounds, noises = np.float32([0.5, 2.0]), np.float32([1.0, 0.0])
    swept = fnn.sweep(of, bounds, noises)
    for i in range(2):
        alone = run(begin(rule=Private(float(bounds[i]), float(noises[i]))))[0].params
        same(trees.map(lambda p, i=i: p[i], swept), alone, 1e-4)


def test_in_fit_it_is_the_run_of_train_and_says_what_is_not_private():
    how = {"epochs": 3, "batch_size": 10}
    fitted, history = fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), key=key(), rule=RULE, validation=(X[:9], Y[:9]), **how)
    trained, steps = fnn.train(NET, LOSS, begin(), (X, Y), **how)
    same(fitted.params, trained.params)
    assert set(history) == {"loss", "size", "validation_loss", "not_private"}
    assert set(history["not_private"]) == {"loss", "size"}
    np.testing.assert_allclose(history["size"], steps["size"].reshape(3, 4).mean(axis=1))


@on_numpy_at_least
def test_data_in_files_make_the_run_of_those_in_memory(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(fnn.examples, "AT_ONCE", 3 * 40 * 24)
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    (ours, history), (theirs, expected) = (
        fnn.fit(NET, LOSS, fnn.Momentum(0.1), (data, Y), key=key(backend), rule=RULE, epochs=2, batch_size=10)
        for data in (x, X)
    )
    tolerance = 0 if backend == "numpy" else 1e-6
    same(ours.params, theirs.params, tolerance)
    for name in ("loss", "size"):
        same(history[name], expected[name], 1e-6)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"batch_size": 41}, errors.ArgumentError, "batch_size: expected at most the number of examples, 40, got 41"),
        ({"steps": 0}, errors.ArgumentError, "steps"),
        ({"data": (X, Y, np.ones(40))}, errors.ArgumentError, "draws its own weights"),
        ({"loss": fnn.RootMeanSquaredError()}, errors.KindError, "no example has a gradient of its own"),
    ],
)
def test_bad_input_is_refused(change, error, says):
    data = (X, np.zeros((40, 3))) if "loss" in change else (X, Y)
    with pytest.raises(error, match=says):
        run(begin(), **({"data": data} | change))


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        (Private(0.0, 1.0), errors.ArgumentError, "max_norm"),
        (Private(-1.0, 1.0), errors.ArgumentError, "max_norm"),
        (Private("1", 1.0), errors.KindError, "max_norm"),
        (Private(math.inf, 1.0), errors.ArgumentError, "max_norm: expected a finite number, since the noise grows"),
        (Private(math.nan, 1.0), errors.ArgumentError, "max_norm"),
        (Private(1.0, -1.0), errors.ArgumentError, "noise_multiplier"),
        (Private(1.0, math.nan), errors.ArgumentError, "noise_multiplier"),
        (Private(1.0, math.inf), errors.ArgumentError, "noise_multiplier"),
        (Private(1e38, 10.0), errors.ArgumentError, "max_norm: expected .* for which σ C is from 1e-25 to 1e35"),
        (Private(1e-40, 1.0), errors.ArgumentError, "max_norm: expected .* for which σ C is from 1e-25 to 1e35"),
    ],
)
def test_bounds_and_noise_that_make_no_sense_are_refused(rule, error, says):
    with pytest.raises(error, match=says):
        begin(rule=rule)


@pytest.mark.parametrize("name", ["patience", "stop_below"])
def test_no_stopping_rule_may_look_at_the_training_loss(name):
    how = {"key": key(), "rule": RULE, "epochs": 2, "batch_size": 10}
    with pytest.raises(errors.ArgumentError, match=f"{name}: expected None .* training loss of Private is not private"):
        fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), **how, **{name: 1})
    if name == "patience":  # which watches the validation data
        fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), validation=(X, Y), patience=1, **how)
        with pytest.raises(errors.ArgumentError, match="patience: expected None or a metric of validation data"):
            fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), validation=(X, Y), patience=1, monitor="loss", **how)
    else:
        with pytest.raises(errors.ArgumentError, match="stop_below"):
            fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), validation=(X, Y), stop_below=1, **how)
