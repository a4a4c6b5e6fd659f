"""Each optimizer is its equations, written a second time with numbers; and Optax's, where that is installed."""

import functools
from typing import Annotated, Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, compiled, on, wide
from helpers_training import compilations

import fnn
from fnn import errors, trees
from fnn.optimizers import Velocity, lift, prepare
from fnn.static import Interval

STEPS = 100


def sgd(g, w, rate, state):
    return w - rate * g, state


def momentum(g, w, rate, v, beta=0.8):
    v = beta * (0 if v is None else v) - rate * g
    return w + v, v


def nesterov(g, w, rate, v, beta=0.8):
    # v ← βv − η∇C(w + βv) in the shifted parameter u = w + βv: the next u is w + v' + βv' with w = u − βv
    v = 0 if v is None else v
    following = beta * v - rate * g
    return (w - beta * v) + following + beta * following, following


def adagrad(g, w, rate, v, start=0.1, eps=1e-7):
    v = (start if v is None else v) + g**2
    return w - rate * g * (v + eps) ** -0.5, v


def adadelta(g, w, rate, state, rho=0.9, eps=1e-6):
    v, s = (0, 0) if state is None else state
    v = rho * v + (1 - rho) * g**2
    delta = np.sqrt(s + eps) / np.sqrt(v + eps) * g
    return w - rate * delta, (v, rho * s + (1 - rho) * delta**2)


def rmsprop(g, w, rate, v, rho=0.9, eps=1e-8):
    v = rho * (0 if v is None else v) + (1 - rho) * g**2
    return w - rate * g * (v + eps) ** -0.5, v


def adam(g, w, rate, state, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m, v, t = (0, 0, 0) if state is None else state
    m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
    return w - rate * ((m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * w), (m, v, t)


def nadam(g, w, rate, state, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m, v, t = (0, 0, 0) if state is None else state
    m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
    m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return w - rate * (m_hat / (np.sqrt(v / (1 - b2**t)) + eps) + decay * w), (m, v, t)


def adamax(g, w, rate, state, b1=0.9, b2=0.999, eps=1e-8):
    m, v, t = (0, np.zeros_like(g), 0) if state is None else state
    m, v, t = b1 * m + (1 - b1) * g, np.maximum(b2 * v, np.abs(g) + eps), t + 1
    return w - rate / (1 - b1**t) * m / v, (m, v, t)


def amsgrad(g, w, rate, state, b1=0.9, b2=0.999, eps=1e-8):
    m, v, largest, t = (0, 0, np.zeros_like(g), 0) if state is None else state
    m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
    largest = np.maximum(largest, v / (1 - b2**t))
    return w - rate * m / (1 - b1**t) / (np.sqrt(largest) + eps), (m, v, largest, t)


def lion(g, w, rate, m, b1=0.9, b2=0.99, decay=1e-3):
    m = np.zeros_like(g) if m is None else m
    return w - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * w), b2 * m + (1 - b2) * g


def muon(g, w, rate, state, other=1.0, beta=0.95, decay=0.0):
    if g.ndim != 2:
        return nadam(g, w, other * rate, state, decay=decay)
    m, t = (0, 0) if state is None else state
    m, t = beta * m + (1 - beta) * g, t + 1
    m_hat = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
    u, s, v = np.linalg.svd(m_hat, full_matrices=False)
    s = s / (np.linalg.norm(s) + 1e-8)
    for _ in range(5):  # the iteration acts on the singular values alone
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    rows, columns = w.shape
    return w - rate * (np.sqrt(max(1, rows / columns)) * (u * s) @ v + decay * w), (m, t)


def optax_muon(optax, **options):
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=0)
    which = lambda params: trees.map(lambda w: axes if w.ndim == 2 else None, params)
    return optax.contrib.muon(0.1, muon_weight_dimension_numbers=which, **options)


OPTIMIZERS = {  # all with a rate of 0.1
    "sgd": (fnn.Sgd(0.1), sgd, lambda optax: optax.sgd(0.1)),
    "momentum": (fnn.Momentum(0.1, 0.8), momentum, lambda optax: optax.sgd(0.1, momentum=0.8)),
    "nesterov": (fnn.Nesterov(0.1, 0.8), nesterov, lambda optax: optax.sgd(0.1, momentum=0.8, nesterov=True)),
    "adagrad": (fnn.Adagrad(0.1), adagrad, lambda optax: optax.adagrad(0.1)),
    "adagrad from 0": (
        fnn.Adagrad(0.1, initial_accumulator_value=0.0, eps=0.1),
        functools.partial(adagrad, start=0.0, eps=0.1),
        lambda optax: optax.adagrad(0.1, 0.0, 0.1),
    ),
    "adadelta": (fnn.Adadelta(0.1), adadelta, lambda optax: optax.adadelta(0.1)),
    "adadelta of a large eps": (
        fnn.Adadelta(0.1, rho=0.8, eps=0.1),
        functools.partial(adadelta, rho=0.8, eps=0.1),
        lambda optax: optax.adadelta(0.1, rho=0.8, eps=0.1),
    ),
    "rmsprop": (fnn.RMSProp(0.1), rmsprop, lambda optax: optax.rmsprop(0.1)),
    "rmsprop of a large eps": (
        fnn.RMSProp(0.1, decay=0.8, eps=0.1),
        functools.partial(rmsprop, rho=0.8, eps=0.1),
        lambda optax: optax.rmsprop(0.1, decay=0.8, eps=0.1),
    ),
    "adam": (fnn.Adam(0.1), adam, lambda optax: optax.adam(0.1)),
    "adam of a large eps": (
        fnn.Adam(0.1, b1=0.8, b2=0.9, eps=0.1),
        functools.partial(adam, b1=0.8, b2=0.9, eps=0.1),
        lambda optax: optax.adam(0.1, b1=0.8, b2=0.9, eps=0.1),
    ),
    "adamw": (fnn.AdamW(0.1), functools.partial(adam, decay=1e-4), lambda optax: optax.adamw(0.1)),
    "adamw of a large decay": (
        fnn.AdamW(0.1, b1=0.8, b2=0.9, eps=0.1, weight_decay=0.5),
        functools.partial(adam, b1=0.8, b2=0.9, eps=0.1, decay=0.5),
        lambda optax: optax.adamw(0.1, b1=0.8, b2=0.9, eps=0.1, weight_decay=0.5),
    ),
    "nadam": (fnn.Nadam(0.1), nadam, lambda optax: optax.nadam(0.1)),
    "nadam of a large eps": (
        fnn.Nadam(0.1, b1=0.8, b2=0.9, eps=0.1),
        functools.partial(nadam, b1=0.8, b2=0.9, eps=0.1),
        lambda optax: optax.nadam(0.1, b1=0.8, b2=0.9, eps=0.1),
    ),
    "adamax": (fnn.Adamax(0.1), adamax, lambda optax: optax.adamax(0.1)),
    "adamax of a large eps": (
        fnn.Adamax(0.1, b1=0.8, b2=0.9, eps=0.1),
        functools.partial(adamax, b1=0.8, b2=0.9, eps=0.1),
        lambda optax: optax.adamax(0.1, b1=0.8, b2=0.9, eps=0.1),
    ),
    "amsgrad": (fnn.AMSGrad(0.1), amsgrad, lambda optax: optax.amsgrad(0.1)),
    "amsgrad of a large eps": (
        fnn.AMSGrad(0.1, b1=0.8, b2=0.9, eps=0.1),
        functools.partial(amsgrad, b1=0.8, b2=0.9, eps=0.1),
        lambda optax: optax.amsgrad(0.1, b1=0.8, b2=0.9, eps=0.1),
    ),
    "lion": (fnn.Lion(0.1), lion, lambda optax: optax.lion(0.1)),
    "lion of a large decay": (
        fnn.Lion(0.1, b1=0.8, b2=0.9, weight_decay=0.5),
        functools.partial(lion, b1=0.8, b2=0.9, decay=0.5),
        lambda optax: optax.lion(0.1, b1=0.8, b2=0.9, weight_decay=0.5),
    ),
    "muon": (fnn.Muon(0.1), muon, optax_muon),
    "muon with decay": (
        fnn.Muon(0.1, beta=0.8, weight_decay=0.5, adam_learning_rate=0.01),
        functools.partial(muon, other=0.1, beta=0.8, decay=0.5),
        functools.partial(optax_muon, beta=0.8, weight_decay=0.5, adam_weight_decay=0.5, adam_learning_rate=0.01),
    ),
}
CLASSES = {type(optimizer): name for name, (optimizer, *_) in reversed(OPTIMIZERS.items())}
ONE_OF_EACH = tuple(CLASSES.values())
OTHER = dict(CLASSES) | {type(optimizer): name for name, (optimizer, *_) in OPTIMIZERS.items()}  # of each, the last one
SHAPES = (4,), (3, 2), (2, 4), (2, 2)


def problem(dtype=np.float64):
    """Parameters, and a hundred gradients of every size and sign for them; the last ones are zero."""
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape) for shape in SHAPES[:3]] + [np.zeros(SHAPES[3])]
    sizes = [np.exp(2 * rng.normal(size=shape)) for shape in SHAPES[:3]] + [np.zeros(SHAPES[3])]
    gradients = [size * (rng.normal(size=(STEPS, *size.shape)) + 0.3) for size in sizes]
    gradients[0][:3, 0] = 0  # an entry that begins late
    return tuple(w.astype(dtype) for w in start), tuple(g.astype(dtype) for g in gradients)


