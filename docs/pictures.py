"""The pictures of the book, drawn by `fnn.plots` and matplotlib from runs and passes of fnn itself.

    python docs/pictures.py            writes docs/book/pictures/
    python docs/pictures.py --check    writes nothing; fails if a picture there is out of date, missing, or not used

They stand on white, so that they can be read on light and on dark pages. Each function below draws one of them.
"""

import io
import re
import sys
from pathlib import Path

import numpy as np

import fnn
from fnn import plots
from fnn.plots.common import COLORS, MARKERS, STYLES
from fnn.plots.passes import BACKWARD

matplotlib = fnn.errors.require("matplotlib", "examples")
figures = fnn.errors.require("matplotlib.figure", "examples")
paths = fnn.errors.require("matplotlib.path", "examples")
patches = fnn.errors.require("matplotlib.patches", "examples")
images = fnn.errors.require("PIL.Image", "examples")
BOOK = Path(__file__).parent / "book"
BLUE, ORANGE = COLORS[:2]
key = lambda seed: fnn.random.key(seed, backend="numpy")


def canvas(rows, columns, size):
    figure = figures.Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def moons(seed, n, noise=0.12):
    """Two interleaved half-moons: points (n, 2) and their labels."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    angle = np.pi * rng.random(n)
    x = np.where(y, (1 - np.cos(angle), 0.5 - np.sin(angle)), (np.cos(angle), np.sin(angle))).T
    return (x + noise * rng.normal(size=x.shape)).astype(np.float32), y


def neuron():
    """A step, a linear and a logistic neuron over the plane of its two inputs."""
    figure, axes = canvas(1, 3, (9, 3.2))
    w, b, along = np.array([2.0, -1.0]), 0.5, np.linspace(-2, 2, 101)
    x = np.stack(np.meshgrid(along, along), axis=-1)
    z = x @ w + b
    units = {"a step": z > 0, "linear: a = z": z, "logistic: a = σ(z)": 1 / (1 + np.exp(-z))}
    for ax, (name, a) in zip(axes[0], units.items(), strict=True):
        image = ax.imshow(a.astype(float), origin="lower", extent=(-2, 2, -2, 2), cmap="cividis")
        ax.plot(along, 2 * along + 0.5, color="white", linewidth=2)
        ax.annotate("", (0.15 + 0.8, 0.8 - 0.4), (0.15, 0.8), arrowprops={"color": ORANGE, "width": 2, "headwidth": 8})
        ax.text(0.75, 0.75, "w", color=ORANGE, weight="bold", size=11)
        ax.text(-1.55, -1.45, "z = 0", color="white", rotation=63, weight="bold", ha="center", va="center")
        ax.set(title=name, xlabel="x₁", ylabel="x₂", xlim=(-2, 2), ylim=(-2, 2), xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        figure.colorbar(image, ax=ax, shrink=0.8)
    return figure


def two_moons():
    """A network 2-16-2-2 while it learns, animated: the plane of its inputs, and that of its last units."""
    (x, y), loss = moons(3, 100), fnn.SoftmaxCrossEntropy()
    net = fnn.mlp((16, 2, 2), activation=fnn.Tanh())
    hidden, output = fnn.Serial(net.layers[:-1]), fnn.Serial(net.layers[-1:])
    state, done = fnn.init_state(net, fnn.Adam(0.01), key(0), (2,), dtype=np.float64), 0
    figure, ((left, right),) = canvas(1, 2, (9, 4.6))
    epochs = (0, 1, 2, 4, 8, 16, 24, 32, 36, 40, 45, 50, 60, 80)
    for k, epoch in enumerate(epochs):
        if epoch:
            state, done = fnn.train(net, loss, state, (x, y), epochs=epoch - done, batch_size=20)[0], epoch
        share = float(fnn.accuracy(net.apply(state.params, x), y))
        text = f"epoch {epoch}: {100 * share:.0f} % correct"
        a = hidden.apply(state.params[:-1], x)
        artists = [
            left.text(0.5, -0.04, text, size=11, ha="center", va="top", transform=left.transAxes),
            *regions(left, net, state.params, (-1.5, 2.5), (-1.1, 1.6), 31),
            *regions(right, output, state.params[-1:], (-1.1, 1.1), (-1.1, 1.1), 2),
            *points(right, a, y),
        ]
        kind = "during" if epoch < epochs[-1] else "step"
        for i, artist in enumerate(artists):
            artist.set_gid(f"{kind}-{k}-{i}")
            artist.set_visible(kind == "step")
    list(points(left, x, y))
    left.set(title="the plane of the inputs x₁ and x₂", xticks=[], yticks=[])
    right.set(title="the plane of the two units before the output", xticks=[], yticks=[])
    return figure


def regions(ax, net, params, across, up, n):
    """What a network of two outputs decides, on a grid of n points each way, and the boundary."""
    grid = np.linspace(*across, n), np.linspace(*up, n)
    z = net.apply(params, np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2)).reshape(n, n, 2)
    z = z[..., 1] - z[..., 0]
    ax.set_facecolor(plots.common.tint(BLUE, 0.08))
    fill = ax.contourf(*grid, z, levels=[0, np.inf], colors=[plots.common.tint(ORANGE, 0.28)], zorder=0)
    return fill, ax.contour(*grid, z, levels=[0], colors="black", linewidths=1.5, zorder=1)


def points(ax, x, y):
    """The examples as round and square dots: ends of lines without a length, one path for each class."""
    for k, (color, cap) in enumerate(((BLUE, "round"), (ORANGE, "projecting"))):
        path = paths.Path(np.repeat(x[y == k], 2, axis=0), [1, 2] * (y == k).sum())  # move, line
        dots = patches.PathPatch(path, fill=False, edgecolor=color, linewidth=5 - k, capstyle=cap, zorder=2)
        yield ax.add_patch(dots)


def costs():
    """Cross-entropy and the squared error of a sigmoid unit with the target 1."""
    z = np.linspace(-6, 6, 121)[:, None]
    a, y = 1 / (1 + np.exp(-z)), np.ones_like(z)
    entropy, squares = fnn.SigmoidBinaryCrossEntropy(), fnn.Quadratic()
    figure, ((left, right),) = canvas(1, 2, (9, 3.2))
    for ax, of_entropy, of_squares, label in (
        (left, entropy.value(z, y), squares.value(a, y), "ℓ"),
        (right, abs(entropy.delta(z, y)), abs(squares.delta(a, y) * a * (1 - a)), "|δ|"),
    ):
        ax.plot(z, of_entropy, color=BLUE, label="cross-entropy")
        ax.plot(z, of_squares, color=ORANGE, linestyle="--", label="½ squared error")
        ax.set(xlabel="z, for the target y = 1", ylabel=label, xlim=(-6, 6), ylim=(0, None))
        ax.legend(frameon=False)
        plots.common.no_frame(ax)
    return figure


def path(optimizer, gradient, start, steps):
    """The points (steps + 1, 2) that an optimizer passes."""
    w = np.array(start)
    state, way = optimizer.init(w), [w]
    for _ in range(steps):
        updates, state = optimizer.update(gradient(w), state, w)
        way.append(w := w + updates)
    return np.array(way)


def descent():
    """A narrow valley, without and with momentum; the cost at four learning rates."""
    h = np.array([1.0, 0.04])
    figure, ((left, right),) = canvas(1, 2, (10, 3.6))
    w = np.mgrid[-1.4:1.4:101j, -3.4:1.4:101j]
    left.contour(*w, 0.5 * np.tensordot(h, w**2, 1), levels=np.geomspace(0.002, 1, 9), colors="0.8")
    ways = {"plain": fnn.Sgd(1.6), "momentum 0.7": fnn.Momentum(1.0, 0.7)}
    for i, (name, optimizer) in enumerate(ways.items()):
        way = path(optimizer, lambda w: h * w, [1.2, -3.0], 30)
        left.plot(*way.T, STYLES[i] + MARKERS[i], color=COLORS[i], markersize=3, linewidth=1, label=name)
    left.plot(0, 0, "k*", markersize=11)
    left.set(title="30 steps in a narrow valley", xlabel="w₁, steep", ylabel="w₂, flat")
    left.legend(loc="upper left")
    for i, rate in enumerate((0.05, 1.0, 1.9, 2.05)):
        way = path(fnn.Sgd(rate), lambda w: h[0] * w, [1.0, 0.0], 60)[:, 0]
        cost = np.maximum(0.5 * way**2, 1e-9)
        right.semilogy(cost, STYLES[i], color=COLORS[i], label=f"η λ = {rate:g}")
    right.set(title="The step size: the limit is η λ = 2", xlabel="step", ylabel="cost ½ λ w²", ylim=(1e-6, 1e3))
    right.legend(frameon=False)
    plots.common.no_frame(right)
    return figure


def by_hand():
    """The network of chapter 5, its parameters, and its example."""
    net = fnn.Serial((fnn.Dense(2), fnn.Sigmoid(), fnn.Dense(1), fnn.Sigmoid()))
    first = fnn.DenseParams(np.array([[0.5, -0.4], [0.3, 0.8]]), np.array([0.1, -0.2]))
    second = fnn.DenseParams(np.array([[0.6, -1.0]]), np.array([0.2]))
    return net, fnn.Quadratic(), (first, (), second, ()), np.array([1.0, 0.5]), np.array([1.0])


def flow():
    """Both passes through the network of chapter 5, animated."""
    figure, axes = canvas(1, 1, (9, 4.6))
    plots.flow(axes[0, 0], *by_hand())
    return figure


def one_weight():
    """The gradient of one weight as a product along its path, animated from the right to the left."""
    net, loss, params, x, y = by_hand()
    tape = fnn.backprop(net, loss)(params, x[None], y[None])
    z1, a1, z2, a2 = (float(v[0, 0]) for v in tape.outputs)
    boxes = ["w¹₁₂", -0.4], ["z¹₁", z1], ["a¹₁", a1], ["z²", z2], ["a²", a2], ["ℓ", float(tape.losses[0])]
    links = (
        ("x₂", x[1]),
        ("a¹₁ (1 − a¹₁)", a1 * (1 - a1)),
        ("w²₁₁", 0.6),
        ("a² (1 − a²)", a2 * (1 - a2)),
        ("a² − y", a2 - y[0]),
    )
    figure, axes = canvas(1, 1, (10, 3.3))
    ax, product, gap = axes[0, 0], 1.0, 2.3
    minus = lambda value: f"{value:.4f}".replace("-", "−")
    place = {"ha": "center", "va": "center"}
    for i, (name, value) in enumerate(boxes):
        shape = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": BLUE}
        artists = [
            ax.add_patch(patches.FancyBboxPatch((gap * i - 0.45, -0.4), 0.9, 0.8, **shape)),
            ax.text(gap * i, 0.17, name, color=BLUE, size=11, **place),
            ax.text(gap * i, -0.2, minus(value) if i else "−0.4", size=10, **place),
        ]
        for k, artist in enumerate(artists):
            artist.set_gid(f"step-{i}-box{k}")
        if i:
            arrow = patches.FancyArrowPatch(
                (gap * (i - 1) + 0.58, 0), (gap * i - 0.58, 0), arrowstyle="-|>", mutation_scale=12
            )
            ax.add_patch(arrow).set_gid(f"step-{i}-arrow")
    for i in range(len(links) - 1, -1, -1):
        step, (name, value) = len(boxes) + len(links) - 1 - i, links[i]
        product *= value
        middle = gap * (i + 0.5)
        ax.text(middle, -1.0, name, size=10, color=BACKWARD, **place).set_gid(f"step-{step}-link")
        ax.text(middle, -1.45, minus(value), size=10, **place).set_gid(f"step-{step}-value")
        style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": BACKWARD}
        back = patches.FancyArrowPatch((middle + 0.3 * gap, -2.2), (middle - 0.27 * gap, -2.2), **style)
        ax.add_patch(back).set_gid(f"step-{step}-back")
        ax.text(gap * i, -2.2, minus(product), size=10, color=BACKWARD, **place).set_gid(f"step-{step}-product")
        ax.text(gap * i, -2.6, f"∂ℓ/∂{boxes[i][0]}", size=10, color=BACKWARD, **place).set_gid(f"step-{step}-name")
    ax.text(gap * 5, -2.2, "1", size=10, color=BACKWARD, **place).set_gid(f"step-{len(boxes)}-one")
    for height, text in ((0, "value"), (-1.0, "derivative"), (-2.2, "product")):
        ax.text(-0.75, height, text, size=9, color="0.35", ha="right", va="center")
    ax.set(xlim=(-2.1, gap * 5 + 0.7), ylim=(-3, 0.7))
    ax.set_axis_off()
    return figure


def digits(scale=16):
    (x, y), (x_test, y_test) = fnn.datasets.digits()
    return x / np.float32(scale), y, x_test / np.float32(scale), y_test


def factors():
    """The gradients of three examples as outer products δ aᵀ, and their sum, from the tape of chapter 7."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    net, loss = fnn.mlp((5, 3), activation=fnn.Tanh()), fnn.SoftmaxCrossEntropy()
    params = net.init(key(0), (4,), dtype=np.float64)
    tape = fnn.backprop(net, loss)(params, x, y)
    delta, a = net.factors(params, tape.residuals, tape.deltas)[0].w
    each = np.einsum("no,ni->noi", delta, a)[:3]
    figure, axes = canvas(1, 1, (10, 3))
    ax, limits, at = axes[0, 0], [abs(v).max() for v in (delta[:3], a[:3], each)], 0.0
    style = {"cmap": "cividis", "aspect": "auto"}
    for n, g in enumerate(each):
        for values, limit, left, top in (
            (delta[n][:, None], limits[0], at, 0),
            (a[n][None], limits[1], at + 1.4, 1.4),
            (g, limits[2], at + 1.4, 0),
        ):
            rows, columns = values.shape
            place = (left, left + columns, top - rows if top == 0 else top - 1, top)
            ax.imshow(values, extent=place, vmin=-limit, vmax=limit, **style)
        for where, text in (
            ((at + 0.5, 0.35), f"δ{'₁₂₃'[n]}"),
            ((at + 0.9, 0.9), f"a{'₁₂₃'[n]}"),
            ((at + 3.4, -5.6), f"g{'₁₂₃'[n]}"),
        ):
            ax.text(*where, text, ha="center", va="center", size=11)
        at += 6.6
        ax.text(at - 0.6 + 0.35 * (n == 2), -2.5, "+" if n < 2 else "+…=", ha="center", va="center", size=12)
    total = np.einsum("no,ni->oi", delta, a)
    ax.imshow(total, extent=(at + 0.6, at + 4.6, -5, 0), vmin=-abs(total).max(), vmax=abs(total).max(), **style)
    ax.text(at + 2.6, -5.6, "δᵀ a, the sum over the batch", ha="center", va="center", size=11)
    ax.set(xlim=(-0.3, at + 5.6), ylim=(-6.1, 1.8), aspect="equal")
    ax.set_axis_off()
    return figure


