"""Every example stands once in an epoch, at a place as likely as any other, and a run may be cut wherever one likes.

Keys are fixed, so no test is left to luck: `chi_square_range` says between what limits a fair order falls but for two
cases in a million.
"""

import functools
import itertools
import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fnn
from fnn import batching, random
from fnn.errors import ArgumentError, KindError, ShapeError

# Either side of 64, where sorting ends; primes, squares, a power of two and one more; and sizes of real data.
SIZES = (1, 3, 64, 65, 66, 241, 4033, 10_011, 16_542, 60_000, 100_003)
SPECIAL = [n for n in SIZES if n > 300]
EPOCHS = [(1, 1), (5, 2), (6, 3), (7, 7), (64, 10), (65, 13), (100, 33)]  # n, batch size

compiled = fnn.backend.jit(batching.batches, static=("n", "batch_size", "steps", "shuffle"))


def np_key(seed=0):
    return random.key(seed, backend="numpy")


def batches(key, n, batch_size, step, steps, shuffle=True):
    """As NumPy arrays: compiled where the key is JAX's, as training does it."""
    found = compiled(key, n=n, batch_size=batch_size, step=np.int32(step), steps=steps, shuffle=shuffle)
    return tuple(np.asarray(array) for array in found)


def is_permutation(order, n):
    return order.dtype == np.int32 and (np.sort(order) == np.arange(n)).all()


# ---- the order of an epoch -------------------------------------------------------------------------------------------


def test_every_order_of_up_to_300_examples_is_a_permutation():
    for n, key in itertools.product(range(1, 301), random.split(np_key(), 3)):
        assert is_permutation(batching.order(key, n), n), n


@pytest.mark.parametrize("n", SPECIAL)
def test_an_order_of_many_examples_is_a_permutation(n):
    for key in random.split(np_key(1), 3):
        assert is_permutation(batching.order(key, n), n)


@given(n=st.integers(1, 20_000), seed=st.integers(0, 2**32 - 1))
def test_an_order_of_any_number_of_examples_is_a_permutation(n, seed):
    assert is_permutation(batching.order(np_key(seed), n), n)


@pytest.mark.parametrize("n", SIZES)
def test_jax_and_numpy_give_the_same_order_to_the_bit(n, needs_jax):
    order = needs_jax.jit(batching.order, static_argnums=1)
    for seed in (0, 7, 2**32 - 1):
        found = order(random.key(seed, backend="jax"), n)
        assert found.dtype == np.int32
        assert (np.asarray(found) == batching.order(np_key(seed), n)).all()


GOLDEN = [  # seed, then CRC-32 of the orders of 64, 65, 60,000 and 100,003: a change would change everybody's runs
    (0, (736594387, 470507332, 951511327, 3520136687)),
    (7, (807887959, 93672553, 4152472158, 2696397323)),
]


@pytest.mark.parametrize(("seed", "checksums"), GOLDEN)
def test_orders_are_the_ones_written_down_here(seed, checksums):
    key = np_key(seed)
    orders = [batching.order(key, n).astype("<i4") for n in (64, 65, 60_000, 100_003)]
    assert tuple(zlib.crc32(order.tobytes()) for order in orders) == checksums
    assert batching.order(key, 5).tolist() == {0: [2, 3, 4, 0, 1], 7: [2, 3, 0, 4, 1]}[seed]


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
    return np.stack([batching.order(key, n) for key in random.split(np_key(n), max(640, 8 * n))])


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


SMALL = [*range(2, 65), 65, 81, 127]  # beyond 64 the order is a Feistel network's


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


@pytest.mark.parametrize("n", range(2, 65))  # of more, where a and b are odd (n = 81), the network gives even ones only
def test_orders_are_even_and_odd_permutations_alike(n):
    found = orders(n)[:640]
    inversions = sum((found[:, i, None] > found[:, i + 1 :]).sum(axis=1) for i in range(n - 1))
    assert abs((inversions % 2).mean() - 0.5) < 5 * 0.5 / math.sqrt(len(found))  # standard errors: p = 6e-7


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_a_few_examples_is_as_likely(n):
    every = math.factorial(n)
    found = np.stack([batching.order(key, n) for key in random.split(np_key(n), 20 * every)])
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
    return np.stack([batching.order(random.fold_in(np_key(7), e), N) for e in range(32)])


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


