"""Figures of training, of networks and of what they learn, drawn by matplotlib (the extra `plots`).

Each function takes an Axes first, draws into it and returns it. None shows anything, needs pyplot or touches a setting,
so titles, limits and labels can be changed afterwards: `axes.set(...)`. Whatever it refuses it refuses before it draws.

All can be read in print, without colour and by the colour-blind: line styles, markers and numbers say again what the
colours say. Colours are those of M. Okabe, K. Ito, "Color universal design" (2008). The one colour map is cividis
(J. Nuñez, C. Anderton, R. Renslow, 2018), ever lighter from blue through grey to yellow: for amounts, and for values
of either sign with 0 at its grey middle. Letters: N examples, L layers, C classes.
"""

import math
from collections.abc import Mapping

import numpy as np

from . import random, trees
from .backend import namespace
from .backprop import check_problem
from .diagnostics import Statistics
from .errors import ArgumentError, DataError, KindError, ShapeError, finite, integer, real, require, same_shape, shorten
from .errors import shape as sizes
from .layers import Dense, DenseParams, enter
from .networks import Composition, Frozen, Residual, Serial, parameter_shapes, walk
from .sweeps import sweep
from .training import check_data, predict

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


# ---- training --------------------------------------------------------------------------------------------------------


def learning_curves(axes, curves, *, x=None):
    """How training went: a line for each curve, labelled at its end; of several seeds their mean, and a band.

    The band is one standard deviation of the seeds to either side (with n − 1), and the axis below says so.

    Arguments: `curves`, an array (steps,) or (seeds, steps), or a dict of them by label; `x` (steps,), 1 to steps by
    default. Set the scale of the axes first (`axes.set_yscale("log")`): by it the labels are kept apart. Called again
    it goes on with the next colour and style. The axes are called epoch and cost; change that with `axes.set`.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> learning_curves(axes, {"training": [[3.0, 1.0], [5.0, 2.0]], "held out": [4.0, 2.0]}) is axes
    True
    >>> axes.lines[0].get_ydata().tolist()
    [4.0, 1.5]
    """
    _check_axes(axes)
    named = curves if isinstance(curves, Mapping) else {"": curves}
    runs = {str(label): _numbers(label or "curves", curve) for label, curve in named.items()}
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
        color, style = _color(i), STYLES[i % len(STYLES)]
        axes.plot(at, mean, style, color=color, linewidth=1.5, label=label or None)
        if len(rows) > 1:
            spread = rows.std(axis=0, ddof=1)
            faces = {"facecolor": _tint(color, 0.25), "edgecolor": color, "alpha": 0.6}  # edges: bands overlap
            axes.fill_between(at, mean - spread, mean + spread, linewidth=0.5, linestyle=style, **faces)
            seeds.add(len(rows))
        ends.append((at, mean, label, color))
    of_seeds = " and ".join(map(str, sorted(seeds)))
    axes.set(xlabel=f"epoch (band: ± 1 SD of {of_seeds} seeds)" if seeds else "epoch", ylabel="cost")
    _open(axes)
    _label_ends(axes, ends)
    return axes