def run(optimizer, params, gradients):
    """The parameters and the state after a step with each of the gradients."""
    return run_each({"it": optimizer}, params, gradients)["it"]


def run_each(optimizers, params, gradients):
    """`run` of each optimizer by name. All are in one loop, which JAX compiles sooner than a loop for each."""

    def step(carry, grads):
        following = {}
        for name, (params, state) in carry.items():
            updates, state = optimizers[name].update(grads, state, params)
            following[name] = fnn.apply_updates(params, updates), state
        return following, None

    start = {name: (params, optimizer.init(params)) for name, optimizer in optimizers.items()}
    return fnn.backend.scan(step, start, gradients)[0]


def prepared(optimizers, params):
    """Each as a training state holds it."""
    return {name: prepare(optimizer, params) for name, optimizer in optimizers.items()}


def by_equation(equation, rates=(0.1,) * STEPS):
    start, gradients = problem()
    found = []
    for w, gs in zip(start, gradients, strict=True):
        memory = None
        for g, rate in zip(gs, rates, strict=False):
            w, memory = equation(g, w, rate, memory)
        found.append(w)
    return tuple(found)


@pytest.mark.thorough(backend="jax")
def test_an_optimizer_is_its_equations_over_100_steps(backend):
    params, gradients = on(backend, problem(np.float32))
    program = compiled(backend, run_each)
    for names in (CLASSES, OTHER):  # two of each class share the program
        table = {CLASSES[cls]: OPTIMIZERS[name] for cls, name in names.items()}
        wanted = {name: by_equation(equation) for name, (_, equation, _) in table.items()}
        ours = {name: optimizer for name, (optimizer, *_) in table.items()}
        found = program(prepared(ours, params), params, gradients)
        last = {name: w for name, (w, _) in found.items()}
        oracle.assert_close(last, wanted, 1e-5)  # a hundred steps of float32 rounding
        assert not any(np.any(w[3]) for w in last.values()), "what has no gradient does not move"
        assert all(int(state.count) == STEPS for _, state in found.values())
        if backend == "numpy":
            start = problem()
            for exact in (prepared(ours, start[0]), ours):  # as a user's own loop holds them, too
                last = {name: w for name, (w, _) in run_each(exact, *start).items()}
                oracle.assert_close(last, wanted, 1e-12)  # and in float64 to its rounding
    assert {*CLASSES.values(), *OTHER.values()} == {*OPTIMIZERS}, "each stands in one of the two"


