"""The flow of activations and errors through a small network: one picture of backpropagation, which can be animated.

What belongs to step k of a computation carries the gid "step-k-...", and what is shown only while it runs carries
"during-k-...". `animated` turns a figure with such artists into an SVG that shows one step after another.
"""

import io
import re
from itertools import count
from typing import Any

import numpy as np

from .. import gate
from ..backpropagation import check_problem, tape_of
from ..errors import KindError, ShapeError, require, shorten, usage
from ..layers import Dense, Layer
from ..layers.activations import Activation
from ..losses import Loss
from ..networks import Serial
from .common import COLORS, check_axes, numbers

_MOST = 6  # units of a layer
FORWARD, BACKWARD = COLORS[0], "#B34F00"  # the second of COLORS, dark enough for small letters on white


@usage("fnn.plots.flow(axes, net, loss, params, x, y)")
def flow(axes: Any, net: Layer, loss: Loss, params: Any, x: Any, y: Any) -> Any:
    """Draw backpropagation for one example: activations, errors and gradients, each at its place in the network.

        forward      zˡ = Wˡ aˡ⁻¹ + bˡ        aˡ = f(zˡ)
        backward     δᴸ = ∂ℓ/∂zᴸ              δˡ = (Wˡ⁺¹)ᵀ δˡ⁺¹ ⊙ f'(zˡ)
        gradient     ∂ℓ/∂Wˡ = δˡ (aˡ⁻¹)ᵀ      ∂ℓ/∂bˡ = δˡ

    A circle is a unit, with a above δ, and its bias above it. Along each line stands its weight w and, on the other
    side, ∂ℓ/∂w. Below each column are the equations of its layer. `animated` shows the steps in their order.

    Args:
        axes: an Axes of matplotlib; for two or three layers about 10 by 5 inches.
        net: a `Serial` of `Dense` layers, each followed by any number of elementwise activations, with at most 6 units
            in a layer.
        loss: the cost.
        params: the parameters.
        x: one example, without the batch axis.
        y: its target.

    Returns:
        The Axes.

    Raises:
        KindError: if there are other layers.
        ShapeError: if there are more units than can be drawn.

    Source: M. Nielsen, "Neural networks and deep learning" (2015), ch. 2, eqs. BP1 to BP4.

    >>> import fnn
    >>> from matplotlib.figure import Figure
    >>> net, params = fnn.mlp((1,)), (fnn.DenseParams(np.array([[3.0, 0.5]]), np.array([1.0])),)
    >>> axes = flow(Figure().subplots(), net, fnn.Quadratic(), params, [1.0, 2.0], [4.0])
    >>> [text.get_text() for text in axes.texts if text.get_text()[:2] in ("δ ", "∂ ")]  # 5 − 4, and that times x
    ['δ 1.0000', '∂ 1.0000', '∂ 2.0000']
    """
    check_axes(axes)
    check_problem(net, loss)
    params, data = gate.batch(net, loss, params, np.asarray(x)[None], np.asarray(y)[None])
    tape = tape_of(net, loss, params, data.x, data.y)
    a, delta, layers = _columns(net, params, tape, data.x)
    last, patches = len(layers), require("matplotlib.patches", "plots")
    wide, place = 4.2 + 0.4 * max(0, max(map(len, a)) - 3), {}
    for n, values in enumerate(a):
        for i in range(len(values)):
            place[n, i] = np.array([wide * n, 2.4 * ((len(values) - 1) / 2 - i)])
    bottom, number = min(p[1] for p in place.values()), count()

    def put(step, artist, only=False):
        artist.set_gid(f"{'during' if only else 'step'}-{step}-{next(number)}")
        artist.set_visible(not only)

    def write(step, at, text, color="black", way=(1, 0), up=0.0, **options):
        options = {"ha": "center", "va": "center", "size": 10, "rotation_mode": "anchor"} | options
        angle = np.degrees(np.arctan2(way[1], way[0]))
        put(step, axes.text(at[0], at[1] + up, text, color=color, rotation=angle, **options))

    for n, values in enumerate(a):
        back = 3 * last - 2 * n + 2  # the step in which δⁿ is computed; a is computed in step n
        for i, value in enumerate(values):
            here = place[n, i]
            axes.add_patch(patches.Circle(here, 0.62, facecolor="white", edgecolor="black", linewidth=1, zorder=2))
            if n == 0:
                write(0, here, f"x = {_short(value)}")
                continue
            write(n, here, f"a {_signed(value)}", up=0.2)
            write(back, here, f"δ {_signed(delta[n - 1][i])}", BACKWARD, up=-0.2)
            w, b = layers[n - 1]
            if b is not None:
                write(0, here, f"b {_short(b[i])}", FORWARD, up=0.8, size=9)
            for j in range(len(a[n - 1])):
                below = place[n - 1, j]
                way = (here - below) / np.linalg.norm(here - below)
                start, end = below + 0.62 * way, here - 0.62 * way
                axes.plot(*zip(start, end, strict=True), color="0.7", linewidth=1, zorder=0)
                for step, ends, color in (n, (start, end), FORWARD), (back + 2, (end, start), BACKWARD):
                    if step <= 3 * last + 1:  # δ⁰ is not needed
                        style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": color, "linewidth": 2}
                        arrow = patches.FancyArrowPatch(*ends, shrinkA=0, shrinkB=0, zorder=1, **style)
                        put(step, axes.add_patch(arrow), only=True)
                at, aside = below + (here - below) * (0.34 if way[1] else 0.5), 0.19 * np.array([-way[1], way[0]])
                write(0, at + aside, f"w {_short(w[i, j])}", FORWARD, way, size=9)
                gradient = delta[n - 1][i] * a[n - 1][j]
                write(back + 1, at - aside, f"∂ {_signed(gradient)}", BACKWARD, way, size=9)
        if n:
            here, up, before = np.array([wide * n, bottom - 1.15]), _up(n), _up(n - 1)
            source = "∂ℓ/∂" + f"z{up}" if n == last else f"(W{_up(n + 1)})ᵀδ{_up(n + 1)} ⊙ f′(z{up})"
            plain = "" if layers[n - 1][1] is None else f" + b{up}"
            write(n, here, f"z{up} = W{up}a{before}{plain}, a{up} = f(z{up})", FORWARD)
            write(back, here, f"δ{up} = {source}", BACKWARD, up=-0.45)
            write(back + 1, here, f"∂ℓ/∂W{up} = δ{up}(a{before})ᵀ", BACKWARD, up=-0.9)
    end = np.array([wide * last + 1.0, 0])
    targets = numbers("y", data.y).ravel()
    write(0, end, "y = " + ", ".join(map(_short, targets)), up=0.25, ha="left")
    write(last + 1, end, f"ℓ = {float(tape.losses[0]):.4f}", up=-0.25, ha="left")
    top = max(p[1] for p in place.values()) + 1.1
    axes.set(xlim=(-0.8, wide * last + 2.4), ylim=(bottom - 2.4, top), aspect="equal")
    axes.set_axis_off()
    return axes