def gradients():
    """The error at each layer of deep networks before training."""
    x, y, _, _ = digits()
    figure, axes = canvas(1, 1, (7, 3.4))
    ax, loss = axes[0, 0], fnn.SoftmaxCrossEntropy()
    kinds = {
        "ReLU, weights of spread ½": (fnn.Relu(), fnn.Normal(0.5)),
        "ReLU, He's initialization": (fnn.Relu(), fnn.HeNormal()),
        "sigmoid": (fnn.Sigmoid(), fnn.LecunNormal()),
    }
    for i, (name, (activation, initializer)) in enumerate(kinds.items()):
        net = fnn.mlp((32,) * 8 + (10,), activation, initializer)
        found = fnn.diagnostics.statistics(net, loss)(net.init(key(0), (64,)), x[:500], y[:500])
        ax.semilogy(range(1, 10), found.delta[::2], STYLES[i] + MARKERS[i], color=COLORS[i], label=name)
    ax.set(xlabel="dense layer", ylabel="‖δ‖ of an example", xticks=range(1, 10))
    ax.legend(frameon=False)
    plots.common.no_frame(ax)
    return figure


def overfitting():
    """300 digits, a fifth of them with a random label: both costs by epoch."""
    x, y, x_test, y_test = digits()
    rng, few, labels = np.random.default_rng(0), x[:300], y[:300].copy()
    rng.integers(0, 10, size=150)  # as in the chapter
    wrong = rng.random(300) < 0.2
    labels[wrong] = rng.integers(0, 10, size=wrong.sum())
    nets = {
        "no remedy": fnn.mlp((64, 10)),
        "dropout": fnn.Serial((fnn.Dense(64), fnn.Relu(), fnn.Dropout(0.5), fnn.Dense(10))),
    }
    figure, axes = canvas(1, 2, (9, 3.2))
    for ax, (name, net) in zip(axes[0], nets.items(), strict=True):
        options = {"key": key(0), "epochs": 60, "batch_size": 50, "validation": (x_test, y_test)}
        _, history = fnn.fit(net, fnn.SoftmaxCrossEntropy(), fnn.Adam(0.005), (few, labels), **options)
        epochs, held = range(1, 61), history["validation_loss"]
        ax.plot(epochs, history["loss"], "--", color=BLUE, label="training")
        ax.plot(epochs, held, color=ORANGE, label="validation")
        ax.plot(1 + held.argmin(), held.min(), "v", color="black", label=f"its minimum, {held.min():.2f}")
        ax.set(title=name, xlabel="epoch", ylabel="cost", ylim=(0, 1.6))
        ax.legend(frameon=False)
        plots.common.no_frame(ax)
    return figure