def gradient_flow(axes, statistics, names):
    """How errors and gradients fare through the layers, on a logarithmic axis.

    Of one batch, each layer from first to last: RMS δ, and ‖∂C/∂θ‖ of the layers that learn. Of several batches, as
    recorded in training, ‖∂C/∂θ‖ as a line over the epochs for each layer that learns, the lighter the nearer to the
    output. What is 0, infinite or not a number is left out, as it has no place on the axis.

    Arguments: `statistics`, `fnn.diagnostics.Statistics` with figures (L,), or (epochs, L) stacked; `names` of the L
    layers, as `fnn.diagnostics.layer_names` gives. X. Glorot, Y. Bengio, "Understanding the difficulty of training deep
    feedforward neural networks" (2010), who look at both.

    >>> from matplotlib.figure import Figure
    >>> from fnn import Quadratic, diagnostics, mlp, random
    >>> net, x = mlp((3, 1)), np.ones((4, 2), np.float32)
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> found = diagnostics.statistics(net, Quadratic())(params, x, np.zeros((4, 1)))
    >>> axes = gradient_flow(Figure().subplots(), found, diagnostics.layer_names(net, params, (2,)))
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['0 Dense', '1 Relu', '2 Dense']
    """
    _check_axes(axes)
    if not isinstance(statistics, Statistics):
        raise KindError(f"statistics: expected fnn.diagnostics.Statistics, got {shorten(statistics)}")
    delta, gradient = _numbers("delta", statistics.delta), _numbers("gradient", statistics.gradient)
    names = list(names)
    if delta.ndim not in (1, 2) or delta.shape[-1] != len(names):
        raise ShapeError(f"statistics: expected shape ({len(names)},) or (epochs, {len(names)}), got {delta.shape}")
    same_shape("gradient", gradient, delta.shape)

    axes.set_yscale("log")
    _open(axes)
    if delta.ndim == 1:
        ends = []
        for values, style, color, label in (
            (delta, "o-", COLORS[0], "RMS δ"),
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
    epochs, ends, shades = np.arange(1, len(gradient) + 1), [], _cividis(np.linspace(0, 0.75, len(learns)))
    for i, layer in enumerate(learns):
        values = np.where(_drawable(gradient[:, layer]), gradient[:, layer], np.nan)
        axes.plot(epochs, values, STYLES[i % len(STYLES)], color=shades[i], linewidth=1.5)
        ends.append((epochs, values, names[layer], shades[i]))
    axes.set(xlabel="epoch", ylabel="gradient ‖∂C/∂θ‖")
    _decades(axes)
    _label_ends(axes, ends)
    return axes


def loss_surface(axes, net, loss, params, x, y, *, key=None, ends=None, limits=None, steps=31):
    """The mean cost on a plane through the parameters θ: contour lines at levels equally far apart in its logarithm.

        C(θ + a d₁ + b d₂)        with a key, d are random, each unit's weights as long as its own in θ; biases are kept
                                  with `ends` = (θ₁, θ₂), d₁ = θ₁ − θ and d₂ = θ₂ − θ, so that a and b are shares of
                                  the way to them

    The cost at θ, and at the ends, is written beside them. Costs of 0 and less have levels equally far apart.

    Arguments: x (N, ...) and y, as for `fnn.evaluate`; `limits` of a and b, (−1, 1) with a key and (−0.5, 1.5) with
    ends; `steps`, the number of points along each side, 31. Frozen parameters stay what they are with a key. H. Li et
    al., "Visualizing the loss landscape of neural nets" (2018), §4, whose directions these are; I. Goodfellow,
    O. Vinyals, A. Saxe, "Qualitatively characterizing neural network optimization problems" (2015), for the ends.

    >>> from matplotlib.figure import Figure
    >>> from fnn import Quadratic, mlp, random
    >>> net, key = mlp((3, 1)), random.key(0, backend="numpy")
    >>> params, x = net.init(key, (2,)), np.ones((4, 2), np.float32)
    >>> axes = loss_surface(Figure().subplots(), net, Quadratic(), params, x, np.zeros((4, 1)), key=key, steps=5)
    >>> axes.get_xlabel()
    'a, along the first direction'
    """
    _check_axes(axes)
    check_problem(net, loss)
    if (key is None) == (ends is None):
        raise ArgumentError("expected either a key, for random directions, or ends=(params, params)")
    if ends is not None:
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise KindError(f"ends: expected two trees of parameters, got {shorten(ends)}")
        for i, end in enumerate(ends):
            trees.same_structure(f"ends[{i}]", end, params)
    limits = limits if limits is not None else (-1, 1) if ends is None else (-0.5, 1.5)
    if np.shape(limits) != (2,):
        raise ShapeError(f"limits: expected a lower and an upper one, got {shorten(limits)}")
    low, high = (real("a limit", limit) for limit in limits)
    if not low < high:
        raise ArgumentError(f"limits: expected the lower one first, got {limits}")
    integer("steps", steps, least=2)
    x, y, _ = check_data(net, loss, params, (x, y))
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


# ---- what a network does ---------------------------------------------------------------------------------------------


def decision_regions(axes, net, loss, params, x, y):
    """Which class a network of two inputs predicts where, and the examples over it, a marker for each class.

    With one output the probability of class 1, with lines where it is 0.1, 0.5 and 0.9; class 1 is what is above 0.5.

    Arguments: `loss`, whose `predict` makes probabilities of the outputs; x (N, 2); y, labels (N,), 0 and 1 (N, 1), or
    a row for each example with its largest entry at the class (N, C).

    >>> from matplotlib.figure import Figure
    >>> from fnn import Dense, DenseParams, SoftmaxCrossEntropy
    >>> params = DenseParams(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2))
    >>> x, y = [[1.0, 0.0], [-1.0, 0.0]], [0, 1]
    >>> axes = decision_regions(Figure().subplots(), Dense(2), SoftmaxCrossEntropy(), params, x, y)
    >>> axes.images[0].get_array()[0, [0, -1]].tolist()  # on the left class 1, on the right class 0
    [1, 0]
    """
    _check_axes(axes)
    check_problem(net, loss)
    x = _in_the_plane(x)
    outputs = net.output_shape((2,))
    if len(outputs) != 1:
        raise ShapeError(f"net: expected outputs of shape (C,), got {outputs}")
    classes = max(outputs[0], 2)
    labels = _labels(y, len(x))
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"y: expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    across, up = (np.linspace(*_span(column), 200) for column in x.T)
    grid = np.stack(np.meshgrid(across, up), axis=-1)
    p = _numbers("prediction", loss.predict(net.apply(params, grid.reshape(-1, 2)))).reshape(200, 200, -1)
    finite("prediction", p)

    half = [(line[1] - line[0]) / 2 for line in (across, up)]
    extent = (across[0] - half[0], across[-1] + half[0], up[0] - half[1], up[-1] + half[1])
    how = {"origin": "lower", "extent": extent, "aspect": "auto", "interpolation": "nearest"}
    tints = [_tint(_color(k), (0.08, 0.28, 0.18)[k % 3]) for k in range(classes)]  # told apart in grey too
    maps = require("matplotlib.colors", "plots")
    if outputs == (1,):
        p = np.clip(p[..., 0], 0, 1)
        axes.imshow(p, cmap=maps.LinearSegmentedColormap.from_list("", tints), vmin=0, vmax=1, **how)
        lines = [(level, style) for level, style in ((0.1, ":"), (0.5, "-"), (0.9, ":")) if p.min() < level < p.max()]
        if lines:
            levels, styles = zip(*lines, strict=True)
            drawn = axes.contour(across, up, p, levels, colors="black", linestyles=styles, linewidths=1)
            axes.clabel(drawn, fmt="%g", fontsize="small")
    else:
        found = p.argmax(axis=-1)
        axes.imshow(found, cmap=maps.ListedColormap(tints), vmin=-0.5, vmax=classes - 0.5, **how)
        for k in np.unique(found):
            lead = p[..., k] - np.delete(p, k, axis=-1).max(axis=-1)
            if lead.min() < 0 < lead.max():
                axes.contour(across, up, lead, [0], colors="black", linewidths=1)
    _examples(axes, x, labels)
    axes.set(xlabel="input x₁", ylabel="input x₂", xlim=extent[:2], ylim=extent[2:])
    return axes


def hidden_plane(axes, net, params, x, y, *, layer=-2):
    """How a layer bends the plane of two inputs: a grid of straight lines, and the examples, carried up to it.

    Solid lines are of constant x₁, dashed ones of constant x₂. Of a layer of two units they are drawn by its outputs,
    of a wider one by the first two principal components of its outputs for the examples.

    Arguments: x (N, 2); y as for `decision_regions`; `layer`, an index into `fnn.diagnostics.layer_names`, by default
    the layer before the last, from whose outputs a last Dense layer has to separate the classes by straight lines.
    C. Olah, "Neural networks, manifolds, and topology" (2014).

    >>> from matplotlib.figure import Figure
    >>> from fnn import mlp, random
    >>> net = mlp((2, 2))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> hidden_plane(Figure().subplots(), net, params, [[0.0, 1.0], [1.0, 0.0]], [0, 1]).get_xlabel()
    'output of unit 1 of 1 Relu'
    """
    _check_axes(axes)
    check_problem(net)
    x = _in_the_plane(x)
    labels = _labels(y, len(x))
    low, high = np.transpose([_span(column) for column in x.T])
    upright = np.stack(np.meshgrid(np.linspace(0, 1, 15), np.linspace(0, 1, 201), indexing="ij"), axis=-1)
    grid = low + np.stack([upright, upright[..., ::-1]]) * (high - low)  # (2, 15 lines, 201 points, 2)
    found = _record(net, params, np.concatenate([x, grid.reshape(-1, 2)]))
    if integer("layer", layer, least=-len(found)) >= len(found):
        raise ArgumentError(f"layer: expected an index of {list(found)}, got {layer}")
    name, outputs = list(found.items())[layer]
    if outputs.shape[1] < 2:
        raise ShapeError(f"layer: expected one of two units or more, got {name} of {outputs.shape[1]}")
    finite(f"outputs of {name}", outputs)
    labels_of_axes = [f"output of unit {i} of {name}" for i in (1, 2)]
    if outputs.shape[1] > 2:
        outputs, shares = _principal(outputs, len(x))
        labels_of_axes = [f"{name}: component {i} ({100 * share:.0f} %)" for i, share in enumerate(shares, start=1)]

    carried = outputs[len(x) :].reshape(grid.shape)
    for lines, style, grey in zip(carried, ("-", (0, (4, 2))), ("0.5", "0.65"), strict=True):
        for line in lines:
            axes.plot(*line.T, linestyle=style, color=grey, linewidth=0.7)
    _examples(axes, outputs[: len(x)], labels)
    axes.set(xlabel=labels_of_axes[0], ylabel=labels_of_axes[1])
    return axes


def activations(axes, net, params, x):
    """What comes out of every layer: a histogram of its outputs over units and examples, the first layer on top.

    All share the axis of the outputs. Each is as high at its highest as the others. Outputs that are exactly 0, as half
    of a ReLU's are, are left out of it, and their share is written to the right.

    Arguments: x, the inputs of N examples; nothing is dropped out.

    >>> from matplotlib.figure import Figure
    >>> from fnn import mlp, random
    >>> net = mlp((8, 3))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> axes = activations(Figure().subplots(), net, params, [[1.0, 0.0], [0.0, 1.0]])
    >>> [label.get_text() for label in axes.get_yticklabels()], axes.texts[0].get_text()
    (['0 Dense', '1 Relu', '2 Dense'], '50 % are 0')
    """
    _check_axes(axes)
    check_problem(net)
    found = _record(net, params, x)
    for name, outputs in found.items():
        finite(f"outputs of {name}", outputs)
    ends = min(a.min() for a in found.values()), max(a.max() for a in found.values())
    edges = np.histogram_bin_edges([], 60, ends)

    rows = np.arange(len(found))[::-1]
    for row, outputs in zip(rows, found.values(), strict=True):
        counts = np.histogram(outputs[outputs != 0], edges)[0]
        heights = row + 0.8 * counts / max(counts.max(), 1)
        axes.stairs(heights, edges, baseline=row, fill=True, facecolor=COLORS[0], edgecolor="none", alpha=0.75)
        axes.axhline(row, color="black", linewidth=0.6)
        if zero := (outputs == 0).mean():
            right = axes.get_yaxis_transform()
            axes.text(1.02, row, f"{100 * zero:.0f} % are 0", transform=right, size="small", va="bottom")
    axes.set_yticks(rows, found, va="bottom", size="small")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="output of a unit", xlim=(edges[0], edges[-1]), ylim=(-0.1, len(rows)))
    return axes


