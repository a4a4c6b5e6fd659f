"""Every example stands once in an epoch, at a place as likely as any other, and a run may be cut wherever one likes.

Keys are fixed, so no test is left to luck: `chi_square_range` says between what limits a fair order falls but for two
cases in a million.
"""

import functools
import itertools
import math
import zlib
from fractions import Fraction

import numpy as np
import pytest
from helpers import THOROUGH
from hypothesis import given
from hypothesis import strategies as st

import fnn
from fnn import order, random
from fnn.errors import ArgumentError, KindError, ShapeError
from fnn.order import Plan

pytestmark = pytest.mark.numpy_alone

# Either side of 64, where sorting ends; primes, squares, a power of two and one more; and sizes of real data.
SIZES = (1, 3, 64, 65, 66, 241, 4033, 10_011, 16_542, 60_000, 100_003)
SPECIAL = [n for n in SIZES if n > 300]
EPOCHS = [(1, 1), (5, 2), (6, 3), (7, 7), (64, 10), (65, 13), (100, 33)]  # n, batch size

SMALL = [*range(2, 65), 65, 81, 127] if THOROUGH else [2, 3, 5, 8, 21, 63, 64, 65, 81]  # beyond 64: a Feistel network

compiled = fnn.backend.jit(Plan.batches, static=("self", "steps", "fresh"))
compiled_sample = fnn.backend.jit(Plan.sample, static=("self",))


def np_key(seed=0):
    return random.key(seed, backend="numpy")


def batches(key, n, batch_size, epoch, seen, steps, shuffle=True, fresh=False):
    """As NumPy arrays: compiled where the key is JAX's, as training does it."""
    plan = Plan(n, batch_size, shuffle)
    found = compiled(plan, key, np.int32(epoch), np.int32(seen), steps=steps, fresh=fresh)
    return tuple(np.asarray(array) for array in found)


def is_permutation(found, n):
    return found.dtype == np.int32 and (np.sort(found) == np.arange(n)).all()


# ---- the order of an epoch -------------------------------------------------------------------------------------------


def test_every_order_of_up_to_300_examples_is_a_permutation():
    for n, key in itertools.product(range(1, 301), random.split(np_key(), 3)):
        assert is_permutation(order.order(key, n), n), n


@pytest.mark.parametrize("n", SPECIAL)
def test_an_order_of_many_examples_is_a_permutation(n):
    for key in random.split(np_key(1), 3):
        assert is_permutation(order.order(key, n), n)


@given(n=st.integers(1, 20_000), seed=st.integers(0, 2**32 - 1))
def test_an_order_of_any_number_of_examples_is_a_permutation(n, seed):
    assert is_permutation(order.order(np_key(seed), n), n)


@pytest.mark.parametrize("n", SIZES if THOROUGH else (3, 65, 66, 10_011, 60_000))
def test_jax_and_numpy_give_the_same_order_to_the_bit(n, needs_jax):
    compiled = needs_jax.jit(order.order, static_argnums=1)
    for seed in (0, 7, 2**32 - 1):
        found = compiled(random.key(seed, backend="jax"), n)
        assert found.dtype == np.int32
        assert (np.asarray(found) == order.order(np_key(seed), n)).all()


GOLDEN = [  # seed, then CRC-32 of the orders of 64, 65, 60,000 and 100,003: a change would change everybody's runs
    (0, (736594387, 470507332, 951511327, 3520136687)),
    (7, (807887959, 93672553, 4152472158, 2696397323)),
]


@pytest.mark.parametrize(("seed", "checksums"), GOLDEN)
def test_orders_are_the_ones_written_down_here(seed, checksums):
    key = np_key(seed)
    orders = [order.order(key, n).astype("<i4") for n in (64, 65, 60_000, 100_003)]
    assert tuple(zlib.crc32(found.tobytes()) for found in orders) == checksums
    assert order.order(key, 5).tolist() == {0: [2, 3, 4, 0, 1], 7: [2, 3, 0, 4, 1]}[seed]


# ---- is it fair? -----------------------------------------------------------------------------------------------------


def chi_square_range(dof, z=4.753):
    """Where χ² falls but for one case in a million on either side (E. Wilson, M. Hilferty, 1931)."""
    spread = 2 / (9 * dof)
    low, high = (dof * max(0, 1 - spread + sign * z * math.sqrt(spread)) ** 3 for sign in (-1, 1))
    return low, high


