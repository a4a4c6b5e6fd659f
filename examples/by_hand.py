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
OUT, UP = Path("out/by_hand"), "⁰¹²³"
leaves = lambda tree: np.concatenate([np.ravel(leaf) for layer in tree for leaf in layer])
in_scalars = lambda a, layer: np.frompyfunc(autodiff.sigmoid, 1, 1)(np.array(layer[0]) @ a + np.array(layer[1]))


def show(name, equation, value):
    for i, row in enumerate(np.atleast_2d(value)):
        print(f"{'' if i else name:<3}{'' if i else equation:>26}" + "".join(f"{number:>12.6f}" for number in row))


def built(layers):
    """The network of these layers, its cost, and its parameters."""
    net = fnn.Serial(tuple(of for w, _ in layers for of in (fnn.Dense(len(w)), fnn.Sigmoid())))
    return net, fnn.Quadratic(), tuple(of for w, b in layers for of in (fnn.DenseParams(np.array(w), np.array(b)), ()))


def steps(title, layers, x, y):
    """Prints every step; returns the gradients (∂C/∂W, ∂C/∂b) of the layers, and how far they are off."""
    net, loss, params = built(layers)
    tape = fnn.backprop(net, loss)(params, [x], [y])
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
    return grads, abs(leaves(grads) / leaves(judge) - 1).max()


# 1. A chain of two neurons. Its derivatives are products along the chain, which plain arithmetic gives as well.
x, y, w1, b1, w2, b2 = 0.8, 1.0, 0.5, 0.1, -1.5, 0.4
of_chain, off = steps("A chain 1-1-1", chain := [([[w1]], [b1]), ([[w2]], [b2])], [x], [y])
a1 = 1 / (1 + np.exp(-(w1 * x + b1)))
a2 = 1 / (1 + np.exp(-(w2 * a1 + b2)))
δ2 = (a2 - y) * a2 * (1 - a2)  # ∂C/∂a² ∂a²/∂z²
δ1 = δ2 * w2 * a1 * (1 - a1)  # ∂C/∂z² ∂z²/∂a¹ ∂a¹/∂z¹

# 2. Two hidden layers: an error is a sum over all units that it reaches. Each layer has W, with a row per unit, and b.
network = [([[0.5, -0.4], [0.3, 0.8]], [0.1, -0.2]), ([[0.6, -1.0], [-0.7, 0.9]], [0.2, 0.1]), ([[1.2, -0.8]], [0.3])]
_, off_network = steps("\nA network 2-2-2-1", network, [1.0, 0.5], [1.0])
off = max(off, off_network, abs(leaves(of_chain) / [δ1 * x, δ1, δ2 * a1, δ2] - 1).max())
print(f"\nrelative difference from plain arithmetic, and from automatic differentiation: at most {off:.0e}")
assert off <= 1e-12, f"expected equal gradients, to 1e-12, got a relative difference of {off:.0e}"

figure, axes = plt.subplots(2, 1, figsize=(12.5, 10), height_ratios=(2, 3), layout="constrained")  # 3. The figure.
for ax, layers, inputs in (axes[0], chain, [x]), (axes[1], network, [1.0, 0.5]):
    fnn.plots.flow(ax, *built(layers), inputs, [1.0])
    ax.set_title("in each unit a and δ = ∂ℓ/∂z; at each line its weight w and ∂ℓ/∂w")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "by_hand.png", dpi=160)
print(f"picture: {OUT / 'by_hand.png'}")
