"""Figures of what a network computes: decision regions, hidden representations, outputs and confusions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import gate
from ..backpropagation import check_problem
from ..calibration import Reliability
from ..checks import finite
from ..composition import Composition, forward_recorded, walk
from ..errors import ArgumentError, DataError, KindError, ShapeError, integer, require, shorten, usage
from ..layers import Layer
from ..losses import Loss
from .common import COLORS, MARKERS, STYLES, check_axes, color_of, no_frame, numbers, scale_beside, tint


@usage("fnn.plots.decision_regions(axes, net, loss, params, x, y)")
def decision_regions(axes: Any, net: Layer, loss: Loss, params: Any, x: Any, y: Any) -> Any:
    """Draw the class that a network of two inputs predicts at each point, with the examples on top.

    Each class has its own marker. A network with one output is drawn by its probability of class 1, with lines at 0.1,
    0.5 and 0.9; examples above 0.5 belong to class 1.

    Args:
        axes: an Axes of matplotlib.
        net: a network with inputs (N, 2).
        loss: the cost, whose `predict` turns outputs into probabilities.
        params: the parameters of the network.
        x: the examples (N, 2).
        y: labels (N,); or 0 and 1, (N, 1); or (N, C), with the largest entry of each row at the class.

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> from fnn import Dense, DenseParams, SoftmaxCrossEntropy
    >>> params = DenseParams(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2))
    >>> x, y = [[1.0, 0.0], [-1.0, 0.0]], [0, 1]
    >>> axes = decision_regions(Figure().subplots(), Dense(2), SoftmaxCrossEntropy(), params, x, y)
    >>> axes.images[0].get_array()[0, [0, -1]].tolist()  # on the left class 1, on the right class 0
    [1, 0]
    """
    check_axes(axes)
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
    p = numbers("prediction", loss.predict(net.apply(params, grid.reshape(-1, 2)))).reshape(200, 200, -1)
    finite("prediction", p)

    half = [(line[1] - line[0]) / 2 for line in (across, up)]
    extent = (across[0] - half[0], across[-1] + half[0], up[0] - half[1], up[-1] + half[1])
    style = {"origin": "lower", "extent": extent, "aspect": "auto", "interpolation": "nearest"}
    tints = [tint(color_of(k), (0.08, 0.28, 0.18)[k % 3]) for k in range(classes)]  # distinguishable in grey too
    maps = require("matplotlib.colors", "plots")
    if outputs == (1,):
        p = np.clip(p[..., 0], 0, 1)
        axes.imshow(p, cmap=maps.LinearSegmentedColormap.from_list("", tints), vmin=0, vmax=1, **style)
        lines = [(level, style) for level, style in ((0.1, ":"), (0.5, "-"), (0.9, ":")) if p.min() < level < p.max()]
        if lines:
            levels, styles = zip(*lines, strict=True)
            drawn = axes.contour(across, up, p, levels, colors="black", linestyles=styles, linewidths=1)
            axes.clabel(drawn, fmt="%g", fontsize="small")
    else:
        predicted = p.argmax(axis=-1)
        axes.imshow(predicted, cmap=maps.ListedColormap(tints), vmin=-0.5, vmax=classes - 0.5, **style)
        for k in np.unique(predicted):
            lead = p[..., k] - np.delete(p, k, axis=-1).max(axis=-1)
            if lead.min() < 0 < lead.max():
                axes.contour(across, up, lead, [0], colors="black", linewidths=1)
    _examples(axes, x, labels)
    axes.set(xlabel="input x₁", ylabel="input x₂", xlim=extent[:2], ylim=extent[2:])
    return axes


@usage("fnn.plots.hidden_plane(axes, net, params, x, y)")
def hidden_plane(axes: Any, net: Layer, params: Any, x: Any, y: Any, *, layer: int = -2) -> Any:
    """Draw how a layer bends the plane of two inputs: a grid of straight lines and the examples, mapped to its outputs.

    Solid lines have constant x₁, dashed ones constant x₂. For a layer of two units the axes are its outputs; for a
    wider one, the first two principal components (PC) of its outputs for the examples.

    Args:
        axes: an Axes of matplotlib.
        net: a network with inputs (N, 2).
        params: the parameters of the network.
        x: the examples (N, 2).
        y: as for `decision_regions`.
        layer: an index into `fnn.diagnostics.layer_names`. Default: −2, the layer before the last, in whose outputs a
            final Dense layer has to separate the classes by straight lines.

    Returns:
        The Axes.

    Source: C. Olah, "Neural networks, manifolds, and topology" (2014).

    >>> from matplotlib.figure import Figure
    >>> from fnn import mlp, random
    >>> net = mlp((2, 2))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> hidden_plane(Figure().subplots(), net, params, [[0.0, 1.0], [1.0, 0.0]], [0, 1]).get_xlabel()
    'output of unit 1 of 1 Relu'
    """
    check_axes(axes)
    gate.check_network(net)
    x = _in_the_plane(x)
    labels = _labels(y, len(x))
    low, high = np.transpose([_span(column) for column in x.T])
    upright = np.stack(np.meshgrid(np.linspace(0, 1, 15), np.linspace(0, 1, 201), indexing="ij"), axis=-1)
    grid = low + np.stack([upright, upright[..., ::-1]]) * (high - low)  # (2, 15 lines, 201 points, 2)
    recorded = _record(net, params, np.concatenate([x, grid.reshape(-1, 2)]))
    if integer("layer", layer, least=-len(recorded)) >= len(recorded):
        raise ArgumentError(f"layer: expected an index of {list(recorded)}, got {layer}")
    name, outputs = list(recorded.items())[layer]
    if outputs.shape[1] < 2:
        raise ShapeError(f"layer: expected one of two units or more, got {name} of {outputs.shape[1]}")
    finite(f"outputs of {name}", outputs)
    labels_of_axes = [f"output of unit {i} of {name}" for i in (1, 2)]
    if outputs.shape[1] > 2:
        outputs, shares = _principal(outputs, len(x))
        labels_of_axes = [f"{name}: PC {i} ({100 * share:.0f} %)" for i, share in enumerate(shares, start=1)]

    carried = outputs[len(x) :].reshape(grid.shape)
    for lines, style, grey in zip(carried, ("-", (0, (4, 2))), ("0.5", "0.65"), strict=True):
        for line in lines:
            axes.plot(*line.T, linestyle=style, color=grey, linewidth=0.7)
    _examples(axes, outputs[: len(x)], labels)
    axes.set(xlabel=labels_of_axes[0], ylabel=labels_of_axes[1])
    return axes


@usage("fnn.plots.activations(axes, net, params, x)")
def activations(axes: Any, net: Layer, params: Any, x: Any) -> Any:
    """Draw a histogram of the outputs of every layer, over units and examples, with the first layer on top.

    The histograms share the horizontal axis and are scaled to the same height. Outputs that are exactly 0, as half of a
    ReLU's are, are left out, and their share is written to the right.

    Args:
        axes: an Axes of matplotlib.
        net: the network, evaluated without dropout.
        params: the parameters of the network.
        x: the inputs of N examples.

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> from fnn import mlp, random
    >>> net = mlp((8, 3))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> axes = activations(Figure().subplots(), net, params, [[1.0, 0.0], [0.0, 1.0]])
    >>> [label.get_text() for label in axes.get_yticklabels()], axes.texts[0].get_text()
    (['0 Dense', '1 Relu', '2 Dense'], '50 % are 0')
    """
    check_axes(axes)
    gate.check_network(net)
    recorded = _record(net, params, x)
    for name, outputs in recorded.items():
        finite(f"outputs of {name}", outputs)
    ends = min(a.min() for a in recorded.values()), max(a.max() for a in recorded.values())
    edges = np.histogram_bin_edges([], 60, ends)

    rows = np.arange(len(recorded))[::-1]
    for row, outputs in zip(rows, recorded.values(), strict=True):
        counts = np.histogram(outputs[outputs != 0], edges)[0]
        heights = row + 0.8 * counts / max(counts.max(), 1)
        axes.stairs(heights, edges, baseline=row, fill=True, facecolor=COLORS[0], edgecolor="none", alpha=0.75)
        axes.axhline(row, color="black", linewidth=0.6)
        if zero := (outputs == 0).mean():
            right = axes.get_yaxis_transform()
            axes.text(1.02, row, f"{100 * zero:.0f} % are 0", transform=right, size="small", va="bottom")
    axes.set_yticks(rows, recorded, va="bottom", size="small")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="output of a unit", xlim=(edges[0], edges[-1]), ylim=(-0.1, len(rows)))
    return axes


@usage("fnn.plots.confusion(axes, fnn.confusion_matrix(predictions, y))")
def confusion(axes: Any, matrix: Any, *, classes: Any = None) -> Any:
    """Draw a confusion matrix: the number of examples of each true class (row) and predicted class (column).

    The numbers are the counts, and the colour is the share in the row, so that the diagonal shows the recall.

    Args:
        axes: an Axes of matplotlib.
        matrix: (C, C), as returned by `fnn.confusion_matrix`.
        classes: the names of the C classes. Default: 0 to C − 1.

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> axes = confusion(Figure().subplots(), [[3, 1], [0, 4]], classes=["cat", "dog"])
    >>> [text.get_text() for text in axes.texts]
    ['3', '1', '0', '4']
    """
    check_axes(axes)
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ShapeError(f"matrix: expected shape (C, C), got {counts.shape}")
    finite("matrix", numbers("matrix", counts))
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
    scale_beside(axes, image, "share of the true class", [0, 0.5, 1], ["0", "0.5", "1"])
    return axes


@usage("fnn.plots.reliability(axes, fnn.reliability(probabilities, y))")
def reliability(axes: Any, curves: Any) -> Any:
    """Draw a reliability diagram: the accuracy in each bin of confidence; on the diagonal a network is calibrated.

    Below the diagonal it is surer than it is right. A label has the expected calibration error, Σ share |accuracy −
    confidence|. The area of a marker is the share of the examples in its bin.

    Args:
        axes: an Axes of matplotlib.
        curves: what `fnn.reliability` returns, or a dict of such by label.

    Returns:
        The Axes.

    >>> from fnn import reliability as bins_of
    >>> from matplotlib.figure import Figure
    >>> found = bins_of(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, 1]), bins=2)
    >>> axes = reliability(Figure().subplots(), {"point estimate": found})
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['calibrated', 'point estimate: ECE 0.100']
    """
    check_axes(axes)
    named = curves if isinstance(curves, Mapping) else {"": curves}
    if not named or not all(isinstance(curve, Reliability) for curve in named.values()):
        raise KindError(f"curves: expected what fnn.reliability returns, or a dict of such, got {shorten(curves)}")
    axes.plot([0, 1], [0, 1], ":", color="0.4", linewidth=1, label="calibrated")
    for i, (label, curve) in enumerate(named.items()):
        share, confidence, accuracy = (numbers(label or "curves", array) for array in curve)
        some = share > 0
        error = (share * abs(accuracy - confidence))[some].sum()
        name = f"{label}: ECE {error:.3f}" if label else f"ECE {error:.3f}"
        options = {"color": color_of(i), "label": name, "linewidth": 1, "linestyle": STYLES[i % len(STYLES)]}
        axes.plot(confidence[some], accuracy[some], **options)
        marks = {"color": color_of(i), "marker": MARKERS[i % len(MARKERS)], "alpha": 0.7}
        axes.scatter(confidence[some], accuracy[some], 8 + 150 * share[some], **marks)
    axes.set(xlabel="confidence", ylabel="accuracy")
    axes.legend(frameon=False, fontsize="small")
    no_frame(axes)
    return axes


def _in_the_plane(x):
    x = numbers("x", x)
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise ShapeError(f"x: expected examples of two inputs, shape (N, 2), got {x.shape}")
    finite("x", x)
    return x


def _labels(y, n):
    """Labels (n,) from any of the forms in which classes may be given."""
    y = numbers("y", y)
    if y.shape[:1] != (n,) or y.ndim > 2 or not y.size:
        raise ShapeError(f"y: expected labels ({n},), or a row for each example, got shape {y.shape}")
    finite("y", y)
    if y.ndim == 2:
        return y.argmax(axis=1) if y.shape[1] > 1 else (y[:, 0] > 0.5).astype(int)
    if (y % 1 != 0).any():
        raise DataError(f"y: expected labels, whole numbers, got {y[(y % 1 != 0).argmax()]}")
    return y.astype(int)


def _span(values):
    """The range of the values, extended by a tenth at both ends."""
    margin = 0.1 * np.ptp(values) or 1.0
    return values.min() - margin, values.max() + margin


def _record(net, params, x):
    """The outputs (N, units) of every layer that is not a composition, by its name in `layer_names`."""
    params, x = gate.inputs(net, params, x)
    if not len(x):
        raise ShapeError("x: expected at least one example, got none")
    return {
        f"{place} {type(layer).__name__}".lstrip(): numbers(place, outputs).reshape(len(x), -1)
        for place, layer, outputs in walk(net, forward_recorded(net, params, x)[2])
        if not isinstance(layer, Composition)
    }


def _principal(outputs, n):
    """Outputs along the first two principal components of the first n of them, and their shares of the variance."""
    centred = outputs - outputs[:n].mean(axis=0)
    variances, vectors = np.linalg.eigh(centred[:n].T @ centred[:n])
    first = vectors[:, [-1, -2]]
    first = first * np.sign(first[abs(first).argmax(axis=0), [0, 1]])  # fix the sign, which is arbitrary
    return centred @ first, variances[[-1, -2]].clip(0) / max(variances.sum(), np.finfo(float).tiny)


def _examples(axes, points, labels):
    """Draw points with a marker and a colour for each class, and a legend above."""
    for k in np.unique(labels):
        marker = MARKERS[k % len(MARKERS)]
        style = {"color": color_of(k), "markeredgecolor": "black", "markeredgewidth": 0.4, "markersize": 4}
        axes.plot(*points[labels == k].T, marker, label=f"class {k}", **style)
    where = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1, "handletextpad": 0.1}
    axes.legend(ncols=4, fontsize="small", frameon=False, columnspacing=0.8, **where)
