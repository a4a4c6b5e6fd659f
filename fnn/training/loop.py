"""The loop: take the next batch, ask the rule for a gradient, ask the optimizer for a step. It is written once, here.

`train` is the loop as one compiled call. `advance` takes the same steps for the loops on the host, `fit` and
`range_test`; for data in files it reads a few batches at a time itself and scans the same step over them.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import backend, checks, devices, examples, gate, random, trees
from ..backend import at_least_float32, cast, namespace
from ..backpropagation import Problem, check_problem
from ..devices import on_any_axes
from ..diagnostics import first_broken, statistics_of
from ..errors import ArgumentError, DivergenceError, integer, usage
from ..examples import Data
from ..layers.base import Array, Layer
from ..losses import Loss
from ..order import Plan
from ..rules.base import Batch
from ..streams import Stream
from .evaluation import check_evaluation, check_metrics, check_weights, cost_of, measure, predict
from .state import TrainState, check_counters, check_state, next_epoch, prepared
from .step import update, weights_for


class Best(NamedTuple):
    """The epoch with the lowest validation loss: the parameters after it, that loss, and its index."""

    params: Any
    loss: Array
    epoch: Array


@on_any_axes
@usage("fnn.train(net, loss, state, (x, y), epochs=10, batch_size=32)")
def train(
    net: Layer,
    loss: Loss,
    state: TrainState,
    data: Any,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int,
    shuffle: bool = True,
    penalty: Any = None,
    denominator: Any = None,
    validation: Any = None,
    metrics: Any = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Train for `epochs` epochs, or `steps` steps, from a given state, as one compiled call.

    Every epoch uses every example exactly once, in an order of its own, whatever batch sizes and data lengths came
    before. The last batch of an epoch is padded with examples of weight 0. It still makes a full step, so a
    `batch_size` that leaves a small remainder makes the end of an epoch noisy. `batch_size=1` is stochastic gradient
    descent, `batch_size=len(x)` is batch gradient descent. With a rule that uses Poisson sampling, an epoch has the
    same number of steps, each on a random sample. The function composes with `jax.vmap` over states, penalties and
    data, and can be differentiated in both modes.

    Args:
        net: the network.
        loss: the cost.
        state: the state to start from, as returned by `init_state`; it holds the optimizer and the rule.
        data: `(x, y)` or `(x, y, weights)` with the examples along the first axis. x and y are arrays, or dicts or
            NamedTuples of arrays; x of dtype uint8 stays uint8. Memory-mapped arrays are loaded into memory; `fit`
            streams them.
        epochs: the number of whole epochs, of ⌈n / batch_size⌉ steps each. The rest of an epoch that an earlier call
            with `steps` left unfinished is skipped.
        steps: the number of steps, in place of `epochs`. A run may end within an epoch, and the next call continues
            from there; data of a different length start a new epoch.
        batch_size: B; a step takes the next min(B, n − seen) examples.
        shuffle: whether to shuffle the examples; False keeps the order of the data. Default: True.
        penalty: a penalty such as `fnn.L2(1e-4)`. Default: None.
        denominator: what Σ w ℓ of a batch is divided by. Required for negative weights. Default: Σ w.
        validation: data of the same form, on which the network is evaluated after every epoch. Default: None.
        metrics: functions by name that JAX can compile, such as `{"accuracy": fnn.accuracy}`; on NumPy scikit-learn's
            scores too, as for `fit`. Default: None.

    Returns:
        `(state, history)`. The history is a dict with `loss` and `weight` of each step, (steps,), and the rule's
        metrics. With validation data it also has `validation_loss`, (epochs,), one such entry per metric, and `best`,
        the `Best` epoch with its `.params`, `.loss` and `.epoch` (−1, with the parameters from before the run, if every
        validation loss was NaN or infinite).

    Raises:
        FnnError: before any work, if the data, sizes or epochs are invalid; `fnn.errors` lists the kinds.

    >>> from fnn import Quadratic, Sgd, init_state, mlp
    >>> net = mlp((1,))
    >>> state = init_state(net, Sgd(0.1), random.key(0, backend="numpy"), (2,))
    >>> data = np.eye(2), np.ones((2, 1))
    >>> state, history = train(net, Quadratic(), state, data, epochs=20, batch_size=1)
    >>> bool(history["loss"][-1] < history["loss"][0]), len(history["loss"])
    (True, 40)
    """
    check_problem(net, loss, penalty, denominator)
    if (epochs is None) == (steps is None):
        raise ArgumentError(f"epochs: expected either epochs or steps, got {epochs} and {steps}")
    if steps is None:
        epochs = integer("epochs", epochs, least=1)
    else:
        steps = integer("steps", steps, least=1)
        if validation is not None:
            raise ArgumentError("validation: expected epochs, after each of which it is evaluated, got steps")
    metrics, state = check_metrics(metrics), prepared(check_state(state))
    data = gate.dataset(net, loss, state.params, data, weights=weights_for(state.rule, denominator))
    check_weights(data)
    plan = plan_of(state, data, batch_size, shuffle)
    check_counters(state, epochs or steps, (epochs or 0) * plan.steps + (steps or 0))
    if validation is not None:
        validation = gate.dataset(net, loss, state.params, validation, "validation", like=data)
        check_evaluation(validation, metrics, "validation")
    elif metrics:
        raise ArgumentError("metrics: expected validation data too, on which they are evaluated")
    static = {"net": net, "loss": loss, "plan": plan}
    if steps is not None:
        return run(state, penalty, denominator, data, steps=steps, whole=is_whole(state, plan), **static)
    metrics = tuple(metrics.items())
    return run_epochs(state, penalty, denominator, data, validation, epochs=epochs, metrics=metrics, **static)


