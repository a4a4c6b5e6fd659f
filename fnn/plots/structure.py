"""Figures of a network itself: its first weights as images, and a diagram of the whole."""

import math
from typing import Any

import numpy as np

from .. import gate, trees
from ..composition import Composition, over_parts
from ..errors import KindError, ShapeError, integer, require, shorten
from ..errors import shape as sizes
from ..gate import finite
from ..layers import Dense, DenseParams, Layer
from ..networks import Frozen, Residual, Serial
from ..overview import outline
from .common import COLORS, check_axes, numbers, tiles


def first_layer(axes: Any, weights: Any, *, shape: tuple[int, ...] = (28, 28)) -> Any:
    """Draw what the units of the first layer respond to: the weights of each unit as an image.

    For a `Conv` of several input channels each row of images is a unit, and each column a channel.

    All images share one scale, from blue through grey at 0 to yellow, symmetric about 0; its limits are written beside
    it.

    Args:
        axes: an Axes of matplotlib.
        weights: (units, inputs) of a Dense layer or (units, rows, columns, channels) of a Conv, or the parameters of a
            network, whose first Dense or Conv is drawn.
        shape: (rows, columns) of the images, for a Dense layer. Default: (28, 28).

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> axes = first_layer(Figure().subplots(), np.eye(4), shape=(2, 2))
    >>> axes.images[0].get_array().shape, axes.images[0].get_clim()  # 2 x 2 tiles, and a line between them
    ((5, 5), (-1.0, 1.0))
    """
    check_axes(axes)
    if not hasattr(weights, "ndim"):
        of_dense = [p for p in trees.leaves(weights, is_leaf=_is_dense) if _is_dense(p)]
        if not of_dense:
            raise KindError(f"weights: expected (units, inputs), or parameters with a Dense, got {shorten(weights)}")
        weights = of_dense[0].w
    w = numbers("weights", weights)
    if w.ndim == 4 and w.size:
        finite("weights", w)
        channels = w.shape[-1]
        images = np.moveaxis(w, -1, 1).reshape(-1, *w.shape[1:3])
        return tiles(axes, images, "weight", columns=None if channels == 1 else channels, signed=True)
    sides = sizes("shape", shape)
    if len(sides) != 2:
        raise ShapeError(f"shape: expected (rows, columns) of an image, got {sides}")
    height, width = sides
    if w.ndim != 2 or w.shape[1] != height * width or not len(w):
        raise ShapeError(f"weights: expected (units, {height} · {width}), got {w.shape}; shape is that of an image")
    finite("weights", w)
    return tiles(axes, w.reshape(-1, height, width), "weight", signed=True)


def network(axes: Any, net: Layer, input_shape: Any, params: Any = None, *, most: int = 8) -> Any:
    """Draw a diagram of a network, with a column of units for the input and each layer, and lines for the weights.

    Lines are solid for positive weights and dashed for negative ones, and their width is the weight's magnitude
    relative to the largest one shown. If a layer has more than `most` units, only the first ones and the last are
    drawn; the number of units is written above. A layer that keeps the number of units is named below the one that
    feeds it, and a skip connection is an arc. Layers other than Dense that change the number of outputs, and branches
    (`Parallel`), have grey lines from all units to all. Biases are not shown.

    Args:
        axes: an Axes of matplotlib.
        net: the network.
        input_shape: the shape of an example, without the batch axis.
        params: the parameters of the network; without them all lines look alike. Default: None.
        most: the maximum number of units drawn per layer, at least 3. Default: 8.

    Returns:
        The Axes.

    >>> from matplotlib.figure import Figure
    >>> from fnn import mlp
    >>> axes = network(Figure().subplots(), mlp((3, 1)), (2,))
    >>> [len(lines.get_segments()) for lines in axes.collections]  # 2 · 3 and 3 · 1
    [6, 3]
    """
    check_axes(axes)
    gate.check_network(net)
    integer("most", most, least=3)
    expected, recorded = outline(net, input_shape)
    if params is not None:
        trees.same_structure("params", params, expected)
    columns, skips = [(["input"], math.prod(input_shape), None)], []
    _lay_out(columns, skips, net, expected if params is None else params, recorded)
    places = [_places(size, most) for _, size, _ in columns]
    shown = []
    for (units, _), (_, _, w), (inputs, _) in zip(places[1:], columns[1:], places[:-1], strict=True):
        known = params is not None and w is not None
        shown.append(numbers("w", w)[np.ix_(units, inputs)] if known else None)
    largest = max((abs(w).max() for w in shown if w is not None), default=0) or 1.0

    wide = 1.6 * max(len(heights) for _, heights in places) / len(columns)  # distance of the columns; units are 1 apart
    of_lines = require("matplotlib.collections", "plots")
    for i, w in enumerate(shown):
        (_, below), (_, above) = places[i : i + 2]
        lines = [[(i * wide, b), ((i + 1) * wide, a)] for a in above for b in below]
        if w is None:
            style = {"colors": "0.6", "linewidths": 0.5}
        else:
            widths, minus = 2 * abs(w.ravel()) / largest, w.ravel() < 0
            style = {"colors": np.where(minus, COLORS[1], COLORS[0]).tolist(), "linewidths": widths}
            style["linestyles"] = ["--" if m else "-" for m in minus]
        axes.add_collection(of_lines.LineCollection(lines, zorder=1, **style))
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
        style = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.3", "linestyle": ":", "shrinkA": 9, "shrinkB": 9}
        axes.annotate("", (end * wide, places[end][1][0]), (start * wide, places[start][1][0]), arrowprops=style)
    deep = max(len(names) for names, *_ in columns)
    if params is not None:
        axes.set_title(f"weights: solid > 0, dashed < 0, widest {largest:.2g}", size="small")
    axes.set(xlim=(-0.6 * wide, (len(columns) - 0.4) * wide), ylim=(bottom - 1 - deep, top + 1.6 + 1.2 * bool(skips)))
    axes.set_axis_off()
    return axes


def _lay_out(columns, skips, layer, params, recorded):
    """Append the columns `(names, units, weights)` of a layer, and the skip connections between them."""
    if isinstance(layer, Serial | Frozen | Residual):
        start = len(columns) - 1
        over_parts(lambda *part: _lay_out(columns, skips, *part), layer, params, recorded)
        if isinstance(layer, Residual):
            skips.append((start, len(columns) - 1))
        return
    name, size = type(layer).__name__, math.prod(recorded.output.shape[1:])
    if isinstance(layer, Dense):
        columns.append(([name], size, params.w))
    elif size != columns[-1][1] or isinstance(layer, Composition):
        columns.append(([name], size, None))
    else:
        columns[-1][0].append(name)


def _places(size, most):
    """Which units of a layer are drawn, and at what height; with a gap before the last if some are left out."""
    slots = np.arange(min(size, most))
    heights = (len(slots) - 1) / 2 - slots
    if size <= most:
        return slots, heights
    keep = np.delete(slots, -2)
    return np.append(keep[:-1], size - 1), heights[keep]


def _is_dense(node):
    return isinstance(node, DenseParams)