def test_an_own_loop_with_numbers_of_python_runs_in_the_width_of_the_parameters(needs_jax):
    params, gradients = problem()
    with needs_jax.enable_x64(True):
        params, gradients = trees.map(fnn.backend.jnp.asarray, (params, tuple(g[:3] for g in gradients)))
        found, _ = run(fnn.Adam(0.1), params, gradients)
    oracle.assert_close(found, by_equation(adam, (0.1,) * 3), 1e-12)


@pytest.mark.thorough(backend="jax")
def test_so_does_a_schedule_of_numbers_of_python(backend):
    schedule = fnn.schedules.Join((fnn.schedules.Constant(0.1), fnn.schedules.CosineAnnealing(0.1, 10)), (1,))
    with wide():
        for optimizer in (fnn.Sgd(schedule), fnn.Average(fnn.ClipByNorm(fnn.Sgd(schedule), 9.0))):
            (w,) = on(backend, (np.ones(2),))
            state = optimizer.init(w)
            for _ in range(5):
                updates, state = optimizer.update(w, state, w)
        assert updates.dtype == np.float64
        np.testing.assert_allclose(updates, -0.1 * np.cos(0.05 * np.pi * 3) ** 2 * np.ones(2), rtol=1e-14)
        narrow, _ = optimizer.update(np.float32(w), optimizer.init(np.float32(w)), np.float32(w))
        assert narrow.dtype == np.float32


def test_an_optimizer_is_optaxs_over_100_steps(needs_jax):
    optax = pytest.importorskip("optax")
    table = {name: OPTIMIZERS[name] for name in (OPTIMIZERS if THOROUGH else OTHER.values())}
    start = problem()
    ours = prepared({name: optimizer for name, (optimizer, *_) in table.items()}, start[0])
    theirs = {name: make(optax) for name, (*_, make) in table.items()}
    found = run_each(ours, *start)  # float64 on NumPy: float32 would round a sign over
    with needs_jax.enable_x64(True):
        wanted = oracle.quick_jit(functools.partial(run_each, theirs))(*start)
    oracle.assert_close(*({name: w for name, (w, _) in runs.items()} for runs in (found, wanted)), 1e-6)


# Around an optimizer, or two: what holds for every optimizer holds for these.
COMBINED = {
    "ClipByValue": fnn.ClipByValue(fnn.Sgd(0.1), 0.5),
    "ClipByNorm": fnn.ClipByNorm(fnn.Momentum(0.1), 0.5),
    "ClipByGlobalNorm": fnn.ClipByGlobalNorm(fnn.Adam(0.1), 0.5),
    "Accumulate": fnn.Accumulate(fnn.Adam(0.1), 2),
    "Average": fnn.Average(fnn.Adam(0.1), 0.9),
    "SkipNonFinite": fnn.SkipNonFinite(fnn.Adam(0.1)),
    "MaxNorm": fnn.MaxNorm(fnn.Sgd(0.1), 1.0),
    "three deep": fnn.ClipByGlobalNorm(fnn.SkipNonFinite(fnn.Accumulate(fnn.Average(fnn.AdamW(0.1)), 2)), 0.5),
}
EVERY = {name: OPTIMIZERS[name][0] for name in ONE_OF_EACH} | COMBINED


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.thorough(backend="jax")
def test_updates_have_the_dtype_of_the_parameters_and_states_are_float32_or_wider(dtype, backend):
    if backend == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy alone has no bfloat16")
    if backend == "jax" and dtype == "float64":
        pytest.skip("float64 on JAX is tested in test_training")
    dtype = fnn.backend.jnp.dtype(dtype) if backend == "jax" else np.dtype(dtype)
    params = np.ones(3, dtype), np.ones((2, 3), dtype)

    def steps(params):
        """By optimizer, as a user holds it and as a training state does: the first state, and what two steps give."""
        found = {}
        for name, optimizer in EVERY.items():
            for how, tx in ((0, optimizer), (1, prepare(optimizer, params))):
                state = tx.init(params)
                found[name, how] = [((), state)]
                for _ in range(2):
                    updates, state = tx.update(params, state, params)
                    found[name, how].append((updates, state))
        return found

    types_of = lambda tree: [leaf.dtype for leaf in trees.leaves(tree)]
    of_each = steps(params) if backend == "numpy" else fnn.backend.jax.eval_shape(steps, params)
    for name, ((_, start), *following) in of_each.items():
        for updates, state in following:
            assert types_of(state) == types_of(start), f"{name}: a scan must keep its types"
            assert types_of(updates) == [dtype, dtype], name
            assert all(t == np.int32 or t.itemsize >= 4 for t in types_of(state)), name


def test_plain_sgd_carries_no_velocity():
    state = fnn.Sgd(0.1).init(np.ones(1000))
    assert sum(np.size(leaf) for leaf in trees.leaves(state)) == 1