def confusion(axes, matrix, *, classes=None):
    """A confusion matrix: how many examples of each class (row) were taken for which (column).

    The counts are written out, and the colour is the share in the row, so that the diagonal shows the recall.

    Arguments: `matrix` (C, C), as `fnn.confusion_matrix` gives; `classes`, names of the C classes, 0 to C − 1.

    >>> from matplotlib.figure import Figure
    >>> axes = confusion(Figure().subplots(), [[3, 1], [0, 4]], classes=["cat", "dog"])
    >>> [text.get_text() for text in axes.texts]
    ['3', '1', '0', '4']
    """
    _check_axes(axes)
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ShapeError(f"matrix: expected shape (C, C), got {counts.shape}")
    finite("matrix", _numbers("matrix", counts))
    if counts.min() < 0:
        raise DataError(f"matrix: expected numbers of at least 0, got {counts.min()}")
    names = list(range(len(counts)) if classes is None else classes)
    if len(names) != len(counts):
        raise ShapeError(f"classes: expected {len(counts)} names, got {len(names)}")

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    size = "small" if len(counts) <= 6 else "x-small"
    for (row, column), count in np.ndenumerate(counts):
        text = str(count) if counts.dtype.kind in "iu" else f"{count:.3g}"
        color = "white" if shares[row, column] < 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", color=color, size=size)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    _bar(axes, image, "share of the true class", [0, 0.5, 1], ["0", "0.5", "1"])
    return axes