def advance(problem: Problem, state: TrainState, data: Any, plan: Plan, steps: int) -> Any:
    """`(state, history)` after `steps` steps on data that have passed the gate; files and streams in pieces."""
    net, loss, penalty, denominator = problem[:4]
    static = {"net": net, "loss": loss, "plan": plan}
    if not data.streamed:
        return run(state, penalty, denominator, data, steps=steps, whole=is_whole(state, plan), **static)
    histories, at_once = [], steps_at_once(data, plan)
    for start in range(0, steps, at_once):
        batches = read_batches(state, data, plan, min(at_once, steps - start))
        if histories:
            np.asarray(histories[-1]["loss"])  # wait, so that reading stays at most one piece ahead of the device
        state, history = run_batches(state, penalty, denominator, batches, **static)
        histories.append(history)
    return state, {name: np.concatenate([h[name] for h in histories]) for name in histories[0]}


def steps_at_once(data: Any, plan: Plan) -> int:
    """For how many steps batches are read from a stream or from files at a time."""
    return max(1, examples.AT_ONCE // (plan.room * data.nbytes))


def read_batches(state: TrainState, data: Any, plan: Plan, steps: int) -> Data:
    """The next batches, stacked: (steps, B, ...), in memory, on the backend of the parameters."""
    if isinstance(data, Stream):
        epoch, seen = plan.begin(*(np.asarray(counter) for counter in (state.epoch, state.seen, state.length)))
        return gate.converted(state.params, *data.read(int(epoch), int(seen) // plan.batch_size, steps))
    key = random.like(state.key, np)
    if plan.sampling == "poisson":
        drawn = [plan.sample(key, int(state.step) + i) for i in range(steps)]
        index, used = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    else:
        epoch, seen = plan.begin(*(np.asarray(counter) for counter in (state.epoch, state.seen, state.length)))
        index, used = plan.batches(key, epoch, seen, steps)
    x, y, weights = data.take(index.reshape(-1))
    if weights is not None:
        weights = np.where(used.reshape(-1), weights, 0)
    elif not used.all():
        weights = used.reshape(-1).astype(np.float32)
    batches = gate.converted(state.params, x, y, weights)
    return Data(*trees.map(lambda a: a.reshape(*index.shape, *a.shape[1:]), tuple(batches)))


@backend.jit(static=("net", "loss", "plan", "steps", "whole"))
def run(state, penalty, denominator, data, *, net, loss, plan, steps, whole):
    """`steps` steps on data in memory, starting at the state's position."""
    return _steps(Problem(net, loss, penalty, denominator), state, data, plan, steps, whole)


@backend.jit(static=("net", "loss", "plan"))
def run_batches(state, penalty, denominator, batches, *, net, loss, plan):
    """One step for each of the stacked batches."""
    problem, steps = Problem(net, loss, penalty, denominator), len(trees.leaves(batches)[0])
    epoch, seen = plan.begin(state.epoch, state.seen, state.length)
    state, history = backend.scan(_stepper(problem, plan), state, tuple(batches))
    return _counted(state, plan, epoch, seen, steps), history


@backend.jit(static=("net", "loss", "plan", "epochs", "metrics"))
def run_epochs(state, penalty, denominator, data, validation, *, net, loss, plan, epochs, metrics):
    """Whole epochs on data in memory, each followed by an evaluation if there is validation data."""
    problem, xp = Problem(net, loss, penalty, denominator), namespace(*trees.leaves((state.params, data.x)))

    def epoch(carry, index):
        state, best = carry
        state, history = _steps(problem, state, data, plan, plan.steps, plan.n % plan.batch_size == 0, fresh=True)
        if validation is None:
            return (state, best), (history, {})
        prediction, losses = predict(state.params, validation.x, validation.y, net=net, loss=loss)
        value = cast(cost_of(loss, losses, validation.weights), best.loss.dtype)
        measured = {"loss": value} | measure(metrics, loss, prediction, validation.y, validation.weights)
        better = value < best.loss
        best = trees.map(lambda new, old: xp.where(better, new, old), Best(state.params, value, index), best)
        return (state, best), (history, {f"validation_{name}": value for name, value in measured.items()})

    best = None
    if validation is not None:
        best = Best(state.params, xp.asarray(np.inf, dtype=_wide(state))[()], xp.asarray(-1, dtype=np.int32)[()])
    (state, best), (history, measured) = backend.scan(
        epoch, (next_epoch(state), best), xp.arange(epochs, dtype=np.int32)
    )
    history = {name: values.reshape(-1) for name, values in history.items()} | measured
    if best is not None:
        history["best"] = Best(trees.lock(best.params), best.loss[()], best.epoch[()])
    return state, history


# ---- the one loop ----------------------------------------------------------------------------------------------------


def _steps(problem, state, data, plan, steps, whole, fresh=False):
    """`steps` steps from the state's position. `whole` promises full batches, `fresh` the beginning of an epoch."""
    xp = namespace(*trees.leaves((state.params, data.x)))
    epoch, seen = plan.begin(state.epoch, state.seen, state.length)
    poisson = plan.sampling == "poisson"
    places = 1 if plan.spread is None else plan.spread.devices
    padded = not whole or data.weights is not None or plan.batch_size % places > 0
    step = _stepper(problem, plan)
    if xp is np:
        backend.keep_freed_memory()

    def block(state, chosen):
        index, used = tuple(a[None] for a in plan.sample(state.key, state.step)) if poisson else chosen
        if index.shape[1] % places:  # as many places on each device
            index, used = (xp.pad(a, ((0, 0), (0, -a.shape[1] % places))) for a in (index, used))
        index, used = devices.on_each((index, used), plan.spread)
        x, y, weights = trees.map(lambda a: _take(xp, a, index), tuple(data))
        if weights is not None:
            weights = xp.where(used, weights, 0)
        elif padded or poisson:
            weights = used.astype(_wide(state))
        return backend.scan(step, state, devices.spread((x, y) if weights is None else (x, y, weights), plan.spread))

    chosen, blocks = None, steps
    if not poisson:
        begins = fresh or (whole and plan.batch_size == plan.n)  # a batch of all examples is an epoch
        chosen = plan.batches(state.key, epoch, seen, steps, begins)
        at_once = batches_at_once(steps, plan.batch_size * Data(data.x, ()).nbytes)
        chosen, blocks = tuple(a.reshape(-1, at_once, plan.batch_size) for a in chosen), steps // at_once
    state, history = backend.scan(block, state, chosen, blocks)
    return _counted(state, plan, epoch, seen, steps), {name: values.reshape(-1) for name, values in history.items()}


def _stepper(problem, plan):
    def step(state, arrays):
        x, y, weights = (*arrays, None)[:3]
        if isinstance(weights, np.ndarray) and (weights == 1).all():
            weights = None  # only the last batch of an epoch needs weights; a compiled step has them always or never
        return update(problem, state, Batch(x, y, weights, plan.batch_size))

    return step


def _counted(state, plan, epoch, seen, steps):
    """The state with its counters advanced by these steps from this position in this epoch."""
    xp = namespace(*trees.leaves(state.params), state.step)
    epoch, seen = plan.place_after(xp.asarray(epoch), xp.asarray(seen), steps)
    return state._replace(epoch=epoch, seen=seen, length=xp.asarray(plan.n, dtype=np.int32)[()])


def plan_of(state, data, batch_size, shuffle) -> Plan:
    """The plan by which the data are cut into batches for the rule of this state; a stream is cut already."""
    sampling = getattr(state.rule, "sampling", "shuffled")
    if isinstance(data, Stream):
        if sampling != "shuffled":
            raise ArgumentError(
                f"data: expected arrays, of which {type(state.rule).__name__} draws its own samples, got {data.batches}"
            )
        return Plan(data.size, data.batch_size, shuffle=False)
    if batch_size is None:
        raise ArgumentError("batch_size: expected the number of examples per step, such as batch_size=32, got None")
    return Plan(data.size, batch_size, shuffle, sampling, devices.spread_of(trees.leaves(data.x)[0]))


def is_whole(state, plan) -> bool:
    """Whether every batch is known in advance to be full."""
    if plan.n % plan.batch_size or backend.is_traced(state.seen, state.length) or np.ndim(state.seen):
        return False
    return int(state.seen) % plan.batch_size == 0 or int(state.length) != plan.n


def batches_at_once(steps, size) -> int:
    """How many batches of `size` bytes to gather at once: the largest divisor of `steps` within 1.6 MB, or 1.

    Small batches are cheaper together (XLA then uses all cores); large ones should go straight into the product.
    """
    if size > 200_000:
        return 1
    return max(c for c in range(1, min(steps, 1_600_000 // size) + 1) if steps % c == 0)


def _take(xp, array, index):
    return xp.take(array, index, axis=0, mode="clip")  # the indices are in range; JAX's other modes would check them


def _wide(state):
    return at_least_float32(next((p.dtype for p in trees.leaves(state.params)), np.float32))


# ---- where a run diverges --------------------------------------------------------------------------------------------


def all_finite(params) -> bool:
    """Whether every parameter is finite."""
    return bool(_all_finite([checks.nearest(p) for p in trees.leaves(params)]))


_all_finite = backend.jit(trees.all_finite)


def diverged(problem, state, data, plan, losses, history, kept) -> DivergenceError:
    """The error to raise for steps from this state: it reruns them to find the first bad one."""

    def before(step):
        return advance(problem, state, data, plan, step)[0] if step else state

    bad = np.flatnonzero(~np.isfinite(losses))
    step = int(bad[0]) if len(bad) else len(losses) - 1
    good = before(step)
    if step and not all_finite(good.params):  # the step before made them so
        step -= 1
        good = before(step)
    batch = trees.map(lambda a: a[0], read_batches(good, data, plan, 1))
    if batch.weights is not None:
        batch = batch.take(np.flatnonzero(np.asarray(batch.weights)))
    figures = statistics_of(good.params, batch.x, batch.y, None, net=problem.net, loss=problem.loss)
    where = f"step {int(good.step)} (epoch {int(good.epoch)})"
    return DivergenceError(
        f"{where}: the loss is {losses[step]:g}, and {first_broken(problem.net, figures)} not finite. The state before "
        f"this step and the history of the earlier epochs are this error's .state and .history.{kept} What helps: a "
        "lower learning rate; fnn.ClipByGlobalNorm around the optimizer; fnn.SkipNonFinite, which skips such steps",
        good,
        history,
    )