WITHOUT_EPS = {  # and the first update for a gradient of 4
    "adagrad": (fnn.Adagrad(0.1, initial_accumulator_value=0.0, eps=0.0), -0.1),
    "adadelta": (fnn.Adadelta(0.1, eps=0.0), 0),
    "rmsprop": (fnn.RMSProp(0.1, decay=0.75, eps=0.0), -0.2),
    "adam": (fnn.Adam(0.1, eps=0.0), -0.1),
    "adamw": (fnn.AdamW(0.1, eps=0.0, weight_decay=0.0), -0.1),
    "nadam": (fnn.Nadam(0.19, eps=0.0), -0.28),
    "adamax": (fnn.Adamax(0.1, eps=0.0), -0.1),
    "amsgrad": (fnn.AMSGrad(0.1, eps=0.0), -0.1),
    "muon": (fnn.Muon(0.19, eps=0.0), -0.28),
}


def test_without_eps_a_parameter_rests_where_there_was_no_gradient_yet(backend):
    params, grads = on(backend, ((np.float32([1, 2]), np.zeros((2, 2))), (np.float32([0, 4]), np.zeros((2, 2)))))

    def first(params, grads):
        of = {name: optimizer for name, (optimizer, _) in WITHOUT_EPS.items()}
        return {name: tx.update(grads, tx.init(params), params)[0] for name, tx in of.items()}

    for name, updates in compiled(backend, first)(params, grads).items():
        np.testing.assert_allclose(updates[0], [0, WITHOUT_EPS[name][1]], rtol=1e-5, err_msg=name)
        assert not np.any(updates[1]), name


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.thorough(backend="jax")
def test_muon_takes_matrices_whose_squares_are_no_numbers(scale, backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    optimizer, params = fnn.Muon(0.1, eps=0.0), xp.eye(2, dtype=np.float32)
    updates = [optimizer.update(size * params, optimizer.init(params), params)[0] for size in (scale, 1)]
    oracle.assert_close(*updates, 1e-5)


def test_muon_keeps_one_moment_of_a_matrix():
    state = fnn.Muon().init(np.ones((100, 100)))
    assert sum(np.size(leaf) for leaf in trees.leaves(state)) == 100 * 100 + 2


@pytest.mark.parametrize("name", EVERY)
def test_no_two_leaves_of_a_state_share_memory_and_none_is_the_parameters(name, needs_jax):
    params = fnn.backend.jnp.ones(3), fnn.backend.jnp.ones((2, 3))
    state = prepare(EVERY[name], params).init(params)
    where = [leaf.unsafe_buffer_pointer() for leaf in trees.leaves((state, params))]
    assert len(set(where)) == len(where), "JAX could not donate them"


class Halving(NamedTuple):
    """A schedule as a user writes it."""

    first: Annotated[Any, Interval("[0, ∞)")]

    def __call__(self, count):
        return self.first * 0.5**count


@pytest.mark.thorough(backend="jax")
def test_a_schedule_is_called_on_the_number_of_steps_taken(backend):
    table = {name: OPTIMIZERS[name] for name in ONE_OF_EACH}
    rates = [0.1 * 0.5**t for t in range(5)]
    wanted = {name: by_equation(equation, rates)[:2] for name, (_, equation, _) in table.items()}
    params, gradients = on(backend, tuple(arrays[:2] for arrays in problem(np.float32)))
    ours = {name: optimizer._replace(learning_rate=Halving(0.1)) for name, (optimizer, *_) in table.items()}
    found = compiled(backend, run_each)(prepared(ours, params), params, tuple(g[:5] for g in gradients))
    oracle.assert_close({name: w for name, (w, _) in found.items()}, wanted, 1e-5)


def test_the_rate_of_muons_other_parameters_may_be_a_schedule_of_its_own():
    params, gradients = problem()
    optimizer = prepare(fnn.Muon(0.1, adam_learning_rate=Halving(0.1)), params)
    found, _ = run(optimizer, params, tuple(g[:5] for g in gradients))
    wanted = by_equation(muon, [0.1] * 5), by_equation(nadam, [0.1 * 0.5**t for t in range(5)])
    oracle.assert_close(found, (wanted[1][0], *wanted[0][1:]), 1e-12)


NET, LOSS = fnn.Dense(1), fnn.Quadratic()
BATCH = np.random.default_rng(0).normal(size=(8, 2)), np.ones((8, 1))


def test_every_optimizer_trains_and_its_second_step_compiles_nothing(backend):
    key, step = fnn.random.key(0, backend=backend), fnn.make_step(NET, LOSS)
    of_each = compiled(backend, lambda states, batch: {name: step(state, batch) for name, state in states.items()})
    states, losses = {name: fnn.init_state(NET, optimizer, key, (2,)) for name, optimizer in EVERY.items()}, []
    for _ in range(21):
        found = of_each(states, BATCH)
        states = {name: state for name, (state, _) in found.items()}
        losses.append({name: float(metrics["loss"]) for name, (_, metrics) in found.items()})
    assert [name for name in EVERY if not losses[-1][name] < losses[0][name]] == []
    assert all(isinstance(s.params.w, np.ndarray) == (backend == "numpy") for s in states.values())
    assert backend == "numpy" or of_each._cache_size() == 1


@pytest.mark.parametrize("name", EVERY if THOROUGH else ["adam"])
def test_the_second_step_of_make_step_compiles_nothing(name, needs_jax):
    net, batch = fnn.Dense(5), (BATCH[0], np.ones((8, 5)))
    state, step = fnn.init_state(net, EVERY[name], fnn.random.key(0), (2,)), fnn.make_step(net, LOSS)
    state, _ = step(state, batch)
    with compilations() as programs:
        step(state, batch)
    assert programs == []


@pytest.mark.thorough
def test_vmap_runs_over_every_hyperparameter_at_once(needs_jax):
    params, gradients = problem(np.float32)
    params, gradients = params[:2], tuple(g[:4] for g in gradients[:2])
    lanes = EVERY, trees.map(lambda leaf: 1 if isinstance(leaf, int) else 0.9 * leaf, EVERY)
    types = {int: np.int32, float: np.float32}
    stacked = trees.map(lambda *leaves: np.array(leaves, types[type(leaves[0])]), *lanes)

    def final(optimizers, params, gradients):
        return {name: w for name, (w, _) in run_each(prepared(optimizers, params), params, gradients).items()}

    found = oracle.quick_jit(needs_jax.vmap(final, in_axes=(0, None, None)))(stacked, params, gradients)
    for i, lane in enumerate(lanes):
        wanted = final(lane, params, gradients)
        oracle.assert_close(trees.map(lambda leaf: leaf[i], found), wanted, 1e-5)  # noqa: B023 - called at once


@pytest.mark.parametrize("name", EVERY)
def test_a_tree_without_parameters_is_no_trouble(name, backend):
    net = fnn.Serial((fnn.Relu(),))
    state = fnn.init_state(net, EVERY[name], fnn.random.key(0, backend=backend), (2,))
    updates, following = state.optimizer.update(state.params, state.opt_state, state.params)
    assert updates == state.params == ((),)
    assert len(trees.leaves(following)) == len(trees.leaves(state.opt_state))


@pytest.mark.thorough(backend="jax")
def test_what_is_fixed_gets_an_update_of_zero_and_its_moments_stay(backend):
    w = np.float32([[3.0, 4.0], [0.1, 0.2]])
    params = on(backend, (trees.Fixed(fnn.DenseParams(w, w[0])), w))

    def two_steps(optimizers, params):
        found = {}
        for name, optimizer in optimizers.items():
            first = state = optimizer.init(params)
            for _ in range(2):
                updates, state = optimizer.update(params, state, params)  # a gradient that Frozen would not give
            found[name] = updates, first, state
        return found

    is_fixed = lambda node: isinstance(node, trees.Fixed)
    for name, (updates, *states) in compiled(backend, two_steps)(prepared(EVERY, params), params).items():
        assert not any(np.any(leaf) for leaf in trees.leaves(updates[0])), name
        assert np.any(updates[1]), name
        fixed = [[leaf for leaf in trees.leaves(s, is_leaf=is_fixed) if is_fixed(leaf)] for s in states]
        oracle.assert_close(*fixed, 0)


def test_trees_of_every_kind_are_updated_alike(backend):
    params, gradients = on(backend, problem(np.float32))
    nest = lambda t: {"b": [t[0], None, ()], "a": {"c": fnn.DenseParams(t[1], t[2]), "d": [{"e": t[3]}]}}

    optimizers = [OPTIMIZERS[name][0] for name in ("sgd", "adamw", "muon")]

    def first(grads, params):
        return [
            [tx.update(kind(grads), tx.init(kind(params)), kind(params)) for kind in (tuple, list, nest)]
            for tx in optimizers
        ]

    of_each = compiled(backend, first)(tuple(g[0] for g in gradients), params)
    for optimizer, of_one in zip(optimizers, of_each, strict=True):
        found = []
        for kind, (updates, state) in zip((tuple, list, nest), of_one, strict=True):
            assert trees.outline(updates) == trees.outline(kind(params))
            assert trees.outline(state[-1]) == trees.outline(optimizer.init(kind(params))[-1])
            found.append(sorted((np.shape(u), np.asarray(u).tolist()) for u in trees.leaves(updates)))
        assert found[0] == found[1] == found[2]


class Halfway(NamedTuple):
    """An optimizer as a user writes it: momentum, and two choices of its own."""

    rate: Annotated[Any, Interval("[0, ∞)")]
    beta_1: Annotated[float, Interval("[0, 1)")] = 0.5
    betas: Annotated[Any, Interval("[0, 1)")] = (0.5, 0.25)
    every: int = 1

    def step(self, t):
        def formula(g, w, v):
            v = self.beta_1 * v - self.rate * g
            return v * t / (t + self.every), v

        return formula

    init, update = lift(step, Velocity)


def test_an_optimizer_of_ones_own_states_its_formula_for_one_array(backend):
    params, gradients = problem(np.float32)
    if backend == "jax":
        params, gradients = trees.map(fnn.backend.jnp.asarray, (params, gradients))
    optimizer = prepare(Halfway(Halving(0.1)), params)
    assert optimizer.every.dtype == np.int32
    assert optimizer.betas[1].dtype == np.float32
    (params, state), start = run(optimizer, params, tuple(g[:2] for g in gradients)), problem()
    for w, v, first, g in zip(params, state.velocity, start[0], start[1], strict=True):
        v1, v2 = -0.1 * g[0], -0.05 * g[0] - 0.05 * g[1]
        oracle.assert_close((w, v), (first + v1 / 2 + v2 * 2 / 3, v2), 1e-5)


def test_an_update_needs_the_parameters_only_where_the_formula_does(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    grads = (xp.ones(2),)
    for optimizer in (fnn.Sgd(0.1), fnn.Adam(0.1)):
        oracle.assert_close(optimizer.update(grads, optimizer.init(grads))[0], (np.full(2, -0.1),), 1e-6)
    with pytest.raises(errors.KindError, match=r"AdamW\.update: expected params"):
        fnn.AdamW(0.1).update(grads, fnn.AdamW(0.1).init(grads))


# ---- derivatives through an update -----------------------------------------------------------------------------------

AT_THE_EDGE = {  # where a formula divides by 0 or takes a root of it, unless it is guarded
    "adam without averages": fnn.Adam(0.1, b1=0.0, b2=0.0),
    "adam without eps": fnn.Adam(0.1, eps=0.0),
    "rmsprop without eps": fnn.RMSProp(0.1, eps=0.0),
    "adagrad from 0": fnn.Adagrad(0.1, initial_accumulator_value=0.0),
    "adadelta without eps": fnn.Adadelta(0.1, eps=0.0),
    "adamax without eps": fnn.Adamax(0.1, eps=0.0),
    "amsgrad without eps": fnn.AMSGrad(0.1, eps=0.0),
    "muon without eps": fnn.Muon(0.1, eps=0.0),
    "a schedule": fnn.Adam(fnn.schedules.PolynomialDecay(0.1, 0.05, steps=2, power=0.5)),
}


def after_three_steps(numbers, optimizer, params):
    """A number that depends on the hyperparameters and on the first parameters; some gradients are 0 in every step."""
    numbers = iter(numbers)
    optimizer = trees.map(lambda leaf: leaf if isinstance(leaf, int) else next(numbers), optimizer)
    target, mask = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    state = optimizer.init(params)
    for _ in range(3):
        grads = mask * (params[0] - target) ** 3, 0 * params[1], trees.map(lambda w: 0 * w, params[2])
        updates, state = optimizer.update(grads, state, params)
        params = trees.map_learnt(lambda w, u: w + u, params, updates)
    return sum((w * (1 + w * np.arange(1.0, 1 + w.size).reshape(w.shape))).sum() for w in trees.leaves(params))


PLAIN = {name for name in CLASSES.values() if type(EVERY[name]) in {type(tx) for tx in AT_THE_EDGE.values()}}


@pytest.mark.parametrize("name", list(EVERY | AT_THE_EDGE)[:: 1 if THOROUGH else 16])
def test_derivatives_are_true_in_both_modes_also_where_a_gradient_is_always_0(name, needs_jax):
    """By central differences on NumPy, along the hyperparameters in their own sizes and the first parameters."""
    optimizer, rng = (EVERY | AT_THE_EDGE)[name], np.random.default_rng(0)
    numbers = [float(leaf) for leaf in trees.leaves(optimizer) if not isinstance(leaf, int)]
    params = np.array([[0.3, 0.2], [-0.4, 0.7]]), np.zeros((2, 2)), trees.Fixed(np.ones((2, 2)))
    sizes = [abs(number) * rng.normal() for number in numbers]
    if "without averages" in name:
        sizes[1:3] = 0.1, 0.0  # b1 on both sides of 0, and of b2 = 0 there is no difference
    direction = [np.float64(size) for size in sizes], trees.map(lambda w: rng.normal(size=w.shape), params)

    def moved(h):
        start = trees.map(lambda a, d: a + h * d, ([np.float64(number) for number in numbers], params), direction)
        return after_three_steps(start[0], optimizer, start[1])

    wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5

    f = lambda numbers, params: after_three_steps(numbers, optimizer, params)
    with needs_jax.enable_x64(True):  # not compiled: each of the small operations is, once for all
        start, direction = trees.map(fnn.backend.jnp.asarray, ((numbers, params), direction))
        value, forwards = needs_jax.linearize(f, *start)
        forward, gradient = forwards(*direction), needs_jax.linear_transpose(forwards, *start)(value * 0 + 1)
        reverse = sum((g * d).sum() for g, d in zip(*map(trees.leaves, (gradient, direction)), strict=True))
    assert all(np.isfinite(leaf).all() for leaf in trees.leaves(gradient))
    np.testing.assert_allclose([forward, reverse], wanted, rtol=1e-6)


# ---- weight decay ----------------------------------------------------------------------------------------------------

DECAYING = fnn.AdamW(0.1, weight_decay=0.5), fnn.Lion(0.1, weight_decay=0.5), fnn.Muon(0.1, weight_decay=0.5)


@pytest.mark.parametrize("optimizer", DECAYING, ids=["adamw", "lion", "muon"])
class TestWeightDecay:
    def test_may_be_a_tree_of_numbers_that_begins_as_the_parameters_do(self, optimizer, backend):
        xp = np if backend == "numpy" else fnn.backend.jnp
        layer = fnn.DenseParams(w=xp.ones((2, 3)), b=xp.ones(2))
        params = (layer, layer, layer)
        found = []
        for decay in (0.5, 0.1, 0.0, (0.5, fnn.DenseParams(w=0.1, b=0.0), 0.0)):
            chosen = prepare(optimizer._replace(weight_decay=decay), params)
            found.append(chosen.update(params, chosen.init(params), params)[0])
        half, tenth, none, tree = found
        oracle.assert_close(tree, (half[0], fnn.DenseParams(tenth[1].w, none[1].b), none[2]), 0)
        assert np.all(half[0].w < tenth[0].w)
        assert np.all(tenth[0].w < none[0].w)

    def test_leaves_alone_what_is_frozen(self, optimizer, backend):
        net = fnn.Serial((fnn.Frozen(fnn.Dense(2)), fnn.Dense(2)))
        state = fnn.init_state(net, optimizer, fnn.random.key(0, backend=backend), (2,))
        grads = trees.map(lambda w: 0 * w, state.params)
        updates, _ = state.optimizer.update(grads, state.opt_state, state.params)
        assert not any(np.any(leaf) for leaf in trees.leaves(updates[0])), "in an Optax chain too, nothing is added"
        assert np.all(updates[1].w), "no gradient, and it decays"

    def test_refuses_a_tree_of_another_form(self, optimizer, backend):
        for decay, error in (
            ((0.1, 0.2), errors.ShapeError),
            ((0.1, 0.2, 0.3, 0.4), errors.ShapeError),
            ((None, 0.1, 0.2), errors.KindError),
            ((0.1, (), -0.2), errors.ArgumentError),
            (-0.1, errors.ArgumentError),
            (np.ones(3), errors.KindError),
            (Halving(0.1), errors.ShapeError),
        ):
            with pytest.raises(error, match=rf"{type(optimizer).__name__}\.weight_decay"):
                fnn.init_state(
                    fnn.mlp((3, 1)), optimizer._replace(weight_decay=decay), fnn.random.key(0, backend=backend), (2,)
                )


# ---- beside Optax ----------------------------------------------------------------------------------------------------


def test_an_optax_optimizer_trains_as_itself(needs_jax):
    optax = pytest.importorskip("optax")
    states, theirs = [], optax.adam(0.01)
    for optimizer in (fnn.Adam(0.01), theirs, fnn.from_optax(theirs)):
        state, step = fnn.init_state(NET, optimizer, fnn.random.key(0), (2,)), fnn.make_step(NET, LOSS)
        for _ in range(20):
            state, _ = step(state, BATCH)
        states.append(state)
    oracle.assert_close(states[1].params, states[0].params, 1e-5)
    oracle.assert_close(states[2].params, states[1].params, 0)


IN_CHAINS = {  # ours, and Optax's
    "plain": (fnn.Adam(0.1), lambda optax: optax.adam(0.1)),
    "with a schedule": (fnn.Momentum(Halving(0.1), 0.0), lambda optax: optax.sgd(lambda t: 0.1 * 0.5**t)),
    "with decay": (fnn.AdamW(0.1, weight_decay=0.5), lambda optax: optax.adamw(0.1, weight_decay=0.5)),
    "muon": (fnn.Muon(0.1, weight_decay=0.5), functools.partial(optax_muon, weight_decay=0.5, adam_weight_decay=0.5)),
    "a combinator": (fnn.ClipByValue(fnn.Sgd(0.1), 0.2), lambda optax: optax.chain(optax.clip(0.2), optax.sgd(0.1))),
    "per layer": (
        fnn.PerLayer((fnn.Sgd(0.1), None, fnn.Adam(0.1), None)),
        lambda optax: optax.partition(
            {"sgd": optax.sgd(0.1), "adam": optax.adam(0.1), "none": optax.set_to_zero()},
            ("sgd", "none", "adam", "none"),
        ),
    ),
    "three deep": (
        fnn.SkipNonFinite(fnn.Accumulate(fnn.ClipByGlobalNorm(fnn.Adam(0.1), 0.5), 2)),
        lambda optax: optax.MultiSteps(optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)), 2),
    ),
}


