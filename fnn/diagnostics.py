"""Statistics of every layer from one forward and one backward pass; what they mean stands in `findings`.

For a layer f with outputs a for N examples, and errors δ = ∂ℓ/∂a:

    dead         the share of its units whose a is the same for every example, at each position if there are several
    saturated    the share of a within 5 % of f's limits (`Activation.limits`), relative to the distance from f(0); of a
                 recurrent layer that of its gates
    zero         the share of a that is exactly 0: how sparse the layer is
    delta        ‖δ‖ of an example, before the mean over the examples is taken: its root mean square over them
    through_time ‖δ‖ at the first position over that at the last one that has an error, where errors go back in time

A unit is an entry of the last axis, and the axes between it and the examples are positions: of a convolution a unit is
a channel, whose weights all positions share. An error passes from layer to layer as δ ← δ ∂f/∂a, and within a recurrent
layer from position to position, so it may vanish or explode exponentially with depth and with time.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010);
L. Lu et al., "Dying ReLU and initialization" (2020).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import backend, gate, trees
from .backend import cast, floating, namespace
from .backpropagation import Problem, check_problem, differentiate, mean_cost, tape_of
from .composition import Composition, walk
from .devices import on_any_axes
from .errors import KindError, shorten
from .layers import Layer, Recurrent
from .layers.activations import Activation
from .layers.base import Array
from .losses import Loss
from .numerics import scale_of
from .optimizers.extras import extra_arguments

__all__ = ["Statistics", "layer_names", "statistics"]

NEAR = 0.05  # an output closer to a limit than this share of the distance from f(0) is saturated


class Statistics(NamedTuple):
    """Statistics of L layers, each (L,): NaN where one does not apply to a layer, ∞ where something is not finite.

    dead, saturated, zero   shares from 0 to 1, as defined at the top of this module
    stuck                   the share of examples that lose most of their ‖δ‖² at outputs saturated at the wrong end
    mean, spread            mean and standard deviation of the outputs, over units and examples
    delta                   ‖δ‖, the root mean square over the examples
    through_time            ‖δ‖ at the first position over that at the last one, of layers that pass errors back in time
    gradient                ‖∂C/∂θ‖, where C is the mean cost and θ are all parameters of the layer
    weight, update          ‖θ‖ and ‖Δθ‖, where Δθ is the step that the optimizer would take
    """

    dead: Array
    saturated: Array
    zero: Array
    stuck: Array
    mean: Array
    spread: Array
    delta: Array
    through_time: Array
    gradient: Array
    weight: Array
    update: Array


@on_any_axes
def statistics(net: Layer, loss: Loss) -> Callable[..., Statistics]:
    """Make the function that computes the statistics of every layer.

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, state=None) -> Statistics`, a pure function for use with `jax.jit`, with the layers in the order
        of `layer_names`. The entry `update` is the optimizer's next step, and needs `state`, the `TrainState` of a run.

    >>> from fnn import SoftmaxCrossEntropy, mlp, random
    >>> net, loss = mlp((8, 3)), SoftmaxCrossEntropy()
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> statistics(net, loss)(params, [[1.0, 0.0], [0.0, 1.0]], [0, 2]).zero.tolist()
    [0.0, 0.5, 0.0]
    """
    check_problem(net, loss)

    def run(params, x, y, state=None):
        check_state(state)
        params, data = gate.batch(net, loss, params, x, y)
        with backend.any_number():
            return _statistics(net, loss, params, data.x, data.y, state)

    return run


def _statistics(net, loss, params, x, y, state) -> Statistics:
    """`statistics` for a batch that has passed the gate."""
    tape = tape_of(net, loss, params, x, y)
    shares = lambda d: d * cast(tape.shares, d.dtype).reshape(-1, *(1,) * (d.ndim - 1))
    grads = net.gradient(params, tape.residuals, trees.map(shares, tape.deltas))
    learnt = trees.map_learnt(lambda g: g, grads, fixed=lambda g: None)
    updates = None if state is None else _next_step(net, loss, params, (x, y, None), state, tape, grads)
    rows, below = [], None
    inside = params, tape.outputs, tape.residuals, tape.deltas, learnt, updates
    for _, layer, p, a, kept, delta, g, u in walk(net, *inside):
        if not isinstance(layer, Composition):
            known = None if delta is None else _of_units(delta)
            rows.append(_of_layer(layer, p, _of_units(a), kept, known, below, None if delta is None else g, u))
            below = known
    xp, wide = namespace(tape.losses), tape.losses.dtype
    return Statistics(*(xp.stack([xp.asarray(v, dtype=wide) for v in column]) for column in zip(*rows, strict=True)))


def _next_step(net, loss, params, batch, state, tape, grads):
    """What the optimizer would add to the parameters after this batch."""
    cost = lambda params: differentiate(Problem(net, loss), params, batch)
    extra = extra_arguments(state.optimizer, state.rule, mean_cost(loss, tape.losses)[0], grads, cost)
    return state.optimizer.update(grads, state.opt_state, params, **extra)[0]


def layer_names(net: Layer) -> list[str]:
    """The names of the layers in `statistics`: `["0 Dense", "1 Relu", ...]`, as in `fnn.summary`.

    Args:
        net: the network.

    Returns:
        A list with one name per layer.

    >>> from fnn import mlp
    >>> layer_names(mlp((8, 3)))
    ['0 Dense', '1 Relu', '2 Dense']
    """
    return [f"{place} {type(layer).__name__}".lstrip() for place, layer in _leaves(net)]


def first_broken(net: Layer, figures: Statistics) -> str:
    """The first quantity that is not finite: "the outputs of 0 Dense are", "the gradient of 2 Dense is", ..."""
    figures, names = Statistics(*map(np.asarray, figures)), layer_names(net)
    outputs, errors, gradients = (np.flatnonzero(np.isinf(v)) for v in (figures.mean, figures.delta, figures.gradient))
    if len(outputs):
        return f"the outputs of {names[outputs[0]]} are"
    if len(errors):
        return f"the errors at {names[errors[-1]]} are"  # they come from the last layer
    if len(gradients):
        return f"the gradient of {names[gradients[-1]]} is"
    return "the optimizer's step is"


def statistics_of(params, x, y, state, *, net, loss):
    """`statistics` for data that have been checked already, compiled on JAX."""
    with backend.any_number():
        return _compiled_statistics(params, x, y, state, net=net, loss=loss)


@backend.jit(static=("net", "loss"))
def _compiled_statistics(params, x, y, state, *, net, loss):
    return _statistics(net, loss, params, x, y, state)


def _of_layer(layer, params, a, residuals, delta, below, grads, updates):
    """The `Statistics` of one layer, as numbers; `below` is the error at the layer in the row before."""
    if isinstance(layer, Recurrent):
        saturated, stuck = _saturation_of_gates(layer, residuals), np.nan
    else:
        saturated, stuck = _saturation(layer, params, a, delta, below)
    recurs = delta is not None and delta.ndim > 2 and type(layer).propagate is not Layer.propagate
    return Statistics(
        dead=(a == a[0]).all(axis=tuple(range(max(1, a.ndim - 1)))).mean() if len(a) > 1 else np.nan,
        saturated=saturated,
        zero=(a == 0).mean(),
        stuck=stuck,
        mean=_figure(lambda v: v.mean(), a),
        spread=_figure(lambda v: v.std(), a),
        delta=np.nan if delta is None else _figure(_length, delta),
        through_time=_through_time(delta) if recurs else np.nan,
        gradient=_norm(grads),
        weight=_norm(params),
        update=_norm(updates),
    )


def _saturation(layer, params, a, delta, below):
    """The shares `saturated` and `stuck`, NaN where they do not apply."""
    xp = namespace(a)
    if not isinstance(layer, Activation):
        return np.nan, np.nan
    middle = layer.forward(params, xp.zeros_like(a[:1]))[0]
    if middle.shape[1:] != a.shape[1:]:  # a gated unit, which has two inputs for each output
        return np.nan, np.nan
    low, high = (xp.asarray(end, dtype=a.dtype) for end in layer.limits(params))  # numbers, or one for each unit
    a, middle = a.reshape(len(a), -1), middle.reshape(1, -1)
    at_low, at_high = ((abs(a - end) < NEAR * abs(middle - end)) & xp.isfinite(end) for end in (low, high))
    saturated = (at_low | at_high).mean()
    if delta is None or below is None or below.shape != delta.shape:
        return saturated, np.nan
    delta, below = delta.reshape(a.shape), below.reshape(a.shape)
    # An output is wrong if it should rise (δ < 0) from its lower end, or fall (δ > 0) from its upper one.
    lost = (at_low & (delta < 0) | at_high & (delta > 0)) & (abs(below) < NEAR * (high - low))
    part = xp.where(lost, delta, 0)
    return saturated, ((part * part).sum(axis=1) > (delta * delta).sum(axis=1) / 2).mean()


def _saturation_of_gates(layer, residuals):
    """The share of the gates, at all positions, that are near one of their limits."""
    gates = _of_units(residuals[1][-1])
    low, high = (np.repeat(ends, layer.units).astype(gates.dtype) for ends in zip(*layer.gates.values(), strict=True))
    near = np.where(np.isfinite(high - low), NEAR * (high - low) / 2, 0).astype(gates.dtype)
    return ((gates - low < near) | (high - gates < near)).mean()


def _through_time(delta):
    """‖δ‖ at the first position of the sequences over that at their last one that has an error; NaN if none has."""
    xp = namespace(delta)
    has = (delta != 0).reshape(*delta.shape[:2], -1).any(axis=2)
    place = xp.where(has, xp.arange(delta.shape[1], dtype=np.int32), 0).max(axis=1)
    last = xp.take_along_axis(delta, place.reshape(-1, *(1,) * (delta.ndim - 1)), axis=1)[:, 0]
    first, last = _figure(_length, delta[:, 0]), _figure(_length, last)
    return xp.where((last > 0) & xp.isfinite(last), first / xp.where(last > 0, last, 1), np.nan)


def root_mean_square(a) -> float:
    """The root mean square of all entries of an array, as a number."""
    return float(_figure(lambda v: namespace(v).sqrt((v * v).mean()), _of_units(a)))


def _length(v):
    """The root mean square over the examples of their lengths."""
    return namespace(v).sqrt((v * v).sum() / len(v))


def _of_units(tree):
    """Outputs or errors, (N, ..., units), in float32 or wider; of a layer that has several, side by side."""
    arrays = [floating(leaf) for leaf in trees.leaves(tree)]
    if len({a.shape[:-1] for a in arrays}) > 1:
        arrays = [a.reshape(len(a), -1) for a in arrays]
    a = arrays[0] if len(arrays) == 1 else namespace(*arrays).concatenate(arrays, axis=-1)
    return cast(a, backend.at_least_float32(a.dtype))


def _figure(f, *arrays):
    """f, which must be homogeneous, without intermediate overflow or underflow; ∞ if anything is not finite."""
    xp = namespace(*arrays)
    largest = xp.stack([abs(a).max(initial=0) for a in arrays]).max()
    fine = xp.isfinite(largest)
    scale = scale_of(largest)
    return xp.where(fine, scale * f(*(a / scale for a in arrays)), np.inf)


def _norm(tree):
    """The norm of all leaves together, NaN if there are none."""
    arrays = [cast(leaf, backend.at_least_float32(leaf.dtype)) for leaf in trees.leaves(tree)]
    if not arrays:
        return np.nan
    return _figure(lambda *leaves: namespace(*leaves).sqrt(sum((v * v).sum() for v in leaves)), *arrays)


def check_state(state):
    """Raise unless the state is None or that of a run."""
    if state is not None and not hasattr(state, "opt_state"):
        raise KindError(f"state: expected a TrainState, as fnn.init_state gives, got {shorten(state)}")


def _leaves(net):
    """`(place, layer)` of every layer that is not a composition."""
    return [(place, layer) for place, layer in walk(net) if not isinstance(layer, Composition)]
