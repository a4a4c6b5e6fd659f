"""Figures of a network itself: its first weights as images, and a diagram of the whole."""

from typing import Any, NamedTuple

import numpy as np

from .. import gate, trees
from ..checks import finite
from ..composition import Composition, over_parts, walk
from ..errors import KindError, ShapeError, integer, require, shorten, usage
from ..errors import shape as sizes
from ..layers import Conv, Dense, DenseParams, Embedding, Flatten, Layer, Recurrent
from ..networks import Frozen, Residual, Serial
from ..overview import outline
from ..remat import Remat
from ..sequences import Last
from .common import COLORS, check_axes, numbers, tiles


@usage("fnn.plots.first_layer(axes, params)")
def first_layer(axes: Any, weights: Any, *, shape: tuple[int, ...] = (28, 28)) -> Any:
    """Draw what the units of the first layer respond to: the weights of each unit as an image.

    For a `Conv` of several input channels each row of images is a unit, and each column a channel. A `Conv` over
    sequences has one image for each unit, with a row for each channel and a column for each position.

    All images share one scale, from blue through grey at 0 to yellow, symmetric about 0; its limits are written beside
    it.

    Args:
        axes: an Axes of matplotlib.
        weights: (units, inputs) of a Dense layer, (units, rows, columns, channels) or (units, positions, channels) of a
            Conv, or the parameters of a network, whose first Dense or Conv is drawn.
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
    if w.ndim in (3, 4) and w.size:
        finite("weights", w)
        if w.ndim == 3:
            return tiles(axes, w.swapaxes(1, 2), "weight", signed=True)
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


class _Column(NamedTuple):
    """A column of units: the names below it, its shape, (*positions, units), and how the column before feeds it.

    `w` (units, inputs) are weights, or None where there are none to show, and `linked` where there is a line, None for
    everywhere. `loops` says whether the column also feeds itself.
    """

    names: list[str]
    shape: tuple[int, ...]
    w: Any = None
    linked: Any = None
    loops: bool = False

    @property
    def units(self):
        return self.shape[-1] if self.shape else 1


@usage("fnn.plots.network(axes, net, input_shape)")
def network(axes: Any, net: Layer, input_shape: Any, params: Any = None, *, most: int = 8) -> Any:
    """Draw a diagram of a network, with a column of units for the input and each layer, and lines for the weights.

    Lines are solid for positive weights and dashed for negative ones, and their width is the weight's magnitude
    relative to the largest one shown. If a layer has more than `most` units, only the first ones and the last are
    drawn. The shape of the output is written above. A unit of a layer with positions, such as a channel of an image, is
    drawn once, and an input of symbols as one unit for each symbol. A layer that keeps the shape is named below the one
    that feeds it, a skip connection is an arc, and a recurrent layer has an arrow to itself. Grey lines show which
    units depend on which, where there is not one weight for each line: all on all of a convolution, an LSTM, a GRU and
    branches (`Parallel`), and each on its own of pooling. Biases are not shown.

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
    input_shape = sizes("input_shape", input_shape, several=True)
    expected, recorded = outline(net, input_shape)
    if params is not None:
        trees.same_structure("params", params, expected)
    columns, skips = [_input(net, input_shape)], []
    _lay_out(columns, skips, net, expected if params is None else params, recorded)
    places = [_places(column.units, most) for column in columns]
    shown = []
    for column, (units, _), (inputs, _) in zip(columns[1:], places[1:], places[:-1], strict=True):
        known = params is not None and column.w is not None
        shown.append(numbers("w", column.w)[np.ix_(units, inputs)] if known else None)
    largest = max((abs(w).max() for w in shown if w is not None), default=0) or 1.0

    wide = 1.6 * max(len(heights) for _, heights in places) / len(columns)  # distance of the columns; units are 1 apart
    of_lines = require("matplotlib.collections", "plots")
    for i, w in enumerate(shown):
        (inputs, below), (units, above), linked = *places[i : i + 2], columns[i + 1].linked
        drawn = np.ones((len(units), len(inputs)), bool) if linked is None else linked[np.ix_(units, inputs)]
        lines = [[(i * wide, below[k]), ((i + 1) * wide, above[j])] for j, k in np.argwhere(drawn)]
        if w is None:
            style = {"colors": "0.6", "linewidths": 0.5}
        else:
            widths, minus = 2 * abs(w.ravel()) / largest, w.ravel() < 0
            style = {"colors": np.where(minus, COLORS[1], COLORS[0]).tolist(), "linewidths": widths}
            style["linestyles"] = ["--" if m else "-" for m in minus]
        axes.add_collection(of_lines.LineCollection(lines, zorder=1, **style))
    top, bottom = max(h[0] for _, h in places), min(h[-1] for _, h in places)
    for i, (column, (units, heights)) in enumerate(zip(columns, places, strict=True)):
        axes.plot(
            [i * wide] * len(heights), heights, "o", color="white", markeredgecolor="black", markersize=8, zorder=2
        )
        if column.units > len(units):
            axes.text(i * wide, (heights[-1] + heights[-2]) / 2, "⋮", ha="center", va="center", zorder=2)
        if column.loops:
            style = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-1.6", "shrinkA": 4, "shrinkB": 4}
            around = ((i - 0.12) * wide, heights[0] + 0.1), ((i + 0.12) * wide, heights[0] + 0.1)
            axes.annotate("", around[1], around[0], arrowprops=style)
        label = "\n×".join(["×".join(map(str, column.shape[:-1]))] * (len(column.shape) > 1) + [str(column.units)])
        axes.text(i * wide, heights[0] + 0.6 + 0.7 * column.loops, label, ha="center", va="bottom", size="small")
        axes.text(i * wide, bottom - 0.7, "\n".join(column.names), ha="center", va="top", size="small")
    for start, end in skips:
        style = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.3", "linestyle": ":", "shrinkA": 9, "shrinkB": 9}
        axes.annotate("", (end * wide, places[end][1][0]), (start * wide, places[start][1][0]), arrowprops=style)
    deep = max(len(column.names) for column in columns)
    if any(w is not None for w in shown):
        axes.set_title(f"weights: solid > 0, dashed < 0, widest {largest:.2g}", size="small")
    more = 1.2 * bool(skips) + 0.7 * any(column.loops for column in columns)
    axes.set(xlim=(-0.6 * wide, (len(columns) - 0.4) * wide), ylim=(bottom - 1 - deep, top + 1.6 + more))
    axes.set_axis_off()
    return axes