def test_our_optimizers_drop_into_an_optax_chain(needs_jax):
    optax = pytest.importorskip("optax")
    in_chain = lambda table: {name: optax.chain(optax.clip(0.5), tx) for name, tx in table.items()}
    ours = in_chain({name: tx for name, (tx, _) in IN_CHAINS.items()})
    theirs = in_chain({name: make(optax) for name, (_, make) in IN_CHAINS.items()})
    params, gradients = problem(np.float32)
    both = lambda *problem: [{name: w for name, (w, _) in run_each(txs, *problem).items()} for txs in (ours, theirs)]
    oracle.assert_close(*oracle.quick_jit(both)(params, tuple(g[:10] for g in gradients)), 1e-5)


# ---- what is refused -------------------------------------------------------------------------------------------------


class Wrapper(NamedTuple):
    """A combinator as a user writes it, whose field has a name of its own."""

    inner: Any

    def init(self, params):
        return self.inner.init(params)

    def update(self, grads, opt_state, params=None):
        return self.inner.update(grads, opt_state, params)


BAD = {
    "a negative rate": (fnn.Sgd(-0.1), errors.ArgumentError, r"Sgd\.learning_rate.*>= 0.*-0\.1"),
    "nan as rate": (fnn.Sgd(float("nan")), errors.ArgumentError, "nan"),
    "an infinite rate": (fnn.Adam(np.inf), errors.ArgumentError, "inf"),
    "momentum of 1": (fnn.Momentum(0.1, 1.0), errors.ArgumentError, r"momentum.*< 1"),
    "b2 of 1": (fnn.Adam(b2=1.0), errors.ArgumentError, "b2"),
    "nothing": (fnn.Sgd(None), errors.KindError, r"Sgd\.learning_rate: expected a number, got None"),
    "several rates": (fnn.Sgd(np.array([0.1, 0.2])), errors.KindError, "expected a number, got array"),
    "text": (fnn.Sgd("0.1"), errors.KindError, "'0.1'"),
    "a function as schedule": (fnn.Sgd(lambda t: 0.1), errors.KindError, r"Sgd\.learning_rate.*schedule.*NamedTuple"),
    "a tuple as schedule": (fnn.Sgd((0.1, 0.2)), errors.KindError, r"Sgd\.learning_rate.*schedule.*\(0\.1, 0\.2\)"),
    "a schedule as momentum": (fnn.Momentum(0.1, Halving(0.9)), errors.KindError, "momentum: expected a number"),
    "a negative rate of the others": (fnn.Muon(adam_learning_rate=-1), errors.ArgumentError, "adam_learning_rate"),
    "beta of 1": (fnn.Muon(beta=1.0), errors.ArgumentError, r"Muon\.beta < 1"),
    "rho of 1": (fnn.Adadelta(rho=1.0), errors.ArgumentError, r"Adadelta\.rho < 1"),
    "decay of 1": (fnn.RMSProp(0.1, decay=1.0), errors.ArgumentError, r"RMSProp\.decay < 1"),
    "a negative eps": (fnn.Adamax(eps=-1e-8), errors.ArgumentError, r"Adamax\.eps >= 0"),
    "a negative start": (fnn.Adagrad(0.1, -0.1), errors.ArgumentError, "initial_accumulator_value >= 0"),
    "a number out of a range of one's own": (
        Halfway(0.1, 7.0),
        errors.ArgumentError,
        r"^expected a finite number with Halfway\.beta_1 >= 0 and Halfway\.beta_1 < 1, got Halfway\.beta_1 = 7$",
    ),
    "one of several numbers": (Halfway(0.1, betas=(0.5, 2.0)), errors.ArgumentError, r"Halfway\.betas\[1\] < 1.* = 2"),
    "a part of a whole number": (Halfway(0.1, every=1.5), errors.KindError, r"Halfway\.every: expected an integer"),
    "a schedule out of a range of one's own": (
        fnn.Sgd(Halving(-1.0)),
        errors.ArgumentError,
        r"with Sgd\.learning_rate\.first >= 0, got Sgd\.learning_rate\.first = -1",
    ),
    "several numbers for one": (fnn.Adam(b1=(0.9, 0.8)), errors.KindError, r"Adam\.b1: expected a number, got \(0\.9"),
    "a negative rate in a wrapper": (Wrapper(fnn.Sgd(-5.0)), errors.ArgumentError, r"Sgd\.learning_rate >= 0.*= -5"),
    "a negative rate in a tree of them": (
        Wrapper({"a": (fnn.Adam(), fnn.ClipByNorm(fnn.Sgd(-5.0), 1.0))}),
        errors.ArgumentError,
        r"Sgd\.learning_rate >= 0.*= -5",
    ),
    "the class in a tree of them": (Wrapper([fnn.Adam]), errors.KindError, r"Wrapper\.inner\[0\].*write Adam\("),
    "the class": (fnn.Adam, errors.KindError, r"write Adam\("),
    "a number": (0.1, errors.KindError, "got 0.1"),
    "a name": ("adam", errors.KindError, "got 'adam'"),
    "a layer's parameters": (fnn.DenseParams(0.1, 0.2), errors.KindError, r"got DenseParams\("),
    "a limit of 0": (fnn.MaxNorm(fnn.Sgd(0.1), 0.0), errors.ArgumentError, "max_norm > 0"),
    "a negative rate within": (fnn.MaxNorm(fnn.Sgd(-0.1), 1.0), errors.ArgumentError, r"Sgd\.learning_rate"),
    "nothing within": (fnn.MaxNorm(None, 1.0), errors.KindError, "got None"),
    "clipping to 0": (fnn.ClipByValue(fnn.Sgd(0.1), 0.0), errors.ArgumentError, r"ClipByValue\.max_value > 0"),
    "a norm of 0": (fnn.ClipByGlobalNorm(fnn.Sgd(0.1), 0.0), errors.ArgumentError, r"ClipByGlobalNorm\.max_norm > 0"),
    "a limit for each": (fnn.ClipByNorm(fnn.Sgd(0.1), np.ones(2)), errors.KindError, r"ClipByNorm\.max_norm.*number"),
    "no steps": (fnn.Accumulate(fnn.Sgd(0.1), 0), errors.ArgumentError, r"Accumulate\.steps.*at least 1, got 0"),
    "half a step": (fnn.Accumulate(fnn.Sgd(0.1), 2.5), errors.KindError, r"Accumulate\.steps.*integer, got 2\.5"),
    "an average's decay above 1": (fnn.Average(fnn.Sgd(0.1), 1.5), errors.ArgumentError, r"Average\.decay <= 1.*1\.5"),
    "the class within": (fnn.SkipNonFinite(fnn.Sgd), errors.KindError, r"write Sgd\("),
}


