"""Mislabelled data: 400 of 8,000 MNIST images get false labels, and the examples' gradients reveal which.

    python examples/mislabelled.py --download          downloads the four files (11 MB) to the user's cache, once
    FNN_DATA=FOLDER python examples/mislabelled.py     uses files that are there already

A network learns from the labels as given, and the examples are ranked by suspicion. The loss is one measure, but the
network was trained on that very label. So each label is predicted from all others, by regression on their gradients:

    gᵢ = ∂(r · zᵢ)/∂θ                      of the logits z with random signs r, so that no label enters
    Kᵢⱼ = exp((cos(gᵢ, gⱼ) − 1) / 0.3)     by fnn.per_example.gram;        A = (K + 0.2 I)⁻¹
    ‖eᵢ‖² with eᵢ = (A Y)ᵢ / Aᵢᵢ           label i, as a row of Y (N, 10), minus its prediction from all others

A. Jacot et al., "Neural tangent kernel" (2018); leaving one out: C. Rasmussen, C. Williams, "Gaussian processes for
machine learning" (2006), eq. 5.12. No ranking uses the true labels, except that the loss is also shown at its best
epoch according to them. The gain comes from leaving one out with a kernel, not from the gradients: a kernel of pixels
does as well (see the table).
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt, linalg = (fnn.errors.require(name, "examples") for name in ("matplotlib.pyplot", "scipy.linalg"))
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, N, FALSE, SEEDS, EPOCHS = Path("out/mislabelled"), 8000, 400, (1, 2, 3), 8
(x, y), _ = fnn.datasets.mnist(download="--download" in sys.argv)
x, truth = x[-N:] / np.float32(255), y[-N:].astype(int)  # 0.3, 0.2 and the epochs were chosen on other images
net, loss = fnn.mlp((128, 10), initializer=fnn.HeNormal()), fnn.SoftmaxCrossEntropy()
cost = lambda params, x, given: np.asarray(loss.value(net.apply(params, x), given))


def left_out(products):
    """The function of the given labels that is ‖eᵢ‖² (N,), from the inner products (N, N)."""
    norms = np.sqrt(products.diagonal())
    kernel = np.exp((products / norms / norms[:, None] - 1) / np.float32(0.3))
    kernel[np.diag_indices(N)] += 0.2
    a, _ = linalg.lapack.spotri(linalg.lapack.spotrf(kernel.T, overwrite_a=True)[0], overwrite_c=True)  # by Cholesky
    return lambda given: ((linalg.blas.ssymm(1, a, np.eye(10)[given]) / a.diagonal()[:, None]) ** 2).sum(axis=1)


def learn(key, x, given, epochs):
    """The parameters after each epoch."""
    state = fnn.init_state(net, fnn.Adam(learning_rate=1e-3), key, (784,))
    for _ in range(epochs):
        state, _ = fnn.train(net, loss, state, (x, given), epochs=1, batch_size=128)
        yield state.params


# 1. For each seed: false labels, a network that learns them, and the rankings: % false among the first 1, 2 ... N.
gram = fnn.backend.jit(fnn.per_example.gram(net, fnn.Quadratic()))
of_pixels, parts, runs = left_out(x @ x.T), np.arange(N) % 5, []
for seed in SEEDS:
    rng, key, given, unseen = np.random.default_rng(seed), fnn.random.key(seed), truth.copy(), np.zeros(N)
    chosen = rng.choice(N, FALSE, replace=False)
    given[chosen] = (given[chosen] + rng.integers(1, 10, FALSE)) % 10
    epochs = list(learn(key, x, given, epochs=12))
    params, r = epochs[EPOCHS - 1], rng.choice((-1, 1), 10)
    products = gram(params, x, net.apply(params, x) - r)  # with the targets z − r the error of the quadratic cost is r
    for mine, others in ((parts == part, parts != part) for part in range(5)):
        *_, last = learn(key, x[others], given[others], EPOCHS)
        unseen[mine] = cost(last, x[mine], given[mine])
    scores = {
        "kernel of the gradients, one left out": left_out(np.asarray(products))(given),
        "kernel of the pixels, one left out": of_pixels(given),
        "loss in 5 networks, a fifth left out": unseen,
        "norm of the gradient": np.asarray(fnn.per_example.norms(net, loss)(params, x, given)),
        **{f"loss after {n} epochs": cost(params, x, given) for n, params in enumerate(epochs, 1)},
    }
    orders = [np.argsort(-score) for score in scores.values()]
    runs.append(100 * np.cumsum((given != truth)[orders], axis=1) / np.arange(1, N + 1))  # (rankings, N)
curves, at = (dict(zip(scores, values, strict=True)) for values in (np.mean(runs, 0), np.mean(runs, 0)[:, FALSE - 1]))
(gradients, pixels, fifth, norm), best = list(at)[:4], max(list(at)[4:], key=at.get)
print(f"% false among the {FALSE} most suspected of {N:,}, mean of {len(SEEDS)} draws; chance {100 * FALSE / N:.0f}")
for name in dict.fromkeys((gradients, pixels, fifth, best, f"loss after {EPOCHS} epochs", norm)):
    print(f"  {name + ', its best' * (name == best):<38}{at[name]:5.1f}")

# 2. The figure: how reliable each ranking is; for the last draw, the first suspects, and the false accusations.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9})
left, right = plt.figure(figsize=(12, 5), layout="constrained").subfigures(1, 2, width_ratios=(1, 1.1))
axes, wronged = left.subplots(), orders[0][(given == truth)[orders[0]]]
looks = ("-", "#D55E00"), (":", "#000000"), ("-.", "#009E73"), ("--", "#0072B2")
for name, (style, color) in zip((gradients, pixels, fifth, best), looks, strict=True):
    axes.plot(np.arange(1, N + 1), curves[name], style, color=color, label=name)
axes.axvline(FALSE, color="0.8", zorder=0)
axes.set(xlim=(0, 2 * FALSE), ylim=(40, 101), xlabel="images looked at", ylabel="of these with a false label (%)")
axes.legend(loc="lower left", framealpha=1, edgecolor="white")
titles = "suspected most: given label (MNIST's own)", "suspected most among MNIST's own labels"
for part, title, who in zip(right.subfigures(2), titles, (orders[0], wronged), strict=True):
    part.suptitle(title, fontsize=10)
    for cell, i in zip(part.subplots(2, 8).flat, who, strict=False):
        cell.imshow(x[i].reshape(28, 28), cmap="gray_r")
        cell.set(xticks=[], yticks=[], title=f"{given[i]} ({truth[i]})", frame_on=False)
OUT.mkdir(parents=True, exist_ok=True)
plt.savefig(OUT / "mislabelled.png", dpi=160)
print(f"picture: {OUT / 'mislabelled.png'}")
if not (at[gradients] > max(93, at[best] + 4, at[fifth] + 4) and abs(at[gradients] - at[pixels]) < 2):
    sys.exit(f"expected over 93 %, 4 more than by any loss, and within 2 of the pixels; got {at}")
