"""Backpropagation for one example, step by step with round numbers, to follow with pencil and paper.

    python examples/by_hand.py

A chain 1-1-1 and a network 2-2-2-1 of sigmoid units, from the tape of `fnn.backprop`. BP1 to BP4 are the
equations of M. Nielsen, "Neural networks and deep learning" (2015), ch. 2. Picture: out/by_hand/by_hand.png.
"""

from functools import reduce
from pathlib import Path

import numpy as np

import fnn
from fnn import autodiff

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, UP, BLUE, ORANGE = Path("out/by_hand"), "⁰¹²³", "#0072B2", "#D55E00"
leaves = lambda tree: np.concatenate([np.ravel(leaf) for layer in tree for leaf in layer])
in_scalars = lambda a, layer: np.frompyfunc(autodiff.sigmoid, 1, 1)(np.array(layer[0]) @ a + np.array(layer[1]))


def show(name, equation, value):
    for i, row in enumerate(np.atleast_2d(value)):
        print(f"{'' if i else name:<3}{'' if i else equation:>26}" + "".join(f"{number:>12.6f}" for number in row))


def steps(title, layers, x, y):
    """Prints every step; returns a, δ and the gradients (∂C/∂W, ∂C/∂b) of the layers, and how far they are off."""
    net = fnn.Serial(tuple(of for w, _ in layers for of in (fnn.Dense(len(w)), fnn.Sigmoid())))
    params = tuple(of for w, b in layers for of in (fnn.DenseParams(np.array(w), np.array(b)), ()))
    tape = fnn.backprop(net, fnn.Quadratic())(params, [x], [y])
    grads, last = net.gradient(params, tape.residuals, tape.deltas)[::2], len(layers)
    # A layer's output is z for Dense and a for Sigmoid, so the δ of the textbook, ∂C/∂z, is the delta of Dense.
    z, a, delta = tape.outputs[::2], [np.array([x]), *tape.outputs[1::2]], tape.deltas[::2]
    print(f"{title}, target y = {y[0]:g}")
    show("", "x = a⁰", x)
    for n in range(1, last + 1):
        show("", f"z{UP[n]} = a{UP[n - 1]} (W{UP[n]})ᵀ + b{UP[n]}", z[n - 1])
        show("", f"a{UP[n]} = σ(z{UP[n]})", a[n])
    show("", f"C = ½ Σ (a{UP[last]} − y)²", tape.losses)
    show("BP1", f"δ{UP[last]} = (a{UP[last]} − y) ⊙ σ'(z{UP[last]})", delta[-1])
    for n in range(last - 1, 0, -1):
        show("BP2", f"δ{UP[n]} = (δ{UP[n + 1]} W{UP[n + 1]}) ⊙ σ'(z{UP[n]})", delta[n - 1])
    for n in range(last, 0, -1):
        show("BP3", f"∂C/∂b{UP[n]} = δ{UP[n]}", grads[n - 1].b)
        show("BP4", f"∂C/∂W{UP[n]} = (δ{UP[n]})ᵀ a{UP[n - 1]}", grads[n - 1].w)
    if jax := fnn.backend.jax:  # automatic differentiation, which knows none of these equations, is the judge
        jax.config.update("jax_enable_x64", True)
        judge = jax.grad(lambda p: 0.5 * ((net.apply(p, [x]) - np.array([y])) ** 2).sum())(params)[::2]
    else:
        judge = autodiff.grad(lambda layers: 0.5 * sum((reduce(in_scalars, layers, x) - np.array(y)) ** 2))(layers)
    return a, delta, grads, abs(leaves(grads) / leaves(judge) - 1).max()


def draw(axes, middle, layers, a, delta, grads):
    """A circle for each unit, with a above δ; on each edge its weight, and below it ∂C/∂w. A place is across + i up."""
    place = lambda n, i: 4 * n + 1j * (middle + 1.25 * (a[n].size - 1 - 2 * i))
    turned = lambda way: {"rotation": np.angle(way, deg=True), "fontsize": 8, "ha": "center", "va": "center"}
    label = lambda at, text, color, way=1: axes.text(at.real, at.imag, text, color=color, **turned(way))
    for n, i in [(n, i) for n, values in enumerate(a) for i in range(values.size)]:
        unit, (w, b), (dw, db) = place(n, i), layers[n - 1], grads[n - 1]
        axes.add_patch(plt.Circle((unit.real, unit.imag), 0.6, facecolor="white", edgecolor="black"))
        label(unit, f"a {a[n][0, i]:.4f}\nδ {delta[n - 1][0, i]:+.4f}" if n else f"x = {a[0][0, i]:g}", "black")
        if n > 0:
            label(unit + 0.75j, f"b {b[i]:g}", BLUE)
            label(unit - 0.75j, f"∂ {db[i]:+.4f}", ORANGE)
            for j in range(a[n - 1].size):
                way = unit - (below := place(n - 1, j))
                axes.plot((below.real, unit.real), (below.imag, unit.imag), color="0.6", linewidth=1, zorder=0)
                at, aside = below + way * (0.32 if way.imag else 0.5), 0.16j * way / abs(way)  # not where edges cross
                label(at + aside, f"w {w[i][j]:g}", BLUE, way)
                label(at - aside, f"∂ {dw[i, j]:+.4f}", ORANGE, way)


# 1. A chain of two neurons. Its derivatives are products along the chain, which plain arithmetic gives as well.
x, y, w1, b1, w2, b2 = 0.8, 1.0, 0.5, 0.1, -1.5, 0.4
*of_chain, off = steps("A chain 1-1-1", chain := [([[w1]], [b1]), ([[w2]], [b2])], [x], [y])
a1 = 1 / (1 + np.exp(-(w1 * x + b1)))
a2 = 1 / (1 + np.exp(-(w2 * a1 + b2)))
δ2 = (a2 - y) * a2 * (1 - a2)  # ∂C/∂a² ∂a²/∂z²
δ1 = δ2 * w2 * a1 * (1 - a1)  # ∂C/∂z² ∂z²/∂a¹ ∂a¹/∂z¹

# 2. Two hidden layers: an error is a sum over all units that it reaches. Each layer has W, with a row per unit, and b.
network = [([[0.5, -0.4], [0.3, 0.8]], [0.1, -0.2]), ([[0.6, -1.0], [-0.7, 0.9]], [0.2, 0.1]), ([[1.2, -0.8]], [0.3])]
*of_network, off_network = steps("\nA network 2-2-2-1", network, [1.0, 0.5], [1.0])
off = max(off, off_network, abs(leaves(of_chain[2]) / [δ1 * x, δ1, δ2 * a1, δ2] - 1).max())
print(f"\nrelative difference from plain arithmetic, and from automatic differentiation: at most {off:.0e}")
assert off <= 1e-12, f"expected equal gradients, to 1e-12, got a relative difference of {off:.0e}"

figure, axes = plt.subplots(figsize=(10, 6.2), layout="constrained")  # 3. The figure.
draw(axes, 3.9, chain, *of_chain)
draw(axes, 0, network, *of_network)
axes.set_title("circles: activation a, error δ = ∂C/∂z; blue: weight w, bias b; orange: ∂C/∂w, ∂C/∂b", size=10, pad=12)
axes.set(aspect="equal", xlim=(-0.7, 12.7), xticks=[], yticks=[], frame_on=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "by_hand.png", dpi=160)
print(f"picture: {OUT / 'by_hand.png'}")
