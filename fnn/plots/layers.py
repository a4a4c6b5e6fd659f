"""Figures of what one layer does for one example: the maps of a convolution, and a recurrent layer through time."""

import math
from typing import Any

import numpy as np

from .. import examples, gate, trees
from ..backpropagation import check_problem, tape_of
from ..checks import finite
from ..composition import forward_recorded, walk
from ..errors import ArgumentError, ShapeError, require, usage
from ..layers import Layer, Recurrent
from ..losses import Loss
from ..sequences import Last
from .common import check_axes, numbers, scale_beside, tiles

_FEW = 8  # numbers are written into the cells up to this many positions and units


@usage("fnn.plots.feature_maps(axes, net, params, image)")
def feature_maps(axes: Any, net: Layer, params: Any, image: Any, *, layer: str = "0") -> Any:
    """Draw the output of a layer for one image: an image for each channel.

    All share one scale, from blue to yellow; with negative values it is symmetric about grey at 0.

    Args:
        axes: an Axes of matplotlib.
        net: the network.
        params: its parameters.
        image: (H, W, C), one example, without the batch axis.
        layer: the place of the layer, as in `fnn.summary`: "0" is the first. Default: "0".

    Returns:
        The Axes.

    >>> import fnn
    >>> from matplotlib.figure import Figure
    >>> net = fnn.Serial((fnn.Conv(4, (3, 3)), fnn.Relu()))
    >>> params = net.init(fnn.random.key(0, backend="numpy"), (5, 5, 1))
    >>> axes = feature_maps(Figure().subplots(), net, params, np.ones((5, 5, 1)), layer="1")
    >>> axes.images[0].get_array().shape  # four maps of 3 x 3, and a line between them
    (7, 7)
    """
    check_axes(axes)
    params, x = gate.inputs(net, params, np.asarray(image)[None])
    found = {place: out for place, _, out in walk(net, forward_recorded(net, params, x)[2])}
    if layer not in found or hasattr(found[layer], "_fields") or np.ndim(found[layer]) != 4:
        raise ShapeError(f"layer: expected the place of a layer whose output is (N, H, W, C), got {layer!r}")
    return tiles(axes, np.moveaxis(numbers(layer, found[layer])[0], -1, 0), "output")


@usage("fnn.plots.unrolled(axes, net, params, x)")
def unrolled(
    axes: Any,
    net: Layer,
    params: Any,
    x: Any,
    *,
    layer: str | None = None,
    loss: Loss | None = None,
    y: Any = None,
    labels: Any = None,
) -> Any:
    """Draw a recurrent layer unrolled through time for one example: its states and, with a cost, their errors.

    Each column is the layer at one position, with a cell for each unit. Above are the states h, which are computed from
    left to right; below, on a logarithmic scale, the sizes of the errors δ, which come back from right to left. Where
    they vanish or explode, the colour changes from column to column; where no error arrives, there is none. If a layer
    has gates, the error of a unit is the length of the errors at its gates. Numbers are written into few cells.

    Args:
        axes: an Axes of matplotlib.
        net: the network.
        params: its parameters.
        x: one example, without the batch axis: (T, ...), or a dict for `Last`, whose sequences are drawn up to their
            length.
        layer: the place of a recurrent layer, as in `fnn.summary`. Default: the first one.
        loss: the cost, for the errors. Default: None, states only.
        y: the target of the example, beside a cost. Default: None.
        labels: the names of the T positions, such as letters. Default: 1 to T.

    Returns:
        The Axes.

    Source: P. Werbos, "Backpropagation through time: what it does and how to do it" (1990); R. Pascanu, T. Mikolov,
    Y. Bengio, "On the difficulty of training recurrent neural networks" (2013), fig. 2.

    >>> import fnn
    >>> from matplotlib.figure import Figure
    >>> net = fnn.Serial((fnn.Rnn(3), fnn.Dense(2)))
    >>> params = net.init(fnn.random.key(0, backend="numpy"), (5, 1))
    >>> axes = unrolled(Figure().subplots(), net, params, np.ones((5, 1)), loss=fnn.SoftmaxCrossEntropy(), y=1)
    >>> [image.get_array().shape for image in axes.images]  # states and errors of 3 units at 5 positions, and ‖δ‖
    [(3, 5), (3, 5), (1, 5)]
    """
    check_axes(axes)
    gate.check_network(net)
    if (loss is None) != (y is None):
        raise ArgumentError("y: expected a cost and a target together, loss=... and y=..., or neither")
    places = [place for place, part in walk(net) if isinstance(part, Recurrent)]
    layer = places[0] if layer is None and places else layer
    if layer not in places:
        raise ArgumentError(f"layer: expected the place of a recurrent layer, one of {places}, got {layer!r}")
    states, errors = _through_time(net, params, x, layer, loss, y)
    positions, units = states.shape
    names = None if labels is None else list(labels)
    if names is not None and len(names) < positions:
        raise ShapeError(f"labels: expected a name for each of {positions} positions, got {len(names)}")

    low = 0.0 if errors is None else -1.9
    axes.set(xlim=(0.5, positions + 0.5), ylim=(low, 1.35), xlabel="position")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if names is None:
        axes.xaxis.set_major_locator(require("matplotlib.ticker", "plots").MaxNLocator(8, integer=True))
    else:
        axes.set_xticks(range(1, positions + 1), names[:positions])
    largest = abs(states).max() or 1.0
    scale = [-largest, 0, largest], [f"−{largest:.2g}", "0", f"{largest:.2g}"]
    image = _band(axes, states, 0, 1, {"vmin": -largest, "vmax": largest})
    scale_beside(axes, image, "h", *scale, bottom=0)
    _arrow(axes, "forward", 1.15)
    ticks = {0.5: f"state h\n{units} units"}
    if errors is not None:
        length = np.sqrt((errors**2).sum(axis=1, keepdims=True))
        norm, *scale = _logarithmic(length, units)
        image = _band(axes, errors, -1.5, 1, {"norm": norm})
        _band(axes, length, -1.9, 0.3, {"norm": norm})
        scale_beside(axes, image, "|δ|", *scale, bottom=-1.5)
        _arrow(axes, "backward", -0.35)
        ticks |= {-1.0: f"error δ\n{units} units", -1.75: "‖δ‖"}
    axes.set_yticks(list(ticks), list(ticks.values()))
    return axes


