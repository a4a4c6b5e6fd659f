"""Figures of training: learning curves, errors and gradients by layer, and the cost around the parameters."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import gate, random, trees
from ..backend import namespace
from ..backpropagation import check_problem, mean_cost
from ..diagnostics import Statistics
from ..errors import ArgumentError, KindError, ShapeError, integer, real, require, same_shape, shorten, usage
from ..layers import Layer
from ..losses import Loss
from ..training.evaluation import predict
from ..training.sweeps import sweep
from .common import COLORS, STYLES, check_axes, color_of, no_frame, numbers, tint


@usage('fnn.plots.learning_curves(axes, {"loss": history["loss"]})')
def learning_curves(axes: Any, curves: Any, *, x: Any = None) -> Any:
    """Draw learning curves: a line for each, labelled at its end; for several seeds, their mean and a band.

    The band is one standard deviation of the seeds (with n − 1) to either side, as noted on the horizontal axis. Set
    the scale of the axes before the call (`axes.set_yscale("log")`), since it decides how the labels are kept apart. A
    further call continues with the next colour and style. The axes are labelled epoch and cost; change that with
    `axes.set`.

    Args:
        axes: an Axes of matplotlib.
        curves: an array (steps,) or (seeds, steps), or a dict of such arrays by label.
        x: the positions (steps,). Default: 1 to steps.

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> learning_curves(axes, {"training": [[3.0, 1.0], [5.0, 2.0]], "held out": [4.0, 2.0]}) is axes
    True
    >>> axes.lines[0].get_ydata().tolist()
    [4.0, 1.5]
    """
    check_axes(axes)
    named = curves if isinstance(curves, Mapping) else {"": curves}
    runs = {str(label): numbers(label or "curves", curve) for label, curve in named.items()}
    if not runs:
        raise ShapeError("curves: expected at least one, got {}")
    for label, run in runs.items():
        if run.ndim not in (1, 2) or not run.size:
            raise ShapeError(f"{label or 'curves'}: expected shape (steps,) or (seeds, steps), got {run.shape}")
        if x is not None:
            same_shape("x", np.asarray(x), run.shape[-1:])

    before, ends, seeds = len(axes.lines), [], set()
    for i, (label, run) in enumerate(runs.items(), start=before):
        rows = np.atleast_2d(np.where(np.isfinite(run), run, np.nan))
        at, mean = np.arange(1, rows.shape[1] + 1) if x is None else np.asarray(x), rows.mean(axis=0)
        color, style = color_of(i), STYLES[i % len(STYLES)]
        axes.plot(at, mean, style, color=color, linewidth=1.5, label=label or None)
        if len(rows) > 1:
            spread = rows.std(axis=0, ddof=1)
            faces = {"facecolor": tint(color, 0.25), "edgecolor": color, "alpha": 0.6}  # edges: bands overlap
            axes.fill_between(at, mean - spread, mean + spread, linewidth=0.5, linestyle=style, **faces)
            seeds.add(len(rows))
        ends.append((at, mean, label, color))
    of_seeds = " and ".join(map(str, sorted(seeds)))
    axes.set(xlabel=f"epoch (band: ± 1 SD of {of_seeds} seeds)" if seeds else "epoch", ylabel="cost")
    no_frame(axes)
    _label_ends(axes, ends)
    return axes


@usage("fnn.plots.gradient_flow(axes, statistics, names)")
def gradient_flow(axes: Any, statistics: Statistics, names: Any) -> Any:
    """Draw how the sizes of errors and gradients change through the layers, on a logarithmic axis.

    For one batch it shows, for each layer from first to last, ‖δ‖, and ‖∂C/∂θ‖ if the layer learns. For several
    batches, as recorded in training, it shows ‖∂C/∂θ‖ of each layer that learns as a line over the epochs, lighter
    towards the output. Values that are 0, infinite or NaN are left out, as they have no place on the axis.

    Args:
        axes: an Axes of matplotlib.
        statistics: `fnn.diagnostics.Statistics` with entries (L,), or (epochs, L) stacked.
        names: the names of the L layers, as returned by `fnn.diagnostics.layer_names`.

    Returns:
        The Axes.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
    who examine both.

    >>> from matplotlib.figure import Figure
    >>> from fnn import Quadratic, diagnostics, mlp, random
    >>> net, x = mlp((3, 1)), np.ones((4, 2), np.float32)
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> statistics = diagnostics.statistics(net, Quadratic())(params, x, np.zeros((4, 1)))
    >>> axes = gradient_flow(Figure().subplots(), statistics, diagnostics.layer_names(net))
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['0 Dense', '1 Relu', '2 Dense']
    """
    check_axes(axes)
    if not isinstance(statistics, Statistics):
        raise KindError(f"statistics: expected fnn.diagnostics.Statistics, got {shorten(statistics)}")
    delta, gradient = numbers("delta", statistics.delta), numbers("gradient", statistics.gradient)
    names = list(names)
    if delta.ndim not in (1, 2) or delta.shape[-1] != len(names):
        raise ShapeError(f"statistics: expected shape ({len(names)},) or (epochs, {len(names)}), got {delta.shape}")
    same_shape("gradient", gradient, delta.shape)

    axes.set_yscale("log")
    no_frame(axes)
    if delta.ndim == 1:
        ends = []
        for values, style, color, label in (
            (delta, "o-", COLORS[0], "‖δ‖"),
            (gradient, "s--", COLORS[1], "‖∂C/∂θ‖"),
        ):
            has = np.flatnonzero(_drawable(values))
            axes.plot(has, values[has], style, color=color, markersize=5, label=label)
            ends.append((has, values[has], label, color))
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", size="small")
        axes.set(xlabel="layer, from input to output", ylabel="error, gradient", xlim=(-0.4, len(names) - 0.6))
        _decades(axes)
        _label_ends(axes, ends)
        return axes
    learns = np.flatnonzero(~np.isnan(gradient).all(axis=0))
    epochs, ends, shades = (
        np.arange(1, len(gradient) + 1),
        [],
        require("matplotlib", "plots").colormaps["cividis"](np.linspace(0, 0.75, len(learns))),
    )
    for i, layer in enumerate(learns):
        values = np.where(_drawable(gradient[:, layer]), gradient[:, layer], np.nan)
        axes.plot(epochs, values, STYLES[i % len(STYLES)], color=shades[i], linewidth=1.5)
        ends.append((epochs, values, names[layer], shades[i]))
    axes.set(xlabel="epoch", ylabel="gradient ‖∂C/∂θ‖")
    _decades(axes)
    _label_ends(axes, ends)
    return axes


@usage("fnn.plots.alignment(axes, history)")
def alignment(axes: Any, history: Any) -> Any:
    """Draw how far a rule's gradient was from that of backpropagation during a run: a line for each layer.

    A dashed line marks 90°, where the two have nothing in common: below it a small step along the one follows the other
    downhill too.

    Args:
        axes: an Axes of matplotlib.
        history: the history of a run with `fnn.rules.Aligned`, of `fit`, `train`, or a `sweep`: what it calls
            `angle_...`, (steps,) or (seeds, steps).

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> axes = alignment(Figure().subplots(), {"loss": [2.0, 1.0], "angle_0": [90.0, 60.0], "angle_2": [80.0, 40.0]})
    >>> [line.get_ydata()[-1].item() for line in axes.lines[1:]]
    [60.0, 40.0]
    """
    check_axes(axes)
    named = history if isinstance(history, Mapping) else {}
    angles = {f"layer {name[6:]}": numbers(name, named[name]) for name in named if name.startswith("angle_")}
    if not angles:
        raise KindError(
            f"history: expected that of a run with rule=fnn.rules.Aligned(...), with entries angle_..., "
            f"got {shorten(list(named) or history)}"
        )
    largest = max(np.nan_to_num(a).max(initial=0) for a in angles.values())
    axes.set(yticks=range(0, 181, 30), ylim=(-4, max(100, min(184, 1.1 * largest))))
    axes.axhline(90, color="black", linestyle="--", linewidth=0.8)
    learning_curves(axes, angles)
    axes.set(ylabel="angle to the gradient (degrees)")
    return axes


@usage("fnn.plots.loss_surface(axes, net, loss, params, x, y, key=key)")
def loss_surface(
    axes: Any,
    net: Layer,
    loss: Loss,
    params: Any,
    x: Any,
    y: Any,
    *,
    key: Any = None,
    ends: Any = None,
    limits: Any = None,
    steps: int = 31,
) -> Any:
    """Draw the mean cost on a plane through the parameters θ, with contour lines at logarithmically spaced levels.

        C(θ + a d₁ + b d₂)        with a key, d are random, each unit's weights as long as its own in θ; biases are kept
                                  with `ends` = (θ₁, θ₂), d₁ = θ₁ − θ and d₂ = θ₂ − θ, so that a and b are shares of
                                  the way to them

    The cost at θ and at the ends is written beside them. If costs of 0 or less occur, the levels are evenly spaced.

    Args:
        axes: an Axes of matplotlib.
        net: the network.
        loss: the cost.
        params: θ.
        x: the examples (N, ...), as for `fnn.evaluate`.
        y: their targets.
        key: a random key for random directions, which leave frozen parameters as they are; give either this or `ends`.
        ends: two trees of parameters (θ₁, θ₂), which span the plane.
        limits: the range of a and b. Default: (−1, 1) with a key, (−0.5, 1.5) with ends.
        steps: the number of points along each side. Default: 31.

    Returns:
        The Axes.

    Source: H. Li et al., "Visualizing the loss landscape of neural nets" (2018), §4, for the random directions;
    I. Goodfellow, O. Vinyals, A. Saxe, "Qualitatively characterizing neural network optimization problems" (2015), for
    the ends.

    >>> from matplotlib.figure import Figure
    >>> from fnn import Quadratic, mlp, random
    >>> net, key = mlp((3, 1)), random.key(0, backend="numpy")
    >>> params, x = net.init(key, (2,)), np.ones((4, 2), np.float32)
    >>> axes = loss_surface(Figure().subplots(), net, Quadratic(), params, x, np.zeros((4, 1)), key=key, steps=5)
    >>> axes.get_xlabel()
    'a, along the first direction'
    """
    check_axes(axes)
    check_problem(net, loss)
    if (key is None) == (ends is None):
        raise ArgumentError("key: expected either a key, for random directions, or ends=(params, params)")
    if ends is not None:
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise KindError(f"ends: expected two trees of parameters, got {shorten(ends)}")
        for i, end in enumerate(ends):
            trees.same_structure(f"ends[{i}]", end, params)
    limits = limits if limits is not None else (-1, 1) if ends is None else (-0.5, 1.5)
    if np.shape(limits) != (2,):
        raise ShapeError(f"limits: expected a lower and an upper limit, got {shorten(limits)}")
    low, high = (real("a limit", limit) for limit in limits)
    if not low < high:
        raise ArgumentError(f"limits: expected the lower limit first, got {limits}")
    integer("steps", steps, least=2)
    x, y, _ = gate.dataset(net, loss, params, (x, y))
    if ends is None:
        first, second = (_direction(k, params) for k in random.split(random.check_key(key)))
    else:
        first, second = (trees.map(lambda e, p: namespace(p).asarray(e) - p, end, params) for end in ends)

    along = np.linspace(low, high, steps)
    marks = {"θ": (0.0, 0.0)} if ends is None else {"θ": (0.0, 0.0), "θ₁": (1.0, 0.0), "θ₂": (0.0, 1.0)}
    places = np.concatenate([np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2), list(marks.values())])
    costs = _costs(net, loss, params, first, second, x, y, places, chunk=steps)
    surface = costs[: steps**2].reshape(steps, steps)

    _contours(axes, along, np.ma.masked_invalid(surface))
    for (label, place), cost in zip(marks.items(), costs[steps**2 :], strict=True):
        axes.plot(*place, "X", color="white", markeredgecolor="black", markersize=7, zorder=3)
        frame = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        text = f"{label}: C = {cost:.3g}"
        axes.annotate(text, place, (0, 7), textcoords="offset points", ha="center", size="small", bbox=frame, zorder=4)
    names = ("along the first direction", "along the second") if ends is None else ("from θ to θ₁", "from θ to θ₂")
    axes.set(xlabel=f"a, {names[0]}", ylabel=f"b, {names[1]}", xlim=limits, ylim=limits)
    return axes


def _direction(key, params):
    """A random direction in which each unit's weights, a row, are as long as they are in the parameters."""
    key = random.fold_in(key, 2**32 - 1)  # the key that made the parameters gives new numbers
    count = iter(range(len(trees.leaves(params))))

    def of_leaf(p):
        i, xp = next(count), namespace(p)
        if p.ndim < 2:
            return xp.zeros_like(p)
        d, rest = xp.asarray(random.normal(random.fold_in(key, i), p.shape)), tuple(range(1, p.ndim))
        length = lambda rows: xp.sqrt((rows * rows).sum(axis=rest, keepdims=True))
        return (d * (length(p) / length(d))).astype(p.dtype)

    return trees.map_learnt(of_leaf, params, fixed=lambda p: namespace(p).zeros_like(p))