def fair(counts, expected, dof, factor=1.0):
    """Whether Pearson's Σ (O − E)² / E, times a factor, is neither larger nor smaller than chance allows."""
    low, high = chi_square_range(dof)
    statistic = float((factor * (counts - expected) ** 2 / expected).sum())
    return low <= statistic <= high


# True values of the χ² distribution at 1 − 10⁻⁶, from tables; the approximation is wide for few degrees of freedom.
@pytest.mark.parametrize(("dof", "critical", "off"), [(1, 23.93, 4), (10, 46.86, 1.2), (100, 182.13, 0.4)])
def test_the_limits_are_those_of_the_chi_square_distribution(dof, critical, off):
    assert 0 <= chi_square_range(dof)[1] - critical < off


def test_the_tests_of_fairness_can_fail():
    """What a fair order is taken for, and two unfair ones are not: too uneven, and too even."""
    generator = np.random.default_rng(0)
    expected = np.full(64, 100.0)
    assert fair(generator.multinomial(6400, expected / 6400), expected, 63)
    assert not fair(generator.multinomial(6400, np.linspace(80, 120, 64) / 6400), expected, 63)
    assert not fair(expected, expected, 63)


@functools.cache
def orders(n):
    """Orders of n examples, one a row, enough for 8 examples in every cell of position and example."""
    return np.stack([order.order(key, n) for key in random.split(np_key(n), max(640, 8 * n))])


def joint(rows, columns):
    """How often each row class meets each column class."""
    shape = rows.max() + 1, columns.max() + 1
    return np.bincount((rows * shape[1] + columns).ravel(), minlength=math.prod(shape)).reshape(shape)


def classes(n, at_most=8):
    """Each example's class, all of almost one size: a class for each where there are few."""
    return np.arange(n) * min(n, at_most) // n


def chance_of_pairs(sizes):
    """The chance that two examples drawn without replacement are of the classes i and j."""
    n = sizes.sum()
    return (np.outer(sizes, sizes) - np.diag(sizes)) / (n * (n - 1))


@pytest.mark.parametrize("n", SMALL)
def test_every_example_is_as_likely_at_every_position(n):
    found = orders(n)
    counts = joint(np.broadcast_to(np.arange(n), found.shape), found)
    # Rows and columns have fixed sums, so χ² has (n − 1)² degrees of freedom and is too large by n / (n − 1).
    assert fair(counts, len(found) / n, (n - 1) ** 2, factor=(n - 1) / n)


