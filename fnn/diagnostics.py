"""Diagnosing a network: statistics of every layer from one forward and one backward pass, and what they mean.

For a layer f with outputs a for N examples, and errors δ = ∂ℓ/∂a:

    dead         the share of its units whose a is the same for every example
    saturated    the share of a within 5 % of f's limits (`Activation.limits`), relative to the distance from f(0)
    zero         the share of a that is exactly 0: how sparse the layer is
    delta        RMS δ, before the mean over the examples is taken

An error passes from layer to layer as δ ← δ ∂f/∂a, so it may vanish or explode exponentially with depth.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010);
L. Lu et al., "Dying ReLU and initialization" (2020).
"""

import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import backend, gate, trees
from .backend import cast, floating, namespace
from .backpropagation import check_problem, tape_of
from .composition import Composition, walk
from .errors import KindError, encodable, shorten, usage
from .factors import scale_of
from .layers import Layer
from .layers.activations import Activation
from .layers.base import Array
from .losses import Loss
from .overview import outline

NEAR = 0.05  # an output closer to a limit than this share of the distance from f(0) is saturated
# Thresholds of `diagnose`, which healthy networks stay clear of, before training and after.
DEAD, SATURATED, STUCK = 0.5, 0.7, 0.25  # shares of the units, of the outputs, of the examples
VANISHED, EXPLODED = 1 / 200, 100  # ‖δ‖ at a layer that learns, relative to the last one
UNSCALED = 10  # root mean square of what enters the first layer that learns, and of what leaves it


