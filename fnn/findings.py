"""Findings: what the statistics of a network say is wrong with it, and what usually helps.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010);
L. Lu et al., "Dying ReLU and initialization" (2020); R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training
recurrent neural networks" (2013).
"""

import math
import sys
import textwrap
from typing import Any, NamedTuple

import numpy as np

from . import checks, examples, gate, trees
from .composition import Composition, walk
from .devices import on_any_axes
from .diagnostics import Statistics, check_state, layer_names, root_mean_square, statistics_of
from .errors import encodable, usage
from .layers import Layer, Recurrent
from .layers.activations import Activation
from .losses import Loss
from .overview import outline, table

# Thresholds of `diagnose`, which healthy networks stay clear of, before training and after.
DEAD, SATURATED, STUCK = 0.5, 0.7, 0.25  # shares of the units, of the outputs, of the examples
VANISHED, EXPLODED = 1 / 200, 100  # ‖δ‖ at a layer that learns, relative to the last one
FORGOTTEN = float(np.finfo(np.float32).eps) ** 2  # through time: half of the positions are lost in rounding
UNSCALED = 10  # root mean square of what enters the first layer that learns, and of what leaves it


class Finding(NamedTuple):
    """One problem: its name, the layers that have it, the evidence for it, and what usually helps."""

    illness: str
    layers: tuple[str, ...]
    evidence: str
    help: str


class Diagnosis(NamedTuple):
    """The result of `diagnose`: the layers' names, numbers of units and of positions, and `Statistics`; the findings.

    As a string it is a table followed by the findings in words.
    """

    layers: tuple[str, ...]
    units: tuple[int, ...]
    positions: tuple[int, ...]
    statistics: Statistics
    findings: tuple[Finding, ...]

    def __repr__(self):
        return f"Diagnosis({', '.join(finding.illness for finding in self.findings) or 'nothing wrong'})"

    def __str__(self):
        s = self.statistics
        passed = np.append(_over(s.delta[:-1], s.delta[1:]), np.nan)
        columns = {
            "layer": self.layers,
            "units": [f"{count:,}" for count in self.units],
            "positions": [f"{count:,}" if count > 1 else "" for count in self.positions],
            "dead": _shares(s.dead),
            "saturated": _shares(s.saturated),
            "zero": _shares(s.zero),
            "mean": _numbers(s.mean),
            "spread": _numbers(s.spread),
            "‖δ‖": _numbers(s.delta),
            "passed": _numbers(passed),
            "through time": _numbers(s.through_time),
            "‖gradient‖": _numbers(s.gradient),
            "‖weight‖": _numbers(s.weight),
            "update/weight": _numbers(_over(s.update, s.weight)),
        }
        sometimes = ("positions", "through time", "update/weight")
        columns = {head: cells for head, cells in columns.items() if head not in sometimes or any(cells)}
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        texts = []
        for finding in self.findings:
            texts += ["", f"{finding.illness.upper()} in {', '.join(finding.layers)}"]
            texts += textwrap.wrap(f"{finding.evidence} What helps: {finding.help}", 100)
        return "\n".join([table(rows), *(texts or ["", "Nothing wrong was found."])])