def optimizers():
    """The cost of a network with two weights, w₂ tanh(w₁ x), and the first 15 steps of four optimizers."""
    net, loss = fnn.Serial((fnn.Dense(1, bias=False), fnn.Tanh(), fnn.Dense(1, bias=False))), fnn.Quadratic()
    x = np.linspace(-2, 2, 40)[:, None]
    y = 1.5 * np.tanh(1.2 * x)
    params = lambda w: (
        fnn.DenseParams(np.reshape(w[0], (1, 1)), ()),
        (),
        fnn.DenseParams(np.reshape(w[1], (1, 1)), ()),
    )
    of, grad = fnn.value_and_grad(net, loss), fnn.grad(net, loss)
    gradient = lambda w: np.array([float(g.w[0, 0]) for g in grad(params(w), x, y)[::2]])
    along = np.linspace(-3, 2.2, 61), np.linspace(-2.4, 2.2, 61)
    surface = [[of(params((w1, w2)), x, y)[0] for w1 in along[0]] for w2 in along[1]]
    figure, axes = canvas(1, 4, (11, 3.2))
    ways = {"Sgd": fnn.Sgd(0.1), "Momentum": fnn.Momentum(0.1, 0.9), "RMSProp": fnn.RMSProp(0.1), "Adam": fnn.Adam(0.1)}
    for ax, (name, optimizer) in zip(axes[0], ways.items(), strict=True):
        way = path(optimizer, gradient, [0.05, -0.6], 15)
        ax.contourf(
            *along, surface, levels=[0, 0.002, 0.02, 0.1, 0.3, 0.6, 1, 1.5, 2, 3, 5], cmap="cividis_r", extend="max"
        )
        ax.plot(*way.T, "-o", color="white", markersize=4.5, linewidth=2)
        ax.plot(*way.T, "-o", color=ORANGE, markersize=3, linewidth=1)
        ax.plot(*way[0], "X", color="white", markeredgecolor="black", markersize=9)
        ax.set(
            title=f"{name}: C = {float(of(params(way[-1]), x, y)[0]):.4f}",
            xlabel="w₁",
            ylabel="w₂" if name == "Sgd" else "",
        )
    return figure