def _input(net, input_shape):
    """The column of the input: of several, all that are floating side by side."""
    if not input_shape or not isinstance(input_shape[0], tuple):
        return _Column(["input"], input_shape)
    chosen = [dict(input_shape)[part.inputs[0]] for _, part in walk(net) if isinstance(part, Last)]
    if chosen:
        return _Column(["input"], chosen[0])
    names = [f"{name} {'×'.join(map(str, shape or (1,)))}" for name, shape in input_shape]
    return _Column(names, (sum(shape[-1] if shape else 1 for _, shape in input_shape),))


def _lay_out(columns, skips, layer, params, recorded):
    """Append the columns of a layer, and the skip connections between them."""
    if isinstance(layer, Serial | Frozen | Residual | Remat | Last):
        start = len(columns) - 1
        over_parts(lambda *part: _lay_out(columns, skips, *part), layer, params, recorded)
        if isinstance(layer, Residual):
            skips.append((start, len(columns) - 1))
        if not isinstance(layer, Last):
            return
    name, shape, before = type(layer).__name__, tuple(recorded.output.shape[1:]), columns[-1]
    column = _Column([name], shape)
    outputs, inputs = np.arange(column.units)[:, None], np.arange(before.units)
    if isinstance(layer, Dense):
        columns.append(column._replace(w=params.w))
    elif isinstance(layer, Recurrent):
        columns.append(column._replace(w=params.w if len(params.w) == layer.units else None, loops=True))
    elif isinstance(layer, Embedding):
        columns[-1] = before._replace(shape=(*before.shape, layer.symbols))
        columns.append(column._replace(w=params.T))
    elif isinstance(layer, Conv):
        columns.append(column._replace(linked=_groups(outputs, layer.groups) == _groups(inputs, layer.groups)))
    elif isinstance(layer, Composition) and not isinstance(layer, Last):
        columns.append(column)
    elif shape == before.shape:
        before.names.append(name)
    elif isinstance(layer, Flatten):
        columns.append(column._replace(linked=outputs % before.units == inputs))
    elif column.units == before.units and (isinstance(layer, Last) or not trees.leaves(params)):
        columns.append(column._replace(linked=outputs == inputs))
    else:
        columns.append(column)


def _groups(units, groups):
    """The group of each unit of a convolution."""
    return units // max(1, units.size // groups)


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