@pytest.mark.parametrize("n", SMALL)
def test_any_two_examples_are_as_likely_at_two_positions(n):
    found, kind = orders(n), classes(n)
    chance = chance_of_pairs(np.bincount(kind))
    possible = chance > 0
    for first, second in {(0, 1), (n - 2, n - 1), (0, n - 1), ((n - 1) // 2, (n - 1) // 2 + 1)}:
        counts = joint(kind[found[:, first]], kind[found[:, second]])
        assert not counts[~possible].any()
        assert fair(counts[possible], len(found) * chance[possible], possible.sum() - 1)


@pytest.mark.parametrize("n", SMALL)
def test_an_example_follows_its_predecessor_as_often_as_chance_has_it(n):
    follows = (np.diff(orders(n), axis=1) == 1).sum(axis=1)
    off = follows.mean() - (n - 1) / n
    assert abs(off) < 5 * follows.std() / math.sqrt(len(follows))  # standard errors: p = 6e-7


# Beyond 64, where a and b are odd (n = 81), the network gives even permutations only.
@pytest.mark.parametrize("n", [n for n in SMALL if n <= 64])
def test_orders_are_even_and_odd_permutations_alike(n):
    found = orders(n)[:640]
    inversions = sum((found[:, i, None] > found[:, i + 1 :]).sum(axis=1) for i in range(n - 1))
    assert abs((inversions % 2).mean() - 0.5) < 5 * 0.5 / math.sqrt(len(found))  # standard errors: p = 6e-7


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_a_few_examples_is_as_likely(n):
    every = math.factorial(n)
    found = np.stack([order.order(key, n) for key in random.split(np_key(n), 20 * every)])
    code = found @ n ** np.arange(n)
    _, counts = np.unique(code, return_counts=True)
    assert len(counts) == every
    assert fair(counts, 20, every - 1)


N = 60_000
# Ways to sort positions and examples into classes; a = 240 and b = 250 are the sides of the Feistel network, so its own
# rows and columns are among them.
BINS = {
    "50 blocks": lambda i: i // 1200,
    "rows of 250": lambda i: i // 250,
    "remainders of 240": lambda i: i % 240,
    "remainders of 250": lambda i: i % 250,
    "remainders of 7": lambda i: i % 7,
}


@functools.cache
def epochs_of_60_000():
    return np.stack([order.order(random.fold_in(np_key(7), e), N) for e in range(32)])


def fair_table(counts, tables):
    """Whether a sum of tables with fixed sums of rows and columns is that of two things that are independent."""
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    expected = np.outer(rows, columns) / counts.sum()
    n = counts.sum() / tables
    return fair(counts, expected, (len(rows) - 1) * (len(columns) - 1), factor=(n - 1) / n)


@pytest.mark.parametrize("of_example", BINS.values(), ids=BINS)
@pytest.mark.parametrize("of_position", BINS.values(), ids=BINS)
def test_of_60_000_every_example_is_as_likely_at_every_position(of_position, of_example):
    found = epochs_of_60_000()
    positions = np.broadcast_to(of_position(np.arange(N)), found.shape)
    assert fair_table(joint(positions, of_example(found)), len(found))
    assert fair_table(joint(positions[0], of_example(found[0])), 1)  # and in a single epoch


@pytest.mark.parametrize("kind", BINS.values(), ids=BINS)
@pytest.mark.parametrize("first", [0, 1])
def test_of_60_000_it_is_chance_which_example_follows_which(kind, first):
    found = kind(epochs_of_60_000()[:, first : N - first])
    counts = joint(found[:, ::2], found[:, 1::2])
    chance = chance_of_pairs(np.bincount(kind(np.arange(N))))
    # Row i and column i together hold all examples of class i: as many conditions as there are classes.
    assert fair(counts, counts.sum() * chance, counts.size - len(counts))


@pytest.mark.parametrize("kind", BINS.values(), ids=BINS)
def test_the_order_of_an_epoch_says_nothing_about_the_next(kind):
    found = kind(epochs_of_60_000())
    assert fair_table(joint(found[:-1], found[1:]), len(found) - 1)


@pytest.mark.thorough
def test_of_60_000_every_example_is_as_likely_to_come_first():
    keys = random.split(np_key(3), 2000)
    first = np.concatenate([Plan(N, 8).batches(key, 0, 0, 1)[0] for key in keys])
    for position in range(8):
        assert fair(np.bincount(first[:, position] * 64 // N, minlength=64), len(keys) / 64, 63)
    chance = chance_of_pairs(np.full(8, N // 8))
    for a, b in ((0, 1), (1, 2), (0, 7)):
        assert fair(joint(first[:, a] * 8 // N, first[:, b] * 8 // N), len(keys) * chance, 63)


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), EPOCHS)
def test_every_example_is_used_once_in_an_epoch_and_only_the_last_batch_is_filled_up(n, batch_size, shuffle):
    steps = Plan(n, batch_size).steps
    last = n - (steps - 1) * batch_size
    for epoch in (0, 3):
        for fresh in (True, False):
            indices, mask = batches(np_key(7), n, batch_size, epoch, 0, steps, shuffle, fresh)
            assert indices.shape == mask.shape == (steps, batch_size)
            assert (indices.dtype, mask.dtype) == (np.int32, bool)
            assert is_permutation(indices[mask], n)
            assert mask[:-1].all()
            assert mask[-1].tolist() == [True] * last + [False] * (batch_size - last)
            assert set(indices[-1, last:]) <= set(indices[mask]), "filled up with what has been used"


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), EPOCHS if THOROUGH else [(7, 7), (64, 10), (65, 13)])
def test_jax_and_numpy_give_the_same_batches_to_the_bit(n, batch_size, fresh, needs_jax):
    where = (3, 0) if fresh else (3, min(2, n - 1))
    how = n, batch_size, *where, 2 * Plan(n, batch_size).steps, True, fresh
    for a, b in zip(batches(random.key(7, backend="jax"), *how), batches(np_key(7), *how), strict=True):
        assert (a == b).all()


def test_without_shuffling_examples_come_in_the_order_of_the_data(backend):
    indices, mask = batches(random.key(7, backend=backend), 5, 2, 1, 2, 3, shuffle=False)
    assert indices.tolist() == [[2, 3], [4, 4], [0, 1]]
    assert mask.tolist() == [[True, True], [True, False], [True, True]]


def test_after_batches_of_another_size_a_step_takes_what_is_left_of_the_epoch():
    indices, mask = batches(np_key(7), 10, 4, 2, 3, 4, shuffle=False)  # 3 of 10 have been used, by batches of 3
    assert used(indices, mask) == [[3, 4, 5, 6], [7, 8, 9], [0, 1, 2, 3], [4, 5, 6, 7]]


def run_of(key, n, batch_size, epochs):
    """The used examples of each step of a run, from the orders of its epochs."""
    base = random.fold_in(key, 0)
    orders = [order.order(random.fold_in(base, e), n).tolist() for e in range(epochs)]
    orders = orders if batch_size < n else [list(range(n))] * epochs  # of all examples at once it does not matter
    return [found[i : i + batch_size] for found in orders for i in range(0, n, batch_size)]


def used(indices, mask):
    return [row[keep].tolist() for row, keep in zip(indices, mask, strict=True)]


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (5, 2), (6, 3), (7, 7), (65, 20), (66, 66), (70, 1)])
def test_a_window_that_starts_anywhere_is_a_slice_of_the_epochs(n, batch_size):
    per_epoch = Plan(n, batch_size).steps
    run = run_of(np_key(7), n, batch_size, 6)
    for step in range(0, 2 * per_epoch + 1, max(1, per_epoch // 5)):
        epoch, seen = step // per_epoch, step % per_epoch * batch_size
        for steps in {1, 2, per_epoch, per_epoch + 1, 2 * per_epoch, 3 * per_epoch + 1}:
            found = used(*batches(np_key(7), n, batch_size, epoch, seen, steps))
            assert found == run[step : step + steps], (step, steps)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(7, 3, 4), (65, 20, 9)])
def test_on_jax_too_a_window_that_starts_anywhere_is_a_slice_of_the_epochs(n, batch_size, steps, needs_jax):
    run, per_epoch = run_of(np_key(7), n, batch_size, 6), Plan(n, batch_size).steps
    for step in range(9):
        epoch, seen = step // per_epoch, step % per_epoch * batch_size
        found = used(*batches(random.key(7, backend="jax"), n, batch_size, epoch, seen, steps))
        assert found == run[step : step + steps], step


@given(st.data(), st.integers(1, 200), st.integers(0, 2**32 - 1), st.booleans())
def test_how_a_run_is_cut_into_windows_changes_no_batch(data, n, seed, shuffle):
    batch_size = data.draw(st.integers(1, n), "batch_size")
    epoch, seen = data.draw(st.integers(0, 1000), "epoch"), data.draw(st.integers(0, n - 1), "seen")
    windows = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6), "windows")
    plan = Plan(n, batch_size, shuffle)
    whole = plan.batches(np_key(seed), epoch, seen, sum(windows))
    parts = []
    for steps in windows:
        parts.append(plan.batches(np_key(seed), epoch, seen, steps))
        epoch, seen = (int(counter) for counter in plan.place_after(np.int32(epoch), np.int32(seen), steps))
    for array, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert (array == np.concatenate(pieces)).all()