class Statistics(NamedTuple):
    """Statistics of L layers, each (L,): NaN where one does not apply to a layer, ∞ where something is not finite.

    dead, saturated, zero   shares from 0 to 1, as defined at the top of this module
    stuck                   the share of examples that lose most of their ‖δ‖² at outputs saturated at the wrong end
    mean, spread            mean and standard deviation of the outputs, over units and examples
    delta                   RMS δ
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
    gradient: Array
    weight: Array
    update: Array


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
        _check_state(state)
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
    updates = None if state is None else state.optimizer.update(grads, state.opt_state, params)[0]
    rows, below = [], None
    for _, layer, p, a, delta, g, u in walk(net, params, tape.outputs, tape.deltas, learnt, updates):
        if not isinstance(layer, Composition):
            learns = bool(trees.leaves(delta))
            rows.append(_of_layer(layer, p, _wide(a), _wide(delta), _wide(below), g if learns else None, u))
            below = delta
    xp, wide = namespace(tape.losses), tape.losses.dtype
    return Statistics(*(xp.stack([xp.asarray(v, dtype=wide) for v in column]) for column in zip(*rows, strict=True)))


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


class Finding(NamedTuple):
    """One problem: its name, the layers that have it, the evidence for it, and what usually helps."""

    illness: str
    layers: tuple[str, ...]
    evidence: str
    help: str


class Diagnosis(NamedTuple):
    """The result of `diagnose`: the layers' names and numbers of units, their `Statistics` (NumPy), and the findings.

    As a string it is a table followed by the findings in words.
    """

    layers: tuple[str, ...]
    units: tuple[int, ...]
    statistics: Statistics
    findings: tuple[Finding, ...]

    def __repr__(self):
        return f"Diagnosis({', '.join(finding.illness for finding in self.findings) or 'nothing wrong'})"

    def __str__(self):
        s, with_update = self.statistics, not np.isnan(self.statistics.update).all()
        length = s.delta * np.sqrt(self.units)
        passed = np.append(_over(length[:-1], length[1:]), np.nan)
        columns = {
            "layer": self.layers,
            "units": [f"{count:,}" for count in self.units],
            "dead": _shares(s.dead),
            "saturated": _shares(s.saturated),
            "zero": _shares(s.zero),
            "mean": _numbers(s.mean),
            "spread": _numbers(s.spread),
            "RMS δ": _numbers(s.delta),
            "passed": _numbers(passed),
            "‖gradient‖": _numbers(s.gradient),
            "‖weight‖": _numbers(s.weight),
        }
        if with_update:
            columns["update/weight"] = _numbers(_over(s.update, s.weight))
        texts = []
        for finding in self.findings:
            texts += ["", f"{finding.illness.upper()} in {', '.join(finding.layers)}"]
            texts += textwrap.wrap(f"{finding.evidence} What helps: {finding.help}", 100)
        return "\n".join([*_table(columns), *(texts or ["", "Nothing wrong was found."])])


@usage("fnn.diagnose(net, loss, params, x, y)")
def diagnose(net: Layer, loss: Loss, params: Any, x: Any, y: Any, *, state: Any = None) -> Diagnosis:
    """Print and return a table of the layers, what is wrong with the network, and what usually helps.

    The table has the columns defined at the top of this module, and: mean and spread (standard deviation) of the
    outputs; passed, the ratio of ‖δ‖ at this layer to that in the next row; and the norms of the gradient of the mean
    cost and of the parameters. The problems it can name are

        not finite            an output, an error or a gradient is NaN or infinite
        unscaled inputs       the inputs and the outputs of the first layer that learns have a root mean square above 10
        no gradient           no error reaches any layer that learns, although the cost of the examples is not 0
        dead units            at least half the units of an activation have the same output for every example
        saturated units       at least 70 % of the outputs of a hidden activation are saturated
        saturated output      at least a quarter of the examples are wrong at outputs that let no error pass
        vanishing gradient    ‖δ‖ at a layer that learns is less than 1/200 of that at the last one
        exploding gradient    ‖δ‖ at a layer that learns is more than 100 times that at the last one
        output does not fit   the cost takes probabilities or logits, and the network's output is the other of the two

    A problem that follows from another one is not named. An output layer without activation is never saturated.

    Args:
        net: the network, evaluated without dropout.
        loss: the cost.
        params: the parameters.
        x: at least a few hundred examples, since a unit counts as dead with respect to these.
        y: their targets.
        state: a `TrainState`, which adds the size of the optimizer's next step. Default: None.

    Returns:
        A `Diagnosis`: the layers, their statistics and the findings.

    >>> from fnn import SoftmaxCrossEntropy, mlp, random
    >>> net, loss = mlp((8, 3)), SoftmaxCrossEntropy()
    >>> key = random.key(0, backend="numpy")
    >>> params, x = net.init(key, (4,)), random.normal(key, (100, 4))
    >>> diagnosis = diagnose(net, loss, params, x, x.argmax(axis=1) % 3)  # doctest: +ELLIPSIS
    layer    units  dead  saturated  zero ...
    Nothing wrong was found.
    >>> diagnosis.findings
    ()
    """
    gate.check_network(net)
    gate.check_cost(loss)
    _check_state(state)
    data = gate.dataset(net, loss, params, (x, y), output=False)
    gate.on_the_host("diagnose", "fnn.diagnostics.statistics", params, tuple(data))
    misfit = gate.misfit(net, loss, params, data)
    figures = statistics_of(params, data.x, data.y, state, net=net, loss=loss)
    figures = Statistics(*(np.asarray(column, np.float64) for column in figures))
    names, layers = tuple(layer_names(net)), [layer for _, layer in _leaves(net)]
    units = tuple(units_of(net, params, data.x))
    findings = _findings(layers, names, units, figures, rms=max(_rms(a) for a in trees.leaves(data.x)))
    if not findings and not np.nansum(figures.gradient):
        findings = _without_gradient(names, figures, loss.value(net.apply(params, data.x), data.y))
    if misfit is not None:
        findings = (Finding("output does not fit", names[-1:], f"{misfit[0]}.", f"{misfit[1]}."), *findings)
    diagnosis = Diagnosis(names, units, figures, findings)
    print(encodable(str(diagnosis), sys.stdout))
    return diagnosis


def statistics_of(params, x, y, state, *, net, loss):
    """`statistics` for data that have been checked already, compiled on JAX."""
    with backend.any_number():
        return _compiled_statistics(params, x, y, state, net=net, loss=loss)


@backend.jit(static=("net", "loss"))
def _compiled_statistics(params, x, y, state, *, net, loss):
    return _statistics(net, loss, params, x, y, state)


def _rms(a):
    return float(_figure(lambda v: namespace(v).sqrt((v * v).mean()), _wide(a)))


def _without_gradient(names, s, losses):
    """The finding that no error reaches a layer that learns, unless there is none or nothing is left to learn."""
    learns = ~np.isnan(s.gradient)
    if not learns.any() or s.delta[learns].any() or not np.any(np.asarray(losses)):
        return ()
    passes = np.flatnonzero(s.delta > 0)
    where = names[passes[0] if len(passes) else -1]
    evidence = f"No error passes {where}." if len(passes) else "The cost is not 0, and its derivative is 0 everywhere."
    return (Finding("no gradient", (where,), evidence, _HELP["no gradient"]),)


def _findings(layers, names, units, s, rms):
    """Every problem that these statistics and the inputs' root mean square show, except those that follow from another.

    A network whose inputs are unscaled has other problems that follow from it.
    """
    findings = []

    def find(illness, where, evidence):
        findings.append(Finding(illness, tuple(names[i] for i in where), evidence, _HELP[illness]))

    broken = np.flatnonzero(np.isinf(s.mean) | np.isinf(s.delta) | np.isinf(s.gradient))
    if len(broken):
        find("not finite", broken, "Outputs, errors or gradients are NaN or infinite.")
    learns = np.flatnonzero(~np.isnan(s.gradient))
    if not len(learns):
        return tuple(findings)
    first, outputs = learns[0], np.hypot(s.mean, s.spread)  # root mean squares
    rms = outputs[first - 1] if first else rms
    if rms > UNSCALED and outputs[first] > UNSCALED:
        find(
            "unscaled inputs", [first], f"What enters it has a root mean square of {rms:.2g}, which should be about 1."
        )
    if findings:
        return tuple(findings)
    active = np.array([isinstance(layer, Activation) for layer in layers]) & (np.arange(len(layers)) > learns[0])
    inner = active & (np.arange(len(layers)) < len(layers) - 1)
    silent = active & (np.append(np.nan, s.delta[:-1]) == 0)  # a constant output may still learn
    if len(dead := np.flatnonzero((inner | silent) & (s.dead >= DEAD))):
        evidence = f"{_share(s.dead[dead].max())} of the units have the same output for every example and do not learn."
        find("dead units", dead, evidence)
    if len(full := np.flatnonzero(inner & (s.saturated >= SATURATED))):
        evidence = f"{_share(s.saturated[full].max())} of the outputs are where the activation is flat."
        find("saturated units", full, evidence)
    if s.stuck[-1] >= STUCK:
        evidence = f"{_share(s.stuck[-1])} of the examples are wrong at outputs so flat that their error is lost."
        find("saturated output", [len(layers) - 1], evidence)
    length, top = s.delta * np.sqrt(units), learns[-1]
    ratio = _over(length, length[top])
    for illness, sick in ("vanishing gradient", ratio < VANISHED), ("exploding gradient", ratio > EXPLODED):
        where = [i for i in learns if sick[i]]
        if where and not (illness == "vanishing gradient" and findings):
            evidence = f"The error that reaches {names[where[0]]} is {ratio[where[0]]:.1e} times that at {names[top]}."
            find(illness, where, evidence)
    return tuple(findings)


_HELP = {
    "not finite": "a lower learning rate, fnn.ClipByGlobalNorm around the optimizer, smaller initial weights "
    "(fnn.HeNormal, fnn.LecunNormal), inputs of spread 1; diagnose the network before its first step too.",
    "unscaled inputs": "inputs of mean 0 and spread 1 in each feature: fnn.Standardize within fnn.Frozen as the first "
    "layer; for pixels from 0 to 255, fnn.Scale(1 / 255) as the first layer.",
    "no gradient": "an activation and a cost that have a derivative: fnn.Sigmoid in place of a step, for example.",
    "dead units": "a lower learning rate or a warm-up, and a fresh start, since dead units stay dead; fnn.HeNormal; "
    "fnn.LeakyRelu or fnn.Elu, which also pass errors below 0.",
    "saturated units": "smaller initial weights (fnn.GlorotNormal), inputs of mean 0 and spread 1, fnn.LayerNorm "
    "before the activation, fnn.Relu.",
    "saturated output": "the cost on logits that matches the output: fnn.SigmoidBinaryCrossEntropy or "
    "fnn.SoftmaxCrossEntropy with no activation at the end; smaller initial weights in the last layer.",
    "vanishing gradient": "fnn.Relu with fnn.HeNormal in place of a sigmoid, fnn.LayerNorm, fnn.Residual, fewer "
    "layers.",
    "exploding gradient": "smaller initial weights (fnn.HeNormal, fnn.LecunNormal), inputs and targets of spread 1, "
    "fnn.LayerNorm; fnn.ClipByGlobalNorm around the optimizer where it comes and goes.",
}


def _of_layer(layer, params, a, delta, below, grads, updates):
    """The `Statistics` of one layer, as numbers; `below` is the error at the layer in the row before."""
    saturated, stuck = _saturation(layer, params, a, delta, below)
    return Statistics(
        dead=(a == a[0]).all(axis=0).mean() if len(a) > 1 else np.nan,
        saturated=saturated,
        zero=(a == 0).mean(),
        stuck=stuck,
        mean=_figure(lambda v: v.mean(), a),
        spread=_figure(lambda v: v.std(), a),
        delta=np.nan if delta is None else _figure(lambda v: namespace(v).sqrt((v * v).mean()), delta),
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


def _wide(a):
    """The array in float32 or wider; for a layer that keeps several arrays the last one, which is its output."""
    if a is None:
        return None
    a = floating(trees.leaves(a)[-1])
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


def _check_state(state):
    """Raise unless the state is None or that of a run."""
    if state is not None and not hasattr(state, "opt_state"):
        raise KindError(f"state: expected a TrainState, as fnn.init_state gives, got {shorten(state)}")


def _leaves(net):
    """`(place, layer)` of every layer that is not a composition."""
    return [(place, layer) for place, layer in walk(net) if not isinstance(layer, Composition)]


def units_of(net, params, x) -> list[int]:
    """The number of outputs of every layer that is not a composition."""
    dtype = next((p.dtype for p in trees.leaves(params)), np.float32)
    rows = walk(net, outline(net, gate.shape_of(x), dtype)[1])
    return [int(np.prod(kept.output.shape[1:])) for _, layer, kept in rows if not isinstance(layer, Composition)]


def _over(a, b):
    """a / b, NaN where b is 0."""
    return a / np.where(b == 0, np.nan, b)


def _share(value):
    return f"{100 * value:.0f} %"


def _shares(values):
    return ["" if np.isnan(v) else _share(v) for v in values]


def _numbers(values):
    return ["" if np.isnan(v) else f"{v:.2g}" if 1e-3 <= abs(v) < 1e4 or v == 0 else f"{v:.1e}" for v in values]


def _table(columns):
    """The lines of a table, with the first column aligned left and the others right."""
    widths = [max(map(len, (head, *cells))) for head, cells in columns.items()]
    lines = [tuple(columns), *zip(*columns.values(), strict=True)]
    sides = "<" + ">" * (len(columns) - 1)
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    ]