# ---- a network itself ------------------------------------------------------------------------------------------------


def first_layer(axes, weights, *, shape=(28, 28)):
    """What the units of the first Dense layer look for: the weights of each as an image, row by row.

    One scale for all, from blue through grey at 0 to yellow, symmetric about 0; its limits stand beside it.

    Arguments: `weights` (units, inputs), or the parameters of a network, whose first Dense layer is taken; `shape`,
    (rows, columns) of an image of so many inputs, (28, 28) by default.

    >>> from matplotlib.figure import Figure
    >>> axes = first_layer(Figure().subplots(), np.eye(4), shape=(2, 2))
    >>> axes.images[0].get_array().shape, axes.images[0].get_clim()  # 2 x 2 tiles, and a line between them
    ((5, 5), (-1.0, 1.0))
    """
    _check_axes(axes)
    if not hasattr(weights, "ndim"):
        of_dense = [p for p in trees.leaves(weights, is_leaf=_is_dense) if _is_dense(p)]
        if not of_dense:
            raise KindError(f"weights: expected (units, inputs), or parameters with a Dense, got {shorten(weights)}")
        weights = of_dense[0].w
    w = _numbers("weights", weights)
    sides = sizes("shape", shape)
    if len(sides) != 2:
        raise ShapeError(f"shape: expected (rows, columns) of an image, got {sides}")
    height, width = sides
    if w.ndim != 2 or w.shape[1] != height * width or not len(w):
        raise ShapeError(f"weights: expected (units, {height} · {width}), got {w.shape}; shape is that of an image")
    finite("weights", w)

    columns = math.ceil(math.sqrt(len(w) * height / width))
    rows = -(-len(w) // columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan)
    tiles[: len(w), :-1, :-1] = w.reshape(-1, height, width)
    tiles = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2).reshape(rows * (height + 1), -1)
    limit = abs(w).max() or 1.0
    image = axes.imshow(np.ma.masked_invalid(tiles[:-1, :-1]), cmap="cividis", vmin=-limit, vmax=limit)
    axes.set_axis_off()
    _bar(axes, image, "weight", [-limit, 0, limit], [f"−{limit:.2g}", "0", f"{limit:.2g}"])
    return axes