def schedules():
    """Four learning rates by step."""
    figure, axes = canvas(1, 1, (7, 3))
    ax, t = axes[0, 0], np.arange(200)
    rates = {
        "Constant": fnn.schedules.Constant(0.1),
        "CosineAnnealing": fnn.schedules.CosineAnnealing(0.1, steps=200),
        "StepDecay": fnn.schedules.StepDecay(0.1, factor=0.1, every=100),
        "OneCycle": fnn.schedules.OneCycle(0.1, steps=200),
    }
    for i, (name, rate) in enumerate(rates.items()):
        ax.plot(t, np.broadcast_to(rate(t), t.shape), STYLES[i], color=COLORS[i], label=name)
    ax.set(xlabel="step", ylabel="learning rate", ylim=(0, 0.115))
    ax.legend(frameon=False, bbox_to_anchor=(1, 0.9), loc="upper left")
    plots.common.no_frame(ax)
    return figure


def filters():
    """A digit, two filters, and their responses."""
    image = digits(1)[0][0].reshape(1, 8, 8, 1).repeat(4, axis=1).repeat(4, axis=2)
    smooth = fnn.Conv(1, (5, 5), padding="same")
    image = smooth.apply(fnn.DenseParams(np.full((1, 5, 5, 1), 1 / 400, np.float32), np.zeros(1, np.float32)), image)
    sobel = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)
    w = np.stack([sobel, sobel.T])[..., None]
    conv = fnn.Conv(2, (3, 3))
    responses = conv.apply(fnn.DenseParams(w, np.zeros(2, np.float32)), image)[0]
    figure, axes = canvas(1, 5, (11, 2.6))
    pictures = {"the image": image[0, :, :, 0], "filter 1": w[0, :, :, 0], "its response": responses[..., 0]}
    pictures |= {"filter 2": w[1, :, :, 0], "its response ": responses[..., 1]}
    for ax, (name, values) in zip(axes[0], pictures.items(), strict=True):
        limit = abs(values).max()
        ax.imshow(values, cmap="cividis", vmin=0 if name == "the image" else -limit, vmax=limit)
        ax.set(title=name, xticks=[], yticks=[])
        for (i, j), v in np.ndenumerate(values) if values.size == 9 else ():
            ax.text(
                j, i, f"{v:g}".replace("-", "−"), ha="center", va="center", color="black" if v > 0 else "white", size=12
            )
    return figure


