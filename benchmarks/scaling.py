"""How the time of an epoch grows with the width, the depth, the batch size and the number of examples.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --smoke

From 784-128-10, batch 128, 12,800 random images, one of the four is changed at a time (depth with layers of 64 units).
A turn is as many epochs as take half a second, of fnn one call of `train`, of PyTorch the loop of its tutorials, as
`common/sides.py` has them, float32. With `--write` there is a picture too.
"""

import functools
import io
import math

from common import harness
from common.sides import SIDES, Problem, images

LOOKS = {  # in the colours of M. Okabe and K. Ito, which everyone can tell apart
    "fnn on JAX": ("#0072B2", "-", "o"),
    "fnn on NumPy": ("#D55E00", "--", "s"),
    "PyTorch eager": ("#009E73", "-.", "^"),
}
BASE = {"hidden": (128,), "batch": 128, "examples": 12_800}
AXES = {  # values, and what each changes
    "width of the hidden layer": ((16, 32, 64, 128, 256, 512, 1024, 2048), lambda v: {"hidden": (v,)}),
    "hidden layers of 64": ((1, 2, 4, 8, 16), lambda v: {"hidden": (64,) * v}),
    "batch size": ((8, 16, 32, 64, 128, 256, 512, 1024, 2048), lambda v: {"batch": v}),
    "examples": ((1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000), lambda v: {"examples": v}),
}


def measure(x, y, change, options):
    """The seconds of each side's turns on one problem."""
    at = BASE | change
    problem = Problem((784, *at["hidden"], 10), at["batch"], x[: at["examples"]], y[: at["examples"]])
    sides = harness.available({name: functools.partial(SIDES[name], problem) for name in LOOKS})
    return harness.turns({name: long_enough(run, options) for name, run in sides.items()}, options)


def long_enough(run, options):
    """A side that gives the seconds of an epoch, from as many in one call as take half a second."""
    run(1)  # compiles
    epochs = 1 if options.smoke else math.ceil(0.5 / harness.seconds(run, 1)())
    side = harness.seconds(run, epochs)
    return lambda: side() / epochs


def picture(low, file):
    """Time against each of the four, both axes logarithmic, every line labelled where it ends."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 7.2), layout="constrained")
    for axes, (axis, points) in zip(figure.subplots(2, 2).flat, low.items(), strict=True):
        times = [seconds for of_sides in points.values() for seconds in of_sides.values()]
        apart, below = (max(times) / min(times)) ** 0.06, 0.0
        values, last = list(points), list(points.values())[-1]
        for name in sorted(last, key=last.get):
            color, style, mark = LOOKS[name]
            axes.loglog(values, [points[v][name] for v in values], style + mark, color=color, markersize=4)
            below = max(last[name], apart * below)  # a label is not written over another
            axes.annotate(f"  {name}", (values[-1], below), color=color, va="center", annotation_clip=False)
        axes.set(title=f"Time against {axis}", xlabel=axis, ylabel="seconds an epoch")
        axes.set_xticks(values, [f"{v:,}" for v in values], fontsize=8)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=160)


def main():
    parser = harness.parser(__doc__, repeats=7)
    options = harness.parse(parser)
    (x, y), _ = images(2_000 if options.smoke else max(AXES["examples"][0]))
    figures = {}
    for axis, (values, change) in AXES.items():
        values = values[2:4:2] if options.smoke else values
        figures[axis] = {value: measure(x, y, change(value), options) for value in values}
    low = {
        axis: {value: {name: harness.lower(times) for name, times in taken.items()} for value, taken in points.items()}
        for axis, points in figures.items()
    }
    tables = []
    for axis, points in low.items():
        names = list(next(iter(points.values())))
        rows = [[f"{value:,}", *(f"{seconds[name]:.4f}" for name in names)] for value, seconds in points.items()]
        tables.append(harness.table((axis, *(f"{name}, s" for name in names)), rows))
    picture(low, harness.RESULTS / "scaling.png" if options.write else io.BytesIO())
    text = "Seconds an epoch:\n\n" + "\n\n".join(tables) + "\n\n![Time against the four](scaling.png)"
    harness.publish("scaling", "How time grows", text, figures, options)


if __name__ == "__main__":
    main()