def animated(figure: Any, seconds: float = 1.5) -> str:
    """Turn a figure into an SVG that shows its steps one after another, and then begins again.

    Whatever carries the gid "step-k-..." appears in step k, with a glow while it is new; "during-k-..." is shown in
    step k alone; anything else is always there. Readers who prefer less motion see the finished figure at once.

    Args:
        figure: a Figure of matplotlib, such as that of the Axes that `flow` returns.
        seconds: the duration of a step, greater than 0. Default: 1.5.

    Returns:
        The text of the SVG file.

    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> figure.text(0.5, 0.5, "first").set_gid("step-1-a")
    >>> "@keyframes step-1" in animated(figure)
    True
    """
    if not isinstance(figure, require("matplotlib.figure", "plots").Figure):
        raise KindError(f"figure: expected a Figure of matplotlib, got {shorten(figure)}")
    passing = figure.findobj(lambda artist: str(artist.get_gid()).startswith("during-"), include_self=False)
    was = [artist.get_visible() for artist in passing]
    text = io.StringIO()
    with require("matplotlib", "plots").rc_context({"svg.hashsalt": "fnn"}):
        try:
            for artist in passing:
                artist.set_visible(True)
            figure.savefig(text, format="svg", metadata={"Date": None})
        finally:
            for artist, visible in zip(passing, was, strict=True):
                artist.set_visible(visible)
    svg = text.getvalue()
    steps = sorted({int(k) for k in re.findall(r'id="(?:step|during)-(\d+)-', svg)})
    total = max(steps, default=0) + 3  # the finished figure stays for two steps more
    rules = ['[id^="during-"] {opacity: 0}', "@media (prefers-reduced-motion: no-preference) {"]
    for k in steps:
        start, end = (f"{100 * v / total:.2f}%" for v in (k, k + 1))
        new = "filter: drop-shadow(0 0 3px #E69F00)" if k else "filter: none"
        rules += [
            f"@keyframes step-{k} {{0% {{opacity: {int(k == 0)}; filter: none}} {start} {{opacity: 1; {new}}} "
            f"{end}, 100% {{opacity: 1; filter: none}}}}",
            f"@keyframes during-{k} {{0% {{opacity: 0}} {start} {{opacity: 1}} {end}, 100% {{opacity: 0}}}}",
            *(
                f'[id^="{kind}-{k}-"] {{animation: {kind}-{k} {total * seconds:g}s step-end infinite}}'
                for kind in ("step", "during")
            ),
        ]
    return svg.replace("</defs>", "<style>" + "\n".join([*rules, "}"]) + "</style>\n</defs>", 1)


def _columns(net, params, tape, x):
    """a of the input and of each dense layer, after its activations; δ of each; and its weights and bias or None."""
    if not isinstance(net, Serial) or not net.layers or not isinstance(net.layers[0], Dense):
        raise KindError(f"net: expected a Serial that begins with a Dense, got {shorten(net)}")
    a, delta, layers = [numbers("x", x)[0]], [], []
    for layer, p, out, error in zip(net.layers, params, tape.outputs, tape.deltas, strict=True):
        values = numbers("outputs", out)[0] if isinstance(layer, Dense | Activation) else None
        if isinstance(layer, Dense) and values is not None and values.ndim == 1:
            a.append(values)
            delta.append(numbers("δ", error)[0])
            layers.append((numbers("w", p.w), numbers("b", p.b) if layer.bias else None))
        elif values is not None and values.shape == a[-1].shape:
            a[-1] = values
        else:
            raise KindError(f"net: expected Dense layers and elementwise activations, got {layer}")
    most = max(map(len, a))
    if most > _MOST:
        raise ShapeError(f"net: expected at most {_MOST} units in a layer, so that all can be drawn, got {most}")
    return a, delta, layers


def _signed(value):
    return f"{value:.4f}".replace("-", "−")


def _short(value):
    return f"{value:.4g}".replace("-", "−")


def _up(n):
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(n))