def network(axes, net, input_shape, params=None, *, most=8):
    """A diagram of a network: a column of units for the input and for each layer of its own, lines for weights.

    Lines of positive weights are solid, those of negative ones dashed, and the width is the weight's size over the
    largest that is shown. Of more than `most` units the first and the last are shown; how many there are is above. A
    layer that keeps the number of units stands below the one whose outputs it takes. A skip connection is an arc. What
    is no Dense layer and has another number of outputs, or branches (`Parallel`), has grey lines from all to all.
    Biases are not shown.

    Arguments: `input_shape` without the batch axis; `params` of the network, without which all lines are alike;
    `most`, 8 by default, at least 3.

    >>> from matplotlib.figure import Figure
    >>> from fnn import mlp
    >>> axes = network(Figure().subplots(), mlp((3, 1)), (2,))
    >>> [len(lines.get_segments()) for lines in axes.collections]  # 2 · 3 and 3 · 1
    [6, 3]
    """
    _check_axes(axes)
    check_problem(net)
    integer("most", most, least=3)
    expected = parameter_shapes(net, input_shape)
    if params is not None:
        trees.same_structure("params", params, expected)
    columns, skips = [(["input"], math.prod(input_shape), None)], []
    _lay_out(columns, skips, net, expected if params is None else params, tuple(input_shape))
    places = [_places(size, most) for _, size, _ in columns]
    shown = []
    for (units, _), (_, _, w), (inputs, _) in zip(places[1:], columns[1:], places[:-1], strict=True):
        known = params is not None and w is not None
        shown.append(_numbers("w", w)[np.ix_(units, inputs)] if known else None)
    largest = max((abs(w).max() for w in shown if w is not None), default=0) or 1.0

    wide = 1.6 * max(len(heights) for _, heights in places) / len(columns)  # from column to column; units are 1 apart
    of_lines = require("matplotlib.collections", "plots")
    for i, w in enumerate(shown):
        (_, below), (_, above) = places[i : i + 2]
        lines = [[(i * wide, b), ((i + 1) * wide, a)] for a in above for b in below]
        if w is None:
            how = {"colors": "0.6", "linewidths": 0.5}
        else:
            widths, minus = 2 * abs(w.ravel()) / largest, w.ravel() < 0
            how = {"colors": np.where(minus, COLORS[1], COLORS[0]).tolist(), "linewidths": widths}
            how["linestyles"] = ["--" if m else "-" for m in minus]
        axes.add_collection(of_lines.LineCollection(lines, zorder=1, **how))
    top, bottom = max(h[0] for _, h in places), min(h[-1] for _, h in places)
    for i, ((names, size, _), (units, heights)) in enumerate(zip(columns, places, strict=True)):
        axes.plot(
            [i * wide] * len(heights), heights, "o", color="white", markeredgecolor="black", markersize=8, zorder=2
        )
        if size > len(units):
            axes.text(i * wide, (heights[-1] + heights[-2]) / 2, "⋮", ha="center", va="center", zorder=2)
        axes.text(i * wide, heights[0] + 0.6, str(size), ha="center", va="bottom", size="small")
        axes.text(i * wide, bottom - 0.7, "\n".join(names), ha="center", va="top", size="small")
    for start, end in skips:
        how = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.3", "linestyle": ":", "shrinkA": 9, "shrinkB": 9}
        axes.annotate("", (end * wide, places[end][1][0]), (start * wide, places[start][1][0]), arrowprops=how)
    deep = max(len(names) for names, *_ in columns)
    if params is not None:
        axes.set_title(f"weights: solid > 0, dashed < 0, widest {largest:.2g}", size="small")
    axes.set(xlim=(-0.6 * wide, (len(columns) - 0.4) * wide), ylim=(bottom - 1 - deep, top + 1.6 + 1.2 * bool(skips)))
    axes.set_axis_off()
    return axes