def _costs(net, loss, params, first, second, x, y, places, chunk):
    """The mean cost at each of several points (a, b) of the plane, on NumPy."""
    xp = namespace(*trees.leaves(params))

    def cost(place):
        moved = trees.map(lambda p, d, e: p + (place[0] * d + place[1] * e).astype(p.dtype), params, first, second)
        return mean_cost(loss, predict(moved, x, y, net=net, loss=loss)[1], None)[0]

    return numbers("costs", sweep(cost, xp.asarray(places, dtype=np.float32), chunk=chunk))


def _contours(axes, along, surface):
    """Draw filled contours of a surface at logarithmic levels, and lines with their values."""
    low, high = surface.min(), surface.max()
    if not high > low:  # constant, or finite nowhere
        return
    logarithmic = low > 0
    levels = np.geomspace(low, high, 11) if logarithmic else np.linspace(low, high, 11)
    shades = require("matplotlib.colors", "plots")
    norm = shades.LogNorm(low, high) if logarithmic else shades.Normalize(low, high)
    axes.contourf(along, along, surface, levels, cmap="cividis", norm=norm, extend="both")
    lines = axes.contour(along, along, surface, levels[1:-1], colors="black", linewidths=0.5)
    axes.clabel(
        lines, levels[5:-1:2], fmt="%.2g", fontsize="small", colors="black"
    )  # not near the lowest, where it is crowded