@on_any_axes
@usage("fnn.diagnose(net, loss, params, x, y)")
def diagnose(net: Layer, loss: Loss, params: Any, x: Any, y: Any, *, state: Any = None) -> Diagnosis:
    """Print and return a table of the layers, what is wrong with the network, and what usually helps.

    The table has the columns defined at the top of `fnn.diagnostics`, and: mean and spread (standard deviation) of the
    outputs; passed, the ratio of ‖δ‖ at this layer to that in the next row; and the norms of the gradient of the mean
    cost and of the parameters. A unit of a layer with positions, such as a filter, is counted once. The problems it can
    name are

        not finite            an output, an error or a gradient is NaN or infinite
        unscaled inputs       the inputs and the outputs of the first layer that learns have a root mean square above 10
        no gradient           no error reaches any layer that learns, although the cost of the examples is not 0
        dead units            at least half the units of an activation have the same output for every example
        saturated units       at least 70 % of the outputs of a hidden activation, or of a layer's gates, are saturated
        saturated output      at least a quarter of the examples are wrong at outputs that let no error pass
        vanishing gradient    ‖δ‖ at a layer that learns is less than 1/200 of that at the last one
        exploding gradient    ‖δ‖ at a layer that learns is more than 100 times that at the last one
        vanishing gradient through time    ‖δ‖ at the first position is less than 10⁻¹⁴ of that at the last one: at half
                                           of the positions it is smaller than what rounding at the last one leaves
        exploding gradient through time    ‖δ‖ at the first position is more than 100 times that at the last one
        output does not fit   the cost takes probabilities or logits, and the network's output is the other of the two

    A problem that follows from another one is not named. An output layer without activation is never saturated. Where
    each position has a cost of its own, an error that vanishes on its way back is hidden by those that join it.

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
    check_state(state)
    data = gate.dataset(net, loss, params, (x, y), output=False)
    checks.on_the_host("diagnose", "fnn.diagnostics.statistics", params, tuple(data))
    misfit = gate.misfit(net, loss, params, data)
    figures = statistics_of(params, data.x, data.y, state, net=net, loss=loss)
    figures = Statistics(*(np.asarray(column, np.float64) for column in figures))
    names, shapes = tuple(layer_names(net)), _output_shapes(net, params, data.x)
    layers = [layer for _, layer in walk(net) if not isinstance(layer, Composition)]
    findings = _findings(layers, names, figures, rms=max(root_mean_square(a) for a in trees.leaves(data.x)))
    if not findings and not np.nansum(figures.gradient):
        findings = _without_gradient(names, figures, loss.value(net.apply(params, data.x), data.y))
    if misfit is not None:
        findings = (Finding("output does not fit", names[-1:], f"{misfit[0]}.", f"{misfit[1]}."), *findings)
    units, positions = (tuple(map(math.prod, sizes)) for sizes in ((s[-1:] for s in shapes), (s[:-1] for s in shapes)))
    diagnosis = Diagnosis(names, units, positions, figures, findings)
    print(encodable(str(diagnosis), sys.stdout))
    return diagnosis


def _output_shapes(net, params, x) -> list[tuple[int, ...]]:
    """The output shape of every layer that is not a composition."""
    dtype = next((p.dtype for p in trees.leaves(params)), np.float32)
    rows = walk(net, outline(net, examples.shape_of(x), dtype)[1])
    return [tuple(kept.output.shape[1:]) for _, layer, kept in rows if not isinstance(layer, Composition)]


def _without_gradient(names, s, losses):
    """The finding that no error reaches a layer that learns, unless there is none or nothing is left to learn."""
    learns = ~np.isnan(s.gradient)
    if not learns.any() or s.delta[learns].any() or not np.any(np.asarray(losses)):
        return ()
    passes = np.flatnonzero(s.delta > 0)
    where = names[passes[0] if len(passes) else -1]
    evidence = f"No error passes {where}." if len(passes) else "The cost is not 0, and its derivative is 0 everywhere."
    return (Finding("no gradient", (where,), evidence, _HELP["no gradient"]),)


def _findings(layers, names, s, rms):
    """Every problem that these statistics and the inputs' root mean square show, except those that follow from another.

    A network whose inputs are unscaled has other problems that follow from it.
    """
    findings = []

    def find(illness, where, evidence, reason=None):
        findings.append(Finding(illness, tuple(names[i] for i in where), evidence, _HELP[reason or illness]))

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
    place = np.arange(len(layers))
    recurs = np.array([isinstance(layer, Recurrent) for layer in layers])
    active = np.array([isinstance(layer, Activation) for layer in layers]) & (place > first) | recurs
    inner = active & (place < place[-1]) | recurs
    silent = active & (np.append(np.nan, s.delta[:-1]) == 0)  # a constant output may still learn
    if len(dead := np.flatnonzero((inner | silent) & (s.dead >= DEAD))):
        evidence = f"{_share(s.dead[dead].max())} of the units have the same output for every example and do not learn."
        find("dead units", dead, evidence)
    if len(full := np.flatnonzero(inner & (s.saturated >= SATURATED))):
        what = "outputs of the gates" if recurs[full].all() else "outputs"
        evidence = f"{_share(s.saturated[full].max())} of the {what} are where the activation is flat."
        find("saturated units", full, evidence)
    if s.stuck[-1] >= STUCK:
        evidence = f"{_share(s.stuck[-1])} of the examples are wrong at outputs so flat that their error is lost."
        find("saturated output", [len(layers) - 1], evidence)
    exploded, vanished = np.flatnonzero(s.through_time > EXPLODED), np.flatnonzero(s.through_time < FORGOTTEN)
    for illness, where in ("exploding gradient", exploded), ("vanishing gradient", vanished):
        if len(where) and not (illness == "vanishing gradient" and findings):
            times = f"{s.through_time[where[0]]:.1e} times that at the last one"
            find(f"{illness} through time", where, f"In {names[where[0]]} the error at the first position is {times}.")
    ratio, below = _over(s.delta, s.delta[learns[-1]]), exploded.max(initial=-1)  # where it follows from the former
    for illness, sick in ("vanishing gradient", ratio < VANISHED), ("exploding gradient", ratio > EXPLODED):
        where = [i for i in learns if sick[i] and i > below]
        if where and not (illness == "vanishing gradient" and findings):
            times = f"{ratio[where[0]]:.1e} times that at {names[learns[-1]]}"
            reason = "shut gates" if illness == "vanishing gradient" and recurs[where[-1]] else illness
            find(illness, where, f"The error that reaches {names[where[0]]} is {times}.", reason)
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
    "shut gates": "biases with which the gates are open, as they are at first; smaller initial weights.",
    "exploding gradient": "smaller initial weights (fnn.HeNormal, fnn.LecunNormal), inputs and targets of spread 1, "
    "fnn.LayerNorm; fnn.ClipByGlobalNorm around the optimizer where it comes and goes.",
    "vanishing gradient through time": "fnn.Lstm or fnn.Gru in place of fnn.Rnn, fnn.Orthogonal for U, a larger bias "
    "of the forget gate, shorter sequences, the mean over all states (fnn.GlobalAvgPool) in place of the last one.",
    "exploding gradient through time": "fnn.ClipByGlobalNorm around the optimizer, fnn.Orthogonal for U, fnn.Lstm or "
    "fnn.Gru in place of fnn.Rnn.",
}


def _over(a, b):
    """a / b, NaN where b is 0."""
    return a / np.where(b == 0, np.nan, b)


def _share(value):
    return f"{100 * value:.0f} %"


def _shares(values):
    return ["" if np.isnan(v) else _share(v) for v in values]


def _numbers(values):
    return ["" if np.isnan(v) else f"{v:.2g}" if 1e-3 <= abs(v) < 1e4 or v == 0 else f"{v:.1e}" for v in values]