def through_time():
    """States and errors of an Elman layer with small U, and of an LSTM with open forget gates."""
    rng, length = np.random.default_rng(0), 24
    x = 0.3 * rng.normal(size=(length, 1)).astype(np.float32)
    x[0] = 1.0
    figure, axes = canvas(1, 2, (10, 3.8))
    kinds = {"Rnn, small U": fnn.Rnn(6, recurrent_initializer=fnn.Normal(0.15)), "Lstm, forget bias 5": fnn.Lstm(6)}
    for ax, (name, layer) in zip(axes[0], kinds.items(), strict=True):
        net = fnn.Serial((layer, fnn.Dense(2)))
        first, last = net.init(key(0), x.shape)
        if name.startswith("Lstm"):
            bias = first.b.copy()
            bias[6:12] = 5
            first = first._replace(b=bias)
        plots.unrolled(ax, net, (first, last), x, loss=fnn.SoftmaxCrossEntropy(), y=1)
        ax.set_title(name)
    return figure


PICTURES = [neuron, two_moons, costs, descent, flow, one_weight, factors]
PICTURES += [gradients, overfitting, optimizers, schedules, filters, through_time]
ANIMATED = {two_moons: 0.8, flow: 1.5, one_weight: 1.2}


def made(draw):
    """The name of a picture and its bytes."""
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "fnn"}):
        figure, file = draw(), io.BytesIO()
        if draw in ANIMATED:
            text = re.sub(r"\n\s*", "\n", plots.animated(figure, seconds=ANIMATED[draw]))
            tenths = lambda found: re.sub(
                r"(\.\d)\d+|\s*\n(?=[A-Z])", r"\1", found[0]
            )  # of a point are enough for a coordinate
            return f"{draw.__name__}.svg", re.sub(r'\b(d|x|y)="[^"]*"', tenths, text).encode()
        figure.savefig(file, dpi=120, metadata={"Software": None})
    few = images.open(file).convert("RGB").quantize(128, method=images.Quantize.MEDIANCUT, dither=images.Dither.NONE)
    file = io.BytesIO()
    few.save(file, "PNG", optimize=True)
    return f"{draw.__name__}.png", file.getvalue()