def _through_time(net, params, x, layer, loss, y):
    """The states (T, H) of a recurrent layer for one example, and the lengths of the errors there, or None."""
    one = lambda name, a: np.asarray(a)[None]
    params, x = gate.inputs(net, params, examples.each(one, "x", x))
    for _, part in walk(net):
        if isinstance(part, Last):  # what lies beyond the length is not drawn
            named = x if isinstance(x, dict) else x._asdict()
            sequence, length = (named[name] for name in part.inputs)
            x = named | {part.inputs[0]: sequence[:, : int(length[0])]}
    deltas = None
    if loss is None:
        residuals = net.forward(params, x)[1]
    else:
        check_problem(net, loss)
        params, data = gate.batch(net, loss, params, x, examples.each(one, "y", y))
        tape = tape_of(net, loss, params, data.x, data.y)
        residuals, deltas = tape.residuals, tape.deltas
    found: dict[str, Any] = {place: rest for place, *rest in walk(net, residuals, deltas)}
    part, (_, kept), delta = found[layer]
    states = numbers("states", kept[0])[0]
    finite("states", states)
    if delta is None:
        return states, None
    gates = np.concatenate([numbers("δ", leaf)[0] for leaf in trees.leaves(delta)], axis=-1)
    finite("errors", gates)
    return states, np.sqrt((gates.reshape(len(gates), -1, part.units) ** 2).sum(axis=1))


def _logarithmic(length, units):
    """A scale for ‖δ‖ at each position and for its units; the ticks of its colour bar and their names."""
    seen = length[length > 0]
    low, high = (seen.min() / (10 * math.sqrt(units)), seen.max()) if seen.size else (0.1, 1.0)
    powers = np.arange(math.floor(np.log10(high)), math.ceil(np.log10(low)) - 1, -1)
    powers = powers[:: -(-len(powers) // 4)]
    norm = require("matplotlib.colors", "plots").LogNorm(low, high)
    return norm, [10.0**p for p in powers], [f"1e{p}" for p in powers]


def _band(axes, values, bottom, height, colors):
    """Draw values (T, rows) as columns of cells side by side, with white for 0 on a logarithmic scale."""
    positions, rows = values.shape
    extent = (0.5, positions + 0.5, bottom, bottom + height)
    cells = np.ma.masked_equal(values.T, 0) if "norm" in colors else values.T
    image = axes.imshow(cells, extent=extent, cmap="cividis", aspect="auto", interpolation="nearest", **colors)
    for t in range(1, positions if positions <= 40 else 0):
        axes.plot([t + 0.5] * 2, extent[2:], color="white", linewidth=min(4, 24 / positions))
    if positions <= _FEW and rows <= _FEW:
        for t, row in np.ndindex(values.shape):
            value, place = values[t, row], (t + 1, bottom + height * (1 - (row + 0.5) / rows))
            text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if "norm" in colors else _signed(value)
            color = "white" if not np.ma.is_masked(cells[row, t]) and image.norm(value) < 0.5 else "black"
            axes.text(*place, text, color=color, ha="center", va="center", size="x-small")
    return image


def _signed(value):
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _arrow(axes, direction, height):
    """An arrow in the direction of a pass, above its band."""
    start, end = axes.get_xlim()[:: 1 if direction == "forward" else -1]
    style = {"arrowstyle": "->", "color": "0.4", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, height), (start, height), arrowprops=style)
    axes.text(start, height, direction, size="small", va="bottom", ha="left" if direction == "forward" else "right")