@pytest.mark.parametrize("name", BAD)
def test_an_optimizer_that_makes_no_sense_is_refused_before_any_work(name, backend):
    optimizer, error, message = BAD[name]
    with pytest.raises(error, match=message):
        fnn.init_state(fnn.Dense(1), optimizer, fnn.random.key(0, backend=backend), (1,))


def test_a_number_in_a_schedule_is_refused_with_its_place(backend):
    optimizer = fnn.Sgd(fnn.schedules.StepDecay(0.1, factor=-0.5, every=10))
    with pytest.raises(errors.ArgumentError, match=r"Sgd\.learning_rate\.factor > 0.*-0\.5"):
        fnn.init_state(fnn.Dense(1), optimizer, fnn.random.key(0, backend=backend), (1,))


def test_a_schedule_without_one_of_its_numbers_is_refused():
    schedule = fnn.schedules.CosineAnnealing(0.1, None)
    with pytest.raises(errors.KindError, match=r"Sgd.learning_rate.steps: expected a number, got None"):
        prepare(fnn.Sgd(schedule), np.ones(1, np.float32))


def test_what_is_within_a_wrapper_becomes_arrays_too(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    params = (xp.ones(2, np.float32),)
    optimizer = prepare(Wrapper(fnn.Accumulate(fnn.Sgd(Halving(0.1)), 2)), params)
    assert optimizer.inner.steps.dtype == np.int32
    assert optimizer.inner.optimizer.learning_rate.first.dtype == np.float32
    assert prepare(optimizer, params) == optimizer


def test_optaxs_optimizers_need_jax_and_say_so(monkeypatch):
    monkeypatch.setattr(fnn.backend.library, "jax", None)
    with pytest.raises(errors.KindError, match="from_optax needs JAX"):
        fnn.from_optax(fnn.Sgd(0.1))


# ---- Optax's that need more than the gradient ------------------------------------------------------------------------


def test_optimizers_of_optax_that_cannot_have_the_value_are_refused(needs_jax):
    optax = pytest.importorskip("optax")
    says = r"expected one of Optax that needs the gradient alone.*missing 1 required keyword-only argument: 'value'"
    for optimizer, rule in (
        (fnn.ClipByGlobalNorm(optax.polyak_sgd(), 1.0), None),
        (fnn.PerLayer((optax.polyak_sgd(), None)), None),
        (optax.polyak_sgd(), fnn.rules.Private(1.0, 1.0)),
    ):
        with pytest.raises(errors.KindError, match=says):
            fnn.init_state(fnn.Serial((fnn.Dense(1), fnn.Tanh())), optimizer, fnn.random.key(0), (4,), rule=rule)
