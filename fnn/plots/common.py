"""Helpers that the figures share: colours, styles, and checks of what is drawn."""

import math

import numpy as np

from ..errors import KindError, require, shorten

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def check_axes(axes):
    if not isinstance(axes, require("matplotlib.axes", "plots").Axes):
        raise KindError(f"axes: expected an Axes of matplotlib, such as Figure().subplots() gives, got {shorten(axes)}")


def numbers(name, array):
    """Any array of numbers as a NumPy array in float64; accepts JAX's bfloat16."""
    try:
        return np.asarray(array).astype(np.float64)
    except (TypeError, ValueError):
        raise KindError(f"{name}: expected an array of numbers, got {shorten(array)}") from None


def no_frame(axes):
    """Remove the frame above and to the right, where the labels are."""
    axes.spines[["top", "right"]].set_visible(False)


def color_of(i):
    return COLORS[i % len(COLORS)]


def tint(color, strength):
    """Mix a colour with white."""
    rgb = np.array(require("matplotlib.colors", "plots").to_rgb(color))
    return tuple(1 - strength * (1 - rgb))


def scale_beside(axes, image, label, ticks, names, bottom=None):
    """Draw a colour bar as high as the image, whatever the layout; or of height 1 from there, in the axes' numbers."""
    low, high = axes.get_ylim()
    part = (0, 1) if bottom is None else ((bottom - low) / (high - low), 1 / (high - low))
    beside = axes.inset_axes((1.04, part[0], 0.05, part[1]))
    bar = axes.figure.colorbar(image, cax=beside, label=label, ticks=ticks)
    bar.ax.set_yticklabels(names, size="small")
    bar.ax.minorticks_off()


def tiles(axes, images, label, columns=None, signed=False):
    """Draw images (K, rows, columns) side by side with one scale, symmetric about 0 if the values are signed."""
    count, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count * height / width))
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height + 1, width + 1), np.nan)
    sheet[:count, :-1, :-1] = images
    sheet = sheet.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2).reshape(rows * (height + 1), -1)
    low, high = images.min(), images.max()
    if signed or low < 0:
        high = max(abs(low), abs(high)) or 1.0
        low, ticks, names = -high, [-high, 0, high], [f"−{high:.2g}", "0", f"{high:.2g}"]
    else:
        low, high = 0.0, high or 1.0
        ticks, names = [low, high], ["0", f"{high:.2g}"]
    image = axes.imshow(np.ma.masked_invalid(sheet[:-1, :-1]), cmap="cividis", vmin=low, vmax=high)
    axes.set_axis_off()
    scale_beside(axes, image, label, ticks, names)
    return axes