def test_of_60_000_every_example_is_as_likely_to_come_first():
    keys = random.split(np_key(3), 2000)
    first = np.concatenate([batching.batches(key, N, 8, 0, 1)[0] for key in keys])
    for position in range(8):
        assert fair(np.bincount(first[:, position] * 64 // N, minlength=64), len(keys) / 64, 63)
    chance = chance_of_pairs(np.full(8, N // 8))
    for a, b in ((0, 1), (1, 2), (0, 7)):
        assert fair(joint(first[:, a] * 8 // N, first[:, b] * 8 // N), len(keys) * chance, 63)


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size"), EPOCHS)
def test_every_example_is_used_once_an_epoch(n, batch_size, backend):
    steps = batching.steps_per_epoch(n, batch_size)
    for epoch in (0, 3):
        indices, mask = batches(random.key(7, backend=backend), n, batch_size, epoch * steps, steps)
        assert indices.shape == mask.shape == (steps, batch_size)
        assert (indices.dtype, mask.dtype) == (np.int32, bool)
        assert is_permutation(indices[mask], n)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), EPOCHS)
def test_only_the_last_batch_is_filled_up_and_with_examples_already_used(n, batch_size, shuffle, backend):
    steps = batching.steps_per_epoch(n, batch_size)
    indices, mask = batches(random.key(7, backend=backend), n, batch_size, 0, steps, shuffle)
    last = n - (steps - 1) * batch_size
    assert mask[:-1].all()
    assert mask[-1].tolist() == [True] * last + [False] * (batch_size - last)
    assert set(indices[-1, last:]) <= set(indices[mask])


@pytest.mark.parametrize(("n", "batch_size"), EPOCHS)
def test_jax_and_numpy_give_the_same_batches_to_the_bit(n, batch_size, needs_jax):
    arguments = n, batch_size, 3, batching.steps_per_epoch(n, batch_size)
    for a, b in zip(batches(random.key(7, backend="jax"), *arguments), batches(np_key(7), *arguments), strict=True):
        assert (a == b).all()


def test_without_shuffling_examples_come_in_the_order_of_the_data(backend):
    indices, mask = batches(random.key(7, backend=backend), 5, 2, 4, 3, shuffle=False)
    assert indices.tolist() == [[2, 3], [4, 4], [0, 1]]
    assert mask.tolist() == [[True, True], [True, False], [True, True]]


def run_of(key, n, batch_size, epochs):
    """The used examples of each step of a run, from the orders of its epochs."""
    base = random.fold_in(key, 0)
    orders = [batching.order(random.fold_in(base, e), n).tolist() for e in range(epochs)]
    return [order[i : i + batch_size] for order in orders for i in range(0, n, batch_size)]


def used(indices, mask):
    return [row[keep].tolist() for row, keep in zip(indices, mask, strict=True)]


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (5, 2), (6, 3), (7, 7), (65, 20), (66, 66), (70, 1)])
def test_a_window_that_starts_anywhere_is_a_slice_of_the_epochs(n, batch_size):
    per_epoch = batching.steps_per_epoch(n, batch_size)
    run = run_of(np_key(7), n, batch_size, 6)
    for step in range(0, 2 * per_epoch + 1, max(1, per_epoch // 5)):
        for steps in {1, 2, per_epoch, per_epoch + 1, 2 * per_epoch, 3 * per_epoch + 1}:
            assert used(*batches(np_key(7), n, batch_size, step, steps)) == run[step : step + steps], (step, steps)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(7, 3, 4), (65, 20, 9)])
def test_on_jax_too_a_window_that_starts_anywhere_is_a_slice_of_the_epochs(n, batch_size, steps, needs_jax):
    run = run_of(np_key(7), n, batch_size, 6)
    for step in range(9):
        found = used(*batches(random.key(7, backend="jax"), n, batch_size, step, steps))
        assert found == run[step : step + steps], step


@given(st.data(), st.integers(1, 200), st.integers(0, 2**32 - 1), st.booleans())
def test_how_a_run_is_cut_into_windows_changes_no_batch(data, n, seed, shuffle):
    batch_size = data.draw(st.integers(1, n), "batch_size")
    start = data.draw(st.integers(0, 1000), "start")
    windows = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6), "windows")
    whole = batching.batches(np_key(seed), n, batch_size, start, sum(windows), shuffle)
    starts = start + np.cumsum([0, *windows[:-1]])
    parts = [
        batching.batches(np_key(seed), n, batch_size, int(at), steps, shuffle)
        for at, steps in zip(starts, windows, strict=True)
    ]
    for array, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert (array == np.concatenate(pieces)).all()