def _decades(axes):
    """Extend a logarithmic axis to whole powers of ten, and label only these."""
    low, high = axes.get_ylim()
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    axes.yaxis.set_minor_formatter("")


def _drawable(values):
    """Which values have a place on a logarithmic axis."""
    return np.isfinite(values) & (values > 0)


def _label_ends(axes, curves):
    """Label the last point of each curve `(x, y, label, color)`, as close to it as the other labels allow."""
    ends = []
    for x, y, label, color in curves:
        has = np.flatnonzero(np.isfinite(y))
        if label and len(has):
            ends.append((x[has[-1]], y[has[-1]], label, color))
    if not ends:
        return
    to_rgb = require("matplotlib.colors", "plots").to_rgb
    axes.get_ylim()  # updates the scale to what was drawn
    heights = axes.transData.transform([(x, y) for x, y, *_ in ends])[:, 1] * 72 / axes.figure.dpi
    gap = 1.2 * require("matplotlib", "plots").rcParams["font.size"]  # points: the labels are a little smaller
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(ends))
    placed = np.maximum.accumulate(heights[order] - steps) + steps  # from below, none nearer than a gap to the last
    moves = placed[np.argsort(order)] - heights
    far = abs(moves) > gap / 2
    for (x, y, label, color), move, with_line in zip(ends, moves, far, strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        dark = tuple(0.75 * part for part in to_rgb(color))  # so that light-coloured letters are legible
        style = {"color": dark, "size": "small", "va": "center", "arrowprops": line if with_line else None}
        axes.annotate(label, (x, y), (14 if far.any() else 5, move), textcoords="offset points", **style)
