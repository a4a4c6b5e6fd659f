"""Each schedule is its formula, written a second time for one step after the other; and Optax's, where there is one."""

import copy
import functools
import inspect
import math
import pickle
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import compiled

import fnn
from fnn import errors, schedules
from fnn.backend import Record
from fnn.optimizers import prepare
from fnn.schedules import Constant, CosineAnnealing, Join, Piecewise
from fnn.static import Interval, check_ranges, declared

STEPS = 40


def cosine(start, end, fraction):
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * fraction))


def restarts(t, period, factor):
    """Period by period: the cosine from 0.3 to 0.02, anew at each restart."""
    begin, i = 0, 0
    while True:
        end = int(period * sum(factor**j for j in range(i + 1)) + 0.5)
        if t < end:
            return cosine(0.3, 0.02, (t - begin) / (end - begin))
        begin, i = end, i + 1


def one_cycle(t, top, steps, start=0.4 / 10, peak=0.4, end=0.4 / 10 / 100):
    return cosine(start, peak, t / top) if t < top else cosine(peak, end, min((t - top) / (steps - top), 1))


def warm_then_cosine(t):
    return 0.4 * t / 5 if t < 5 else cosine(0.4, 0.0, min((t - 5) / 20, 1))


def three_parts(t):
    return 0.05 if t < 4 else 0.3 * 0.5 ** ((t - 4) // 3) if t < 16.5 else 0.1 / (1 + 0.5 * (t - 17))


def sgdr(optax, *periods):
    how = {"init_value": 0.3, "peak_value": 0.3, "warmup_steps": 0, "end_value": 0.02}
    return optax.sgdr_schedule([{**how, "decay_steps": period} for period in periods])


def joined(optax):
    return optax.join_schedules([optax.linear_schedule(0.0, 0.4, 5), optax.cosine_decay_schedule(0.4, 20)], [5])


class Case(NamedTuple):
    """A schedule, its formula at one t, and how Optax makes it, where it does."""

    schedule: Any
    formula: Callable
    optax: Any = None


CASES = {
    "constant": Case(schedules.Constant(0.1), lambda t: 0.1, lambda optax: optax.constant_schedule(0.1)),
    "time based": Case(schedules.TimeBasedDecay(0.4, 0.1), lambda t: 0.4 / (1 + 0.1 * t)),
    "steps": Case(
        schedules.StepDecay(0.4, 0.5, 7),
        lambda t: 0.4 * 0.5 ** (t // 7),
        lambda optax: optax.exponential_decay(0.4, 7, 0.5, staircase=True),
    ),
    "exponential": Case(
        schedules.ExponentialDecay(0.4, 0.3, 15),
        lambda t: 0.4 * 0.3 ** (t / 15),
        lambda optax: optax.exponential_decay(0.4, 15, 0.3),
    ),
    "exponential growth": Case(
        schedules.ExponentialDecay(1e-4, 1e5, STEPS),
        lambda t: 10 ** (-4 + 5 * t / STEPS),
        lambda optax: optax.exponential_decay(1e-4, STEPS, 1e5),
    ),
    "line": Case(
        schedules.PolynomialDecay(0.4, 0.1, 30),
        lambda t: 0.4 - 0.01 * min(t, 30),
        lambda optax: optax.linear_schedule(0.4, 0.1, 30),
    ),
    "polynomial": Case(
        schedules.PolynomialDecay(0.4, 0.1, 30, power=2.5),
        lambda t: 0.1 + 0.3 * (1 - min(t, 30) / 30) ** 2.5,
        lambda optax: optax.polynomial_schedule(0.4, 0.1, 2.5, 30),
    ),
    "cosine": Case(
        schedules.CosineAnnealing(0.4, 30),
        lambda t: cosine(0.4, 0, min(t / 30, 1)),
        lambda optax: optax.cosine_decay_schedule(0.4, 30),
    ),
    "cosine to a rest": Case(
        schedules.CosineAnnealing(0.4, 30, final=0.1),
        lambda t: cosine(0.4, 0.1, min(t / 30, 1)),
        lambda optax: optax.cosine_decay_schedule(0.4, 30, alpha=0.25),
    ),
    "restarts": Case(
        schedules.CosineRestarts(0.3, 9, final=0.02),
        lambda t: restarts(t, 9, 1),
        lambda optax: sgdr(optax, 9, 9, 9, 9, 9),
    ),
    "restarts, twice as long each": Case(
        schedules.CosineRestarts(0.3, 3, final=0.02, period_factor=2),
        lambda t: restarts(t, 3, 2),
        lambda optax: sgdr(optax, 3, 6, 12, 24),
    ),
    "restarts, half as long again": Case(  # at 0, 5, 12.5, 23.75 and 40.6, to whole steps
        schedules.CosineRestarts(0.3, 5, final=0.02, period_factor=1.5),
        lambda t: restarts(t, 5, 1.5),
        lambda optax: sgdr(optax, 5, 8, 11, 17),
    ),
    "warm-up": Case(
        schedules.LinearWarmup(0.4, 8), lambda t: 0.05 * min(t, 8), lambda optax: optax.linear_schedule(0.0, 0.4, 8)
    ),
    "warm-up from somewhere": Case(
        schedules.LinearWarmup(0.4, 8, start=0.2),
        lambda t: 0.2 + 0.025 * min(t, 8),
        lambda optax: optax.linear_schedule(0.2, 0.4, 8),
    ),
    "one cycle": Case(
        schedules.OneCycle(0.4, 30, div_factor=10, final_div_factor=100),
        lambda t: one_cycle(t, 9, 30),
        lambda optax: optax.cosine_onecycle_schedule(30, 0.4, div_factor=10, final_div_factor=100),
    ),
    "one cycle as usual": Case(
        schedules.OneCycle(0.4, 30),
        lambda t: one_cycle(t, 9, 30, 0.4 / 25, 0.4, 0.4 / 25 / 1e4),
        lambda optax: optax.cosine_onecycle_schedule(30, 0.4),
    ),
    "one cycle, its peak between two steps": Case(
        schedules.OneCycle(0.4, 30, pct_start=0.25, div_factor=10, final_div_factor=100),
        lambda t: one_cycle(t, 7.5, 30),
    ),
    "piecewise": Case(
        schedules.Piecewise((5, 20, 35), (0.4, 0.2, 0.3, 0.1)),
        lambda t: 0.4 if t < 5 else 0.2 if t < 20 else 0.3 if t < 35 else 0.1,
        lambda optax: optax.piecewise_constant_schedule(0.4, {5: 0.5, 20: 1.5, 35: 1 / 3}),
    ),
    "warm-up and cosine": Case(
        schedules.Join((schedules.LinearWarmup(0.4, 5), schedules.CosineAnnealing(0.4, 20)), (5,)),
        warm_then_cosine,
        joined,
    ),
    "three parts, one from between two steps": Case(
        schedules.Join(
            (schedules.Constant(0.05), schedules.StepDecay(0.3, 0.5, 3), schedules.TimeBasedDecay(0.1, 0.5)), (4, 16.5)
        ),
        three_parts,
    ),
}
EVERY = [pytest.param(case, id=name) for name, case in CASES.items()]
PUBLIC = [
    thing for _, thing in inspect.getmembers(schedules, inspect.isclass) if thing.__module__ == schedules.__name__
]


def wanted(case, steps=STEPS):
    return np.array([case.formula(t) for t in range(steps)])


def all_at_once(backend, schedule, steps=STEPS):
    """η(0), …, each from an int32 scalar, as a training step has it."""
    if backend == "numpy":
        return np.stack([schedule(t) for t in np.arange(steps, dtype=np.int32)])
    return together({"it": schedule}, steps)["it"]


def together(schedules, steps=STEPS):
    """`all_at_once` of each by name on JAX, by one program."""
    jax = fnn.backend.jax
    of_each = lambda t: {name: schedule(t) for name, schedule in schedules.items()}
    return oracle.quick_jit(jax.vmap(of_each))(np.arange(steps, dtype=np.int32))


@functools.cache
def table_on_jax():
    return together({name: case.schedule for name, case in CASES.items()})


def test_every_schedule_is_in_the_table():
    assert {type(case.schedule) for case in CASES.values()} == set(PUBLIC)


def test_a_schedule_is_its_formula_at_every_step(backend):
    for name, case in CASES.items():
        found = all_at_once("numpy", case.schedule) if backend == "numpy" else table_on_jax()[name]
        assert found.dtype == np.float32, name
        # 1e-7 of rates of up to 1 is float32
        np.testing.assert_allclose(found, wanted(case), rtol=3e-6, atol=1e-7, err_msg=name)


def test_a_schedule_is_optaxs_at_every_step(needs_jax):
    optax, counts = pytest.importorskip("optax"), np.arange(STEPS, dtype=np.int32)
    for name, case in CASES.items():
        if case.optax:
            # Not compiled: its polynomial of a fractional power is NaN after the end then, by rounding below 0.
            theirs = needs_jax.vmap(case.optax(optax))(counts)
            np.testing.assert_allclose(table_on_jax()[name], theirs, rtol=3e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("case", EVERY)
def test_a_whole_run_may_be_asked_at_once_and_by_any_kind_of_number(case):
    # NumPy's powers of an array and of a number differ in their last bit.
    found = case.schedule(np.arange(STEPS))
    assert found.shape == (STEPS,)
    np.testing.assert_allclose(found, all_at_once("numpy", case.schedule), rtol=3e-7)
    kinds = [case.schedule(t) for t in (6, np.int32(6), np.int64(6), np.array(6))]
    assert all(kind == kinds[0] and type(kind) is np.float32 for kind in kinds)


@pytest.mark.parametrize("case", EVERY)
def test_numbers_of_float64_give_a_rate_of_float64(case):
    exact = prepare(fnn.Sgd(case.schedule), np.ones(1)).learning_rate
    found = all_at_once("numpy", exact)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted(case), rtol=1e-13, atol=1e-16)


def test_numbers_of_float64_give_a_rate_of_float64_on_jax(needs_jax):
    with needs_jax.enable_x64(True):
        case = CASES["three parts, one from between two steps"]
        exact = prepare(fnn.Sgd(case.schedule), needs_jax.numpy.ones(1, np.float64)).learning_rate
        found = all_at_once("jax", exact)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted(case), rtol=1e-13)


def test_a_schedules_numbers_may_be_traced(needs_jax):
    """Two runs with all numbers different, in one program: each lane is the schedule alone, on NumPy."""
    table = {name: case.schedule for name, case in CASES.items()}
    scaled = fnn.trees.map(lambda number: np.float32(1.1 * number), table)
    both = fnn.trees.map(lambda *numbers: np.float32(numbers), table, scaled)
    jax, counts = needs_jax, np.arange(STEPS, dtype=np.int32)
    # Traced numbers are float32 as `prepare` makes them, so that the alone ones have to be, too.
    of_each = lambda s: jax.vmap(lambda t: {name: schedule(t) for name, schedule in s.items()})(counts)
    for name, found in oracle.quick_jit(jax.vmap(of_each))(both).items():
        assert found.dtype == np.float32, name
        assert not found.weak_type, f"{name}: a weak type would compile the second step anew"
        for lane, alone in zip(found, (table[name], scaled[name]), strict=True):
            np.testing.assert_allclose(lane, all_at_once("numpy", alone), rtol=3e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("name", ["steps", "one cycle", "three parts, one from between two steps"])
def test_an_optimizer_takes_a_schedule_in_the_place_of_its_rate(name, backend):
    """w ← w − η(t) w from w = 1: after some steps it is Π (1 − η(t))."""
    net, case = fnn.Dense(1, bias=False, initializer=fnn.Ones()), CASES[name]
    state = fnn.init_state(net, fnn.Sgd(case.schedule), fnn.random.key(0, backend=backend), (1,))
    step = fnn.make_step(net, fnn.Quadratic())
    for _ in range(20):
        state, _ = step(state, (np.float32([[1]]), np.float32([[0]])))
    np.testing.assert_allclose(state.params.w, [[np.prod(1 - wanted(case, 20))]], rtol=1e-5)


def test_restarts_are_found_to_the_step_for_a_hundred_thousand_steps(backend):
    xp, lanes = fnn.backend.jnp if backend == "jax" else np, []
    for period, factor in [(3, 1), (7, 1), (1000, 1), (3, 2), (7, 2), (1000, 2), (7, 3), (10, 1.5), (4, 10)]:
        starts = np.cumsum(float(period) * float(factor) ** np.arange(20 if factor > 1 else 40_000))
        starts = np.floor(starts[starts < 100_000] + 0.5)
        lanes.append(np.stack([starts, np.full_like(starts, period), np.full_like(starts, factor)]))
    starts, periods, factors = xp.asarray(np.concatenate(lanes, axis=1), dtype=np.float32)
    schedule = schedules.CosineRestarts(0.3, periods, 0.1, factors)
    rates = compiled(backend, lambda schedule, t: schedule(t))
    np.testing.assert_allclose(rates(schedule, starts.astype(np.int32)), 0.3, rtol=1e-6)
    assert float(rates(schedule, starts.astype(np.int32) - 1).max()) < 0.16, "and not a step too early"


def test_a_period_factor_near_1_is_no_trouble(backend):
    near, one = (schedules.CosineRestarts(0.3, 10, 0.1, factor) for factor in (np.float32(1 + 2**-23), 1))
    np.testing.assert_allclose(all_at_once(backend, near), all_at_once(backend, one), rtol=1e-5)


def test_cosines_keep_their_digits_to_the_end(backend):
    """1 + cos x would be 0 or noise there: the last step is 0.4 (π / 2s)²."""
    xp = fnn.backend.jnp if backend == "jax" else np
    found = float(schedules.CosineAnnealing(0.4, 100_000)(xp.asarray(99_999)))
    assert found == pytest.approx(0.4 * (math.pi / 200_000) ** 2, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if name != "exponential growth"])
def test_a_rate_is_a_number_after_the_longest_run(name):
    assert 0 <= CASES[name].schedule(np.int32(2**31 - 1)) <= 0.4


LAST = {"line": 0.1, "polynomial": 0.1, "cosine": 0.0, "cosine to a rest": 0.1, "warm-up": 0.4, "piecewise": 0.1}
LAST |= {"one cycle": 0.4 / 1000, "warm-up and cosine": 0.0}


@pytest.mark.parametrize("name", LAST)
def test_a_schedule_stays_where_it_ended(name):
    assert all(CASES[name].schedule(t) == pytest.approx(LAST[name], rel=1e-6) for t in (35, 10**6, 2**31 - 1))


def test_exponential_decay_meets_the_stairs_at_each_of_them():
    t = np.arange(0, STEPS, 5)
    smooth, stairs = schedules.ExponentialDecay(0.4, 0.5, 5), schedules.StepDecay(0.4, 0.5, 5)
    np.testing.assert_allclose(smooth(t), stairs(t), rtol=1e-6)
    assert (smooth(t + 4) < stairs(t + 4)).all()


@pytest.mark.parametrize("case", EVERY)
def test_every_number_of_a_schedule_declares_a_range_that_the_table_keeps(case):
    check_ranges(case.schedule)
    ranges = declared(type(case.schedule))
    assert all(ranges[name].interval for name in case.schedule._fields if name != "schedules")


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in CASES.values() for name in case.schedule._fields if name != "schedules"],
    ids=lambda item: item if isinstance(item, str) else type(item.schedule).__name__,
)
def test_a_number_out_of_its_range_is_refused_with_its_place(case, name):
    with pytest.raises(errors.ArgumentError, match=rf"Sgd\.learning_rate\.{name} .*-1"):
        prepare(fnn.Sgd(case.schedule._replace(**{name: -1.0})), np.ones(1))