@given(st.data(), st.integers(1, 100), st.integers(0, 2**32 - 1), st.booleans())
def test_every_epoch_that_is_finished_uses_every_example_once_whatever_batch_sizes_came_before(data, n, seed, shuffle):
    """Counted of every example of every epoch, by `batches` and `after` alone."""
    epoch, seen, counts = 0, 0, np.zeros((200, n), int)
    for _ in range(data.draw(st.integers(1, 6), "calls")):
        batch_size, steps = data.draw(st.integers(1, n), "batch_size"), data.draw(st.integers(1, 12), "steps")
        plan, (before, already) = Plan(n, batch_size, shuffle), (epoch, seen)
        indices, mask = plan.batches(np_key(seed), epoch, seen, steps)
        for row, keep in zip(indices, mask, strict=True):  # the rule, written a second time
            assert keep.sum() == min(batch_size, n - seen)
            counts[epoch, row[keep]] += 1
            seen += int(keep.sum())
            epoch, seen = (epoch + 1, 0) if seen == n else (epoch, seen)
        found = plan.place_after(np.int32(before), np.int32(already), steps)
        assert [int(counter) for counter in found] == [epoch, seen]
        first = counts[: epoch + 1].sum(axis=1)
        assert (first[:epoch] == n).all()
        assert first[epoch] == seen
        assert (counts[:epoch] == 1).all()
        assert counts[epoch].max() <= 1


