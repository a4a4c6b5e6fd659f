"""What the figures share: colours, styles, and the checks of what is drawn."""

import numpy as np

from ..errors import KindError, require, shorten

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def check_axes(axes):
    if not isinstance(axes, require("matplotlib.axes", "plots").Axes):
        raise KindError(f"axes: expected an Axes of matplotlib, such as Figure().subplots() gives, got {shorten(axes)}")


def numbers(name, array):
    """Any array of numbers in float64, on NumPy; JAX's bfloat16 too."""
    try:
        return np.asarray(array).astype(np.float64)
    except (TypeError, ValueError):
        raise KindError(f"{name}: expected an array of numbers, got {shorten(array)}") from None


def no_frame(axes):
    """No frame above and to the right, where the labels stand."""
    axes.spines[["top", "right"]].set_visible(False)


def color_of(i):
    return COLORS[i % len(COLORS)]


def tint(color, strength):
    """A colour mixed with white."""
    rgb = np.array(require("matplotlib.colors", "plots").to_rgb(color))
    return tuple(1 - strength * (1 - rgb))


def scale_beside(axes, image, label, ticks, names):
    """A scale as high as the image, whatever the layout."""
    beside = axes.inset_axes((1.04, 0, 0.05, 1))
    axes.figure.colorbar(image, cax=beside, label=label, ticks=ticks).ax.set_yticklabels(names, size="small")