def same(name, new, old):
    """Whether a picture shows the same, on any machine: its texts if it is an SVG, else almost all of its pixels."""
    if name.endswith(".svg"):
        texts = lambda data: re.findall(r"<!--(.*?)-->|id=\"((?:step|during)-.*?)\"", data.decode(), re.DOTALL)
        return texts(new) == texts(old)
    new, old = (np.asarray(images.open(io.BytesIO(data)).convert("L"), float) for data in (new, old))
    return new.shape == old.shape and (abs(new - old) > 64).mean() < 0.01


def main():
    folder, check = BOOK / "pictures", "--check" in sys.argv
    drawn = dict(map(made, PICTURES))
    faults = []
    if check:
        there = {path.name: path.read_bytes() for path in folder.iterdir()}
        faults += [f"{name}: no longer drawn" for name in there.keys() - drawn.keys()]
        faults += [f"{name}: missing" for name in drawn.keys() - there.keys()]
        faults += [
            f"{name}: out of date" for name in drawn.keys() & there.keys() if not same(name, drawn[name], there[name])
        ]
    else:
        folder.mkdir(exist_ok=True)
        for name, data in drawn.items():
            (folder / name).write_bytes(data)
    chapters = "".join(path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("*.md")))
    shown = dict(map(reversed, re.findall(r"!\[([^]]*)\]\(pictures/([^)]*)\)", chapters)))
    faults += [f"{name}: not shown in any chapter" for name in drawn.keys() - shown.keys()]
    faults += [f"{name}: shown, but not drawn" for name in shown.keys() - drawn.keys()]
    faults += [f"{name}: no description" for name, text in shown.items() if len(text) < 20]
    print(f"{len(drawn)} pictures, {sum(map(len, drawn.values())) / 1e6:.2f} MB")
    if faults:
        sys.exit("\n".join(sorted(faults)))


if __name__ == "__main__":
    main()