BAD = {
    "as many values as boundaries": (
        schedules.Piecewise((10, 20), (0.1, 0.2)),
        errors.ArgumentError,
        "Piecewise: expected one more of values than of boundaries, got 2 and 2",
    ),
    "too many schedules": (
        schedules.Join((schedules.Constant(0.1),) * 3, (10,)),
        errors.ArgumentError,
        "Join: .*schedules.*got 3 and 1",
    ),
    "a number as schedule": (
        schedules.Join((0.1, schedules.Constant(0.1)), (10,)),
        errors.KindError,
        r"Join\.schedules\[0\]: expected a schedule such as Constant\(0\.1\), got 0\.1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_parts_that_do_not_fit_are_refused(name):
    schedule, error, message = BAD[name]
    with pytest.raises(error, match=message):
        schedule(0)


# ---- as a record, and as a function for JAX --------------------------------------------------------------------------


class Halving(Record):
    """A schedule as a user writes it, with declared ranges."""

    initial: Annotated[Any, Interval("[0, ∞)")]
    floor: Annotated[Any, Interval("[0, ∞)")] = 0.0

    def __call__(self, count):
        xp = fnn.backend.namespace(count, self.initial)
        return xp.maximum(self.initial * 0.5**count, self.floor)


def test_jax_takes_a_schedule_as_a_function_as_often_as_one_likes(needs_jax):
    jax, given = needs_jax, CosineAnnealing(0.1, steps=10)
    prepared = prepare(fnn.Sgd(given), jax.numpy.ones(1)).learning_rate
    for schedule in (given, given, prepared, prepared, Halving(0.1), Halving(0.1)):
        assert jax.eval_shape(schedule, 3).shape == ()
    assert len(jax.make_jaxpr(given)(3).in_avals) == 1
    for schedule in (given, given, CosineAnnealing(0.2, steps=10)):
        np.testing.assert_allclose(jax.jit(schedule)(3), schedule(3), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(given)(np.arange(4))[3], given(3), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(given)(3.0), -0.005 * np.pi * np.sin(0.3 * np.pi), rtol=1e-5)
    several = Piecewise((2,), (np.float32([1.0, 2.0]), np.float32([3.0, 4.0])))  # as of two runs
    for schedule in (several, several._replace(boundaries=(4,))):
        assert jax.eval_shape(schedule, 3).shape == (2,)


def test_a_schedule_is_a_record(backend):
    schedule = CosineAnnealing(0.1, 10)
    assert repr(schedule) == "CosineAnnealing(initial=0.1, steps=10, final=0)"
    assert tuple(schedule) == (0.1, 10, 0)
    assert schedule == CosineAnnealing(0.1, steps=10)
    assert schedule not in (CosineAnnealing(0.1, 11), Constant(0.1), (0.1, 10, 0))
    assert schedule._replace(steps=11) == CosineAnnealing(0.1, 11)
    assert Join((schedule, Constant(0.1)), (3,)) != Join((schedule, Constant(0.2)), (3,))
    assert len({schedule, CosineAnnealing(0.1, 10)}) == 1
    for copied in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert copied == schedule
        assert type(copied) is CosineAnnealing
    with pytest.raises(AttributeError):
        schedule.initial = 0.2
    doubled = fnn.trees.map(lambda number: 2 * number, {"a": (schedule, [Halving(0.1)])})
    assert doubled == {"a": (CosineAnnealing(0.2, 20), [Halving(0.2)])}
    assert fnn.trees.leaves(doubled) == [0.2, 20, 0, 0.2, 0.0]
    assert fnn.trees.paths(doubled, "")[1] == ("['a'][0].steps", 20)
    with pytest.raises(errors.ArgumentError, match=r"Sgd\.learning_rate\.floor >= 0"):
        prepare(fnn.Sgd(Halving(0.1, -1.0)), np.ones(1))


def test_a_record_of_ones_own_is_a_schedule_in_a_run_and_in_a_file(backend, tmp_path):
    state = fnn.init_state(fnn.Dense(1), fnn.Sgd(Halving(0.5)), fnn.random.key(0, backend=backend), (1,))
    state, _ = fnn.make_step(fnn.Dense(1), fnn.Quadratic())(state, (np.float32([[1]]), np.float32([[0]])))
    fnn.checkpoints.save(tmp_path / "run.npz", state)
    again = fnn.checkpoints.load(tmp_path / "run.npz", like=state).tree
    assert type(again.optimizer.learning_rate) is Halving
    assert again.optimizer == state.optimizer
