"""What a few hidden units can do: XOR, the product of two numbers, and the product of three bits.

    python examples/multiplication.py

XOR is learnt; the weights for the products are set by hand. For c = σ''(0), d = σ''''(0) and four units σ, by Taylor:

    [σ(λ(u+v)) + σ(−λ(u+v)) − σ(λ(u−v)) − σ(−λ(u−v))] / (4 λ² c) = uv + λ² uv (u² + v²) d / (6 c) + O(λ⁴)

so with a small λ the product is arbitrarily accurate (H. Lin, M. Tegmark, D. Rolnick, "Why does deep and cheap learning
work so well?", 2017, eq. 11). The figure is saved to out/multiplication/multiplication.png.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, BLUE, ORANGE = Path("out/multiplication"), "#0072B2", "#D55E00"

# 1. XOR, the product of two signs in disguise: two hidden units can learn it, a single unit cannot.
x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
y = (x[:, :1] * x[:, 1:] < 0).astype(int)
xor, loss = fnn.mlp((2, 1), activation=fnn.Tanh()), fnn.SigmoidBinaryCrossEntropy()
state, _ = fnn.fit(xor, loss, fnn.Momentum(0.1), (x, y), key=fnn.random.key(0), epochs=500, batch_size=4)
learnt = np.asarray(loss.predict(xor.apply(state.params, x)))
print("XOR      " + ", ".join(f"{u:+.0f} {v:+.0f} → {p:.3f}" for (u, v), p in zip(x, learnt[:, 0], strict=True)))

# 2. Four hidden units that multiply. Softplus has c = ¼ and d = −⅛, so the error is −λ² uv (u² + v²) / 12 + O(λ⁴).
multiply = fnn.Serial((fnn.Dense(4, bias=False), fnn.Softplus(), fnn.Dense(1, bias=False)))
uv = np.random.default_rng(0).uniform(-1, 1, size=(1000, 2))
scales, errors = np.array([0.3, 0.1, 0.03, 0.01]), []
for scale in scales:
    hidden = scale * np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    output = np.array([[1.0, 1.0, -1.0, -1.0]]) / scale**2
    params = (fnn.DenseParams(hidden, ()), (), fnn.DenseParams(output, ()))  # NumPy in float64, as is all else
    errors.append(abs(multiply.apply(params, uv)[:, 0] - uv.prod(axis=1)).max())
    print(f"u v      λ = {scale:<6g}largest error {errors[-1]:.1e}")
slope = np.polyfit(np.log(scales), np.log(errors), 1)[0]
taylor = abs(uv.prod(axis=1) * (uv**2).sum(axis=1)).max() / 12  # the largest error, over λ²
print(f"         slope {slope:.3f}, error {errors[-1] / scales[-1] ** 2:.4f} λ²; by Taylor 2 and {taylor:.4f} λ²")

# 3. One hidden unit that multiplies three bits: their sum minus 2 is 1 if all are 1, and at most 0 if any is 0.
bits = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
unit = fnn.Serial((fnn.Dense(1), fnn.Relu()))
products = unit.apply((fnn.DenseParams(np.ones((1, 3)), np.array([-2.0])), ()), bits)[:, 0]
names = ["".join(f"{bit:.0f}" for bit in row) for row in bits]
print("u v w    " + ", ".join(f"{name} → {p:g}" for name, p in zip(names, products, strict=True)))

# 4. The figure.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
figure, (of_xor, of_error, of_bits) = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
plane = np.stack(np.meshgrid(*[np.linspace(-1.6, 1.6, 200)] * 2), axis=-1)
chance = np.asarray(loss.predict(xor.apply(state.params, plane.reshape(-1, 2)))).reshape(200, 200)
of_xor.contourf(*plane.T, chance.T, levels=np.linspace(0, 1, 11), cmap="Greys", vmax=2)
for w, b, style in zip(*map(np.asarray, state.params[0]), ("-", "--"), strict=True):
    of_xor.contour(*plane.T, (plane @ w + b).T, [0], colors="black", linestyles=style)
for (u, v), label in zip(x, y[:, 0], strict=True):
    of_xor.plot(u, v, "so"[label], color=(ORANGE, BLUE)[label], markersize=16, mec="white")
    of_xor.annotate(f"{label}", (u, v), ha="center", va="center_baseline", color="white", weight="bold")
of_xor.set(title="XOR: two hidden units, a line each", xlabel="input u", ylabel="input v", aspect="equal")
of_error.loglog(scales, taylor * scales**2, "-", color=ORANGE)
of_error.loglog(scales, errors, "o", color=BLUE)
for text, i, color, offset in (("found", 1, BLUE, (-44, 2)), ("by Taylor: ∝ λ²", 2, ORANGE, (14, 0))):
    of_error.annotate(text, (scales[i], errors[i]), offset, textcoords="offset points", color=color)
of_error.set(title="u v: by four hidden units", xlabel="scale λ of the weights", ylabel="largest error, |u|, |v| ≤ 1")
of_bits.plot([0, 2, 3.3], [0, 0, 1.3], color=ORANGE)
of_bits.plot(bits.sum(axis=1), products, "o", color=BLUE)
for ones in range(4):
    cases = "\n".join(name for name in names if name.count("1") == ones)
    of_bits.annotate(cases, (ones, float(ones == 3)), (-8, 6), textcoords="offset points", ha="center", color=BLUE)
of_bits.set(title="u v w: by one, ReLU(u + v + w − 2)", xlabel="u + v + w", ylabel="output")
of_bits.set(xlim=(-0.4, 3.4), xticks=range(4), yticks=(0, 1))
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "multiplication.png", dpi=160)
print(f"picture: {OUT / 'multiplication.png'}")

if not (abs(learnt - y) < 0.05).all():
    sys.exit(f"expected XOR to within 0.05, got {learnt[:, 0]}")
if not abs(slope - 2) <= 0.05:
    sys.exit(f"expected an error that falls as λ², got the slope {slope:.3f}")
if not (products == bits.prod(axis=1)).all():
    sys.exit(f"expected the products of the bits, got {products}")