# ---- what they share -------------------------------------------------------------------------------------------------


def _check_axes(axes):
    if not isinstance(axes, require("matplotlib.axes", "plots").Axes):
        raise KindError(f"axes: expected an Axes of matplotlib, such as Figure().subplots() gives, got {shorten(axes)}")


def _numbers(name, array):
    """Any array of numbers in float64, on NumPy; JAX's bfloat16 too."""
    try:
        return np.asarray(array).astype(np.float64)
    except (TypeError, ValueError):
        raise KindError(f"{name}: expected an array of numbers, got {shorten(array)}") from None


def _in_the_plane(x):
    x = _numbers("x", x)
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise ShapeError(f"x: expected examples of two inputs, shape (N, 2), got {x.shape}")
    finite("x", x)
    return x


def _labels(y, n):
    """Labels (n,) of whatever says which class an example is of."""
    y = _numbers("y", y)
    if y.shape[:1] != (n,) or y.ndim > 2 or not y.size:
        raise ShapeError(f"y: expected labels ({n},), or a row for each example, got shape {y.shape}")
    finite("y", y)
    if y.ndim == 2:
        return y.argmax(axis=1) if y.shape[1] > 1 else (y[:, 0] > 0.5).astype(int)
    if (y % 1 != 0).any():
        raise DataError(f"y: expected labels, whole numbers, got {y[(y % 1 != 0).argmax()]}")
    return y.astype(int)