@pytest.mark.parametrize("n", [40, 400])
def test_epochs_and_keys_have_orders_of_their_own(n, backend):
    steps = batching.steps_per_epoch(n, n)
    found = [batches(random.key(seed, backend=backend), n, n, 0, 5 * steps)[0] for seed in (0, 1, 2)]
    assert len({tuple(row.tolist()) for row in np.concatenate(found)}) == 15
    # and they share few places: of n examples 1 on average stands where it stood, and 10 but once in ten million
    for a, b in itertools.combinations(np.concatenate(found), 2):
        assert (a == b).sum() < 10


def test_the_order_of_an_epoch_is_that_of_its_key_folded_in(backend):
    key = random.key(7, backend=backend)
    order = fnn.backend.jit(batching.order, static=("n",))
    for n in (40, 400):
        indices, _ = batches(key, n, n, 0, 5)
        expected = [order(random.fold_in(random.fold_in(key, 0), e), n=n) for e in range(5)]
        assert (indices == np.stack([np.asarray(order) for order in expected])).all()


def test_the_last_batch_of_as_many_examples_as_there_may_be_does_not_overflow():
    n, batch_size = 2**31 - 1, 1000
    steps = batching.steps_per_epoch(n, batch_size)
    indices, mask = batching.batches(np_key(), n, batch_size, steps - 1, 1)
    assert mask.sum() == n - (steps - 1) * batch_size
    assert indices.min() >= 0
    assert len(set(indices[mask].tolist())) == mask.sum()
    positions, _ = batching.batches(np_key(), n, batch_size, steps - 1, 1, shuffle=False)
    assert positions.max() == n - 1
    assert positions.min() == (steps - 1) * batch_size


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(1, 1, 1), (10, 5, 2), (11, 5, 3), (2**31 - 1, 1, 2**31 - 1)])
def test_an_epoch_has_as_many_steps_as_it_has_batches(n, batch_size, steps):
    assert batching.steps_per_epoch(n, batch_size) == steps
    assert batching.steps_per_epoch(n, np.int64(batch_size)) == steps


BAD = [  # n, batch size, steps
    (5, 6, 1, ArgumentError, "batch_size: expected at most the number of examples, 5, got 6"),
    (5, 0, 1, ArgumentError, "batch_size: expected an integer of at least 1, got 0"),
    (5, -2, 1, ArgumentError, "batch_size: expected an integer of at least 1, got -2"),
    (5, 2.0, 1, KindError, "batch_size: expected an integer, got 2.0"),
    (5, "2", 1, KindError, "batch_size: expected an integer, got '2'"),
    (5, None, 1, KindError, "batch_size: expected an integer, got None"),
    (5, True, 1, KindError, "batch_size: expected an integer, got True"),
    (0, 1, 1, ShapeError, "data: expected at least one example, got none"),
    (2**31, 1, 1, ArgumentError, r"data: expected fewer than 2\*\*31 examples, got 2147483648"),
    (5, 2, 0, ArgumentError, "steps: expected an integer of at least 1, got 0"),
    (5, 2, -1, ArgumentError, "steps: expected an integer of at least 1, got -1"),
    (5, 2, 1.0, KindError, "steps: expected an integer, got 1.0"),
]


@pytest.mark.parametrize(("n", "batch_size", "steps", "error", "message"), BAD, ids=[row[-1] for row in BAD])
def test_batches_that_make_no_sense_are_refused(n, batch_size, steps, error, message, backend):
    with pytest.raises(error, match=message):
        batching.batches(random.key(0, backend=backend), n, batch_size, 0, steps)