@given(st.integers(1, 2**31 - 1), st.data())
def test_the_counters_after_some_steps_are_those_of_one_step_after_another(n, data):
    batch_size = data.draw(st.integers(max(1, n // 20), n), "batch_size")
    seen, steps = data.draw(st.integers(0, n - 1), "seen"), data.draw(st.integers(1, 50), "steps")
    epoch, at = 7, seen
    for _ in range(steps):
        at += min(batch_size, n - at)
        epoch, at = (epoch + 1, 0) if at == n else (epoch, at)
    found = Plan(n, batch_size).place_after(np.int32(7), np.int32(seen), steps)
    assert [int(counter) for counter in found] == [epoch, at]
    assert all(counter.dtype == np.int32 for counter in found)


@pytest.mark.parametrize("n", [40, 400])
def test_epochs_and_keys_have_orders_of_their_own(n):
    found = [batches(np_key(seed), n, n // 2, 0, 0, 10)[0].reshape(5, n) for seed in (0, 1, 2)]
    assert len({tuple(row.tolist()) for row in np.concatenate(found)}) == 15
    # and they share few places: of n examples 1 on average stands where it stood, and 10 but once in ten million
    for a, b in itertools.combinations(np.concatenate(found), 2):
        assert (a == b).sum() < 10


@pytest.mark.parametrize("n", [40, 400])
def test_the_order_of_an_epoch_is_that_of_its_key_folded_in(n):
    """Stream 0 of the key of the run."""
    indices = batches(np_key(7), n, n // 2, 2, 0, 10)[0].reshape(5, n)
    expected = [order.order(random.fold_in(random.fold_in(np_key(7), 0), e), n) for e in range(2, 7)]
    assert (indices == np.stack(expected)).all()


def test_a_sample_is_of_every_example_by_itself_from_stream_2_of_the_key(backend):
    key = random.key(3, backend=backend)
    plan = Plan(40, 10, sampling="poisson")
    for step in range(3):
        index, joined = (np.asarray(a) for a in compiled_sample(plan, key, step))
        drawn = random.bernoulli(random.fold_in(random.fold_in(np_key(3), 2), step), 10 / 40, (40,))
        assert index[joined].tolist() == np.flatnonzero(drawn).tolist()
        assert len(index) == plan.room == 40
    assert Plan(10**6, 100, sampling="poisson").room == 100 + 80 + 12


@pytest.mark.parametrize(
    ("count", "n"), [(1, 1), (1, 2), (1, 3), (2, 3), (1, 10**6), (1, 3 * 10**7), (7, 2**31 - 1), (2**31 - 1, 2**31 - 1)]
)
def test_the_chance_to_join_a_sample_is_count_of_n_to_64_bits(count, n, backend, monkeypatch):
    """Words around the largest that joins are put in place of random ones; of 2⁶⁴ words, joining + 1 join."""
    joining = count * 2**64 // n - 1
    assert 0 <= Fraction(count, n) - Fraction(joining + 1, 2**64) < Fraction(1, 2**64)
    words = [w for w in (0, *(joining + d for d in (-(2**32), -1, 0, 1, 2**32)), 2**64 - 1) if 0 <= w < 2**64]
    halves = [np.uint32([w >> 32 for w in words]), np.uint32([w % 2**32 for w in words])]
    drawn = iter(halves if backend == "numpy" else [fnn.backend.jnp.asarray(half) for half in halves])
    monkeypatch.setattr(random, "bits", lambda key, shape: next(drawn))
    joined = order.joins(random.key(0, backend=backend), count, n)
    assert np.asarray(joined).tolist() == [w <= joining for w in words]


def test_where_the_high_halves_of_the_words_decide_nothing_the_low_ones_of_a_key_of_their_own_do(backend, monkeypatch):
    key, bits, calls = random.key(3, backend=backend), random.bits, []

    def all_tied(key, shape):
        calls.append(key)
        words = bits(key, shape)
        return words if len(calls) > 1 else words * np.uint32(0) + np.uint32(2**64 // 3 >> 32)

    monkeypatch.setattr(random, "bits", all_tied)
    joined = np.asarray(fnn.backend.jit(lambda key: order.joins(key, 500, 1500))(key))
    low = np.asarray(bits(random.fold_in(key, 1500), (1500,)))
    assert joined.tolist() == (low <= np.uint32(2**64 // 3 % 2**32 - 1)).tolist()
    assert 0.25 < joined.mean() < 0.42


def test_the_last_batch_of_as_many_examples_as_there_may_be_does_not_overflow():
    n, batch_size = 2**31 - 1, 1000
    plan = Plan(n, batch_size)
    seen = (plan.steps - 1) * batch_size
    indices, mask = plan.batches(np_key(), 0, seen, 1)
    assert [int(counter) for counter in plan.place_after(np.int32(0), np.int32(seen), 1)] == [1, 0]
    assert mask.sum() == n - seen
    assert indices.min() >= 0
    assert len(set(indices[mask].tolist())) == mask.sum()
    positions, _ = Plan(n, batch_size, shuffle=False).batches(np_key(), 0, seen, 1)
    assert positions.max() == n - 1
    assert positions.min() == seen


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(1, 1, 1), (10, 5, 2), (11, 5, 3), (2**31 - 1, 1, 2**31 - 1)])
def test_an_epoch_has_as_many_steps_as_it_has_batches(n, batch_size, steps):
    assert Plan(n, batch_size).steps == steps
    assert Plan(n, np.int64(batch_size)) == Plan(n, batch_size)


@pytest.mark.parametrize("n", [10, 100])
@pytest.mark.thorough(backend="jax")
def test_a_batch_of_all_examples_is_in_the_order_of_the_data_but_where_an_epoch_was_begun_in_another(n, backend):
    """Whether that is known before (`fresh`, or a number) or found out in compiled code."""
    key, plan = random.key(7, backend=backend), Plan(n, n)
    for seen in (0, 3):
        indices, mask = batches(key, n, n, 0, seen, 3)
        before = Plan(n, 3).batches(np_key(7), 0, 0, 1)[0][0].tolist() if seen else []
        assert sorted(indices[0][mask[0]].tolist() + before) == list(range(n))
        assert (indices[1:] == np.arange(n)).all()
        assert mask[1:].all()
    assert (batches(key, n, n, 0, 0, 3, fresh=True)[0] == np.arange(n)).all()
    assert (np.asarray(plan.batches(key, 0, 0, 3)[0]) == np.arange(n)).all()


def test_data_of_another_length_begin_a_new_epoch_and_a_finished_one_is_none_that_was_begun():
    plan = Plan(10, 4)
    for seen, length, expected in ((4, 10, (3, 4)), (4, 11, (4, 0)), (0, 11, (3, 0)), (0, 0, (3, 0))):
        found = plan.begin(*(np.int32(counter) for counter in (3, seen, length)))
        assert tuple(int(counter) for counter in found) == expected
        assert all(counter.dtype == np.int32 for counter in found)


BAD = [  # n, batch size
    (5, 6, ArgumentError, "batch_size: expected at most the number of examples, 5, got 6"),
    (5, 0, ArgumentError, "batch_size: expected an integer of at least 1, got 0"),
    (5, -2, ArgumentError, "batch_size: expected an integer of at least 1, got -2"),
    (5, 2.0, KindError, "batch_size: expected an integer, got 2.0"),
    (5, "2", KindError, "batch_size: expected an integer, got '2'"),
    (5, None, KindError, "batch_size: expected an integer, got None"),
    (5, True, KindError, "batch_size: expected an integer, got True"),
    (0, 1, ShapeError, "data: expected at least one example, got none"),
    (2**31, 1, ArgumentError, r"data: expected fewer than 2\*\*31 examples, got 2147483648"),
]


@pytest.mark.parametrize(("n", "batch_size", "error", "message"), BAD, ids=[row[-1] for row in BAD])
def test_batches_that_make_no_sense_are_refused(n, batch_size, error, message):
    with pytest.raises(error, match=message):
        Plan(n, batch_size)