def _span(values):
    """From the least to the largest, and a tenth of the way beyond."""
    margin = 0.1 * np.ptp(values) or 1.0
    return values.min() - margin, values.max() + margin


def _record(net, params, x):
    """The outputs (N, units) of every layer that is no composition, by its name in `layer_names`."""
    params, x = enter(params, x)
    if not len(x):
        raise ShapeError("x: expected at least one example, got none")
    rows = walk(net, params, x.shape[1:], net.record(params, x)[2])
    return {
        f"{place} {type(layer).__name__}".lstrip(): _numbers(place, trees.leaves(outputs)[-1]).reshape(len(x), -1)
        for place, layer, _, _, outputs in rows
        if not isinstance(layer, Composition)
    }


def _principal(outputs, n):
    """Outputs along the first two principal components of the first n of them, and their shares of the variance."""
    centred = outputs - outputs[:n].mean(axis=0)
    variances, vectors = np.linalg.eigh(centred[:n].T @ centred[:n])
    first = vectors[:, [-1, -2]]
    first = first * np.sign(first[abs(first).argmax(axis=0), [0, 1]])  # of either sign: the same one everywhere
    return centred @ first, variances[[-1, -2]].clip(0) / max(variances.sum(), np.finfo(float).tiny)


def _direction(key, params):
    """A random direction in which each unit's weights, a row, are as long as they are in the parameters."""
    key = random.fold_in(key, 2**32 - 1)  # the key that made the parameters makes other numbers here
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
    """The mean cost at each of several places (a, b) of the plane, NumPy."""
    xp = namespace(*trees.leaves(params))

    def cost(place):
        moved = trees.map(lambda p, d, e: p + (place[0] * d + place[1] * e).astype(p.dtype), params, first, second)
        return predict(moved, x, y, None, net=net, loss=loss)[1]

    return _numbers("costs", sweep(cost, xp.asarray(places, dtype=np.float32), chunk=chunk))


def _contours(axes, along, surface):
    """Filled contours of a surface with logarithmic levels, and lines with their values."""
    low, high = surface.min(), surface.max()
    if not high > low:  # the same everywhere, or nowhere finite
        return
    logarithmic = low > 0
    levels = np.geomspace(low, high, 11) if logarithmic else np.linspace(low, high, 11)
    shades = require("matplotlib.colors", "plots")
    norm = shades.LogNorm(low, high) if logarithmic else shades.Normalize(low, high)
    axes.contourf(along, along, surface, levels, cmap="cividis", norm=norm, extend="both")
    lines = axes.contour(along, along, surface, levels[1:-1], colors="black", linewidths=0.5)
    axes.clabel(lines, levels[5:-1:2], fmt="%.2g", fontsize="small", colors="black")  # not near the lowest: crowded


def _lay_out(columns, skips, layer, params, input_shape):
    """The columns `(names, units, weights)` that a layer adds, and the skip connections between them."""
    if isinstance(layer, Serial | Frozen | Residual):
        start = len(columns) - 1
        for part in layer.parts(params, input_shape):
            _lay_out(columns, skips, *part)
        if isinstance(layer, Residual):
            skips.append((start, len(columns) - 1))
        return
    name, size = type(layer).__name__, math.prod(layer.output_shape(input_shape))
    if isinstance(layer, Dense):
        columns.append(([name], size, params.w))
    elif size != columns[-1][1] or isinstance(layer, Composition):
        columns.append(([name], size, None))
    else:
        columns[-1][0].append(name)


def _places(size, most):
    """Which units of a layer are shown, and how high each stands; a gap before the last where some are left out."""
    slots = np.arange(min(size, most))
    heights = (len(slots) - 1) / 2 - slots
    if size <= most:
        return slots, heights
    keep = np.delete(slots, -2)
    return np.append(keep[:-1], size - 1), heights[keep]


def _is_dense(node):
    return isinstance(node, DenseParams)


def _open(axes):
    """No frame above and to the right, where the labels stand."""
    axes.spines[["top", "right"]].set_visible(False)


def _decades(axes):
    """A logarithmic axis from one power of ten to another, labelled at these."""
    low, high = axes.get_ylim()
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    axes.yaxis.set_minor_formatter("")


def _drawable(values):
    """What has a place on a logarithmic axis."""
    return np.isfinite(values) & (values > 0)


def _color(i):
    return COLORS[i % len(COLORS)]


def _tint(color, strength):
    """A colour mixed with white."""
    rgb = np.array(require("matplotlib.colors", "plots").to_rgb(color))
    return tuple(1 - strength * (1 - rgb))


def _bar(axes, image, label, ticks, names):
    """A scale as high as the image, whatever the layout."""
    beside = axes.inset_axes((1.04, 0, 0.05, 1))
    axes.figure.colorbar(image, cax=beside, label=label, ticks=ticks).ax.set_yticklabels(names, size="small")


def _cividis(values):
    return require("matplotlib", "plots").colormaps["cividis"](values)


def _examples(axes, points, labels):
    """Points in the plane, a marker and a colour for each class, named above."""
    for k in np.unique(labels):
        marker = MARKERS[k % len(MARKERS)]
        how = {"color": _color(k), "markeredgecolor": "black", "markeredgewidth": 0.4, "markersize": 4}
        axes.plot(*points[labels == k].T, marker, label=f"class {k}", **how)
    where = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1, "handletextpad": 0.1}
    axes.legend(ncols=4, fontsize="small", frameon=False, columnspacing=0.8, **where)


def _label_ends(axes, curves):
    """A label beside the last point of each curve `(x, y, label, color)`, as near to it as the others let it be."""
    ends = []
    for x, y, label, color in curves:
        has = np.flatnonzero(np.isfinite(y))
        if label and len(has):
            ends.append((x[has[-1]], y[has[-1]], label, color))
    if not ends:
        return
    to_rgb = require("matplotlib.colors", "plots").to_rgb
    axes.get_ylim()  # brings the scale up to date with what was drawn
    heights = axes.transData.transform([(x, y) for x, y, *_ in ends])[:, 1] * 72 / axes.figure.dpi
    gap = 1.2 * require("matplotlib", "plots").rcParams["font.size"]  # points: the labels are a little smaller
    order = np.argsort(heights, kind="stable")
    # The least squares of the moves, with a gap at least between neighbours: pool those that are too near.
    pools: list = []
    for i, height in enumerate(heights[order]):
        pools.append([height - gap * i, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (above, m), (below, n) = pools.pop(), pools.pop()
            pools.append([(m * above + n * below) / (m + n), m + n])
    placed = np.repeat([mean for mean, _ in pools], [count for _, count in pools]) + gap * np.arange(len(ends))
    placed = np.maximum(placed, axes.bbox.y0 * 72 / axes.figure.dpi + gap * np.arange(0.5, len(ends)))
    moves = placed[np.argsort(order)] - heights
    far = abs(moves) > gap / 2
    for (x, y, label, color), move, with_line in zip(ends, moves, far, strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        dark = tuple(0.75 * part for part in to_rgb(color))  # so that letters of a light colour can be read
        how = {"color": dark, "size": "small", "va": "center", "arrowprops": line if with_line else None}
        axes.annotate(label, (x, y), (14 if far.any() else 5, move), textcoords="offset points", **how)
