"""The images behind a mistake: which training images make a network err, and what it does without them.

    python examples/influence.py

A careless annotator has labelled 40 % of the sevens among scikit-learn's training digits as ones. A network that
learns from these labels calls many sevens ones. For each mistake q on the test images and each training image j

    s_qj = (1/N) g_q · (A ⊗ G + λ)⁻¹ gⱼ        by fnn.influence, with the Kronecker factors of fnn.curvature.kfac

is the predicted increase of the cost of q if j were left out: positive for images that help, negative for those that
harm. Nothing here knows which training labels are false. Then the images that harm most, over all mistakes, are left
out, and the network is trained anew. The figure is saved to out/influence/influence.png.

Source: P. Koh, P. Liang, "Understanding black-box predictions via influence functions" (2017).
"""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one thread is faster for matrices this small
import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, DECAY, EPOCHS, SHOWN, LEFT_OUT = Path("out/influence"), 1e-3, 60, 5, 54

# 1. The data, with false labels, and a network that learns them.
(x, truth), (x_test, y_test) = fnn.datasets.digits()
x, x_test, truth, y_test = x / np.float32(16), x_test / np.float32(16), truth.astype(int), y_test.astype(int)
sevens, given = np.flatnonzero(truth == 7), truth.copy()
given[np.random.default_rng(0).choice(sevens, 2 * len(sevens) // 5, replace=False)] = 1
is_false, everyone = given != truth, np.arange(len(x))
net, loss, penalty = fnn.mlp((32, 10)), fnn.SoftmaxCrossEntropy(), fnn.L2(DECAY)


def learn(rows):
    """The parameters, and what the network calls the test images."""
    rate = fnn.schedules.CosineAnnealing(5e-3, steps=EPOCHS * -(-len(rows) // 32))
    state = fnn.init_state(net, fnn.Adam(rate), fnn.random.key(0, backend="numpy"), x.shape[1:])
    state, _ = fnn.train(net, loss, state, (x[rows], given[rows]), epochs=EPOCHS, batch_size=32, penalty=penalty)
    return state.params, np.asarray(net.apply(state.params, x_test)).argmax(axis=1)


params, called = learn(everyone)
wrong = np.flatnonzero(called != y_test)

# 2. Influence: scores (Q, N) of all pairs, and for the figure the first few of each kind for some sevens.
blocks = fnn.curvature.kfac(net, loss)(params, x, given)
scores = fnn.influence.scores(net, loss, DECAY)(params, blocks, (x_test[wrong], y_test[wrong]), (x, given))
order = np.argsort(scores.sum(axis=0))  # the most harmful first
share = 100 * np.cumsum(is_false[order]) / np.arange(1, len(x) + 1)
some = wrong[(y_test[wrong] == 7) & (called[wrong] == 1)][:4]
top = fnn.influence.top(net, loss, DECAY, SHOWN)(params, blocks, (x_test[some], y_test[some]), (x, given))

# 3. Without the most harmful images, and as a comparison without the same number of others, and without the false ones.
others = np.random.default_rng(1).choice(len(x), LEFT_OUT, replace=False)
kept = {"nothing": everyone, "images at random": np.setdiff1d(everyone, others)}
kept |= {"the most harmful": np.setdiff1d(everyone, order[:LEFT_OUT]), "all false labels": everyone[~is_false]}
calls = {name: called if rows is everyone else learn(rows)[1] for name, rows in kept.items()}
mistakes = {name: int(((y_test == 7) & (of == 1)).sum()) for name, of in calls.items()}
print(f"{is_false.sum()} of {len(x):,} training labels are false; {len(wrong)} of {len(x_test)} test images are wrong")
print(f"of the {LEFT_OUT} most harmful images {share[LEFT_OUT - 1]:.0f} % have a false label")
print("left out              sevens called ones   all mistakes")
for name, of in calls.items():
    print(f"{name:<20}{mistakes[name]:>12}{(of != y_test).sum():>18}")

# 4. The figure: mistakes with the images behind them, the precision, and the mistakes after all.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 8})
left, right = plt.figure(figsize=(13, 5), layout="constrained").subfigures(1, 2, width_ratios=(1.7, 1))
cells = left.subplots(len(some), 1 + 2 * SHOWN, gridspec_kw={"width_ratios": [1.4, *[1] * 2 * SHOWN]})
left.suptitle(" ")  # leaves room for the headings
for at, heading in ((0.06, "mistake"), (0.33, "training images that harm most"), (0.78, "that help most")):
    left.text(at, 0.96, heading, ha="center")
for row, query, harmful, helpful in zip(cells, some, *(np.asarray(m.indices) for m in top[::-1]), strict=True):
    pictures = [x_test[query], *x[harmful], *x[helpful]]
    titles = [f"{y_test[query]}, called {called[query]}", *given[harmful], *given[helpful]]
    colors = ["black", *("#D55E00" if is_false[j] else "black" for j in (*harmful, *helpful))]
    for cell, picture, title, color in zip(row, pictures, titles, colors, strict=True):
        cell.imshow(picture.reshape(8, 8), cmap="gray_r")
        cell.set(xticks=[], yticks=[], frame_on=False)
        cell.set_title(title, color=color)
upper, lower = right.subplots(2, 1)
upper.plot(np.arange(1, len(x) + 1), share, color="#0072B2")
upper.axvline(is_false.sum(), color="0.8", zorder=0)
upper.set(xlim=(0, 150), ylim=(0, 105), xlabel="images, the most harmful first", ylabel="with a false label (%)")
lower.barh(list(mistakes), list(mistakes.values()), color=["#999999", "#999999", "#D55E00", "#0072B2"])
lower.invert_yaxis()
lower.set(xlabel=f"of {(y_test == 7).sum()} test images of sevens, called ones", title="left out before training anew")
OUT.mkdir(parents=True, exist_ok=True)
plt.savefig(OUT / "influence.png", dpi=160)
print(f"picture: {OUT / 'influence.png'}")
after, before = mistakes["the most harmful"], min(mistakes["nothing"], mistakes["images at random"])
if not (share[LEFT_OUT - 1] > 80 and after <= before / 2):
    sys.exit(
        f"expected over 80 % false labels among the most harmful, and half as many sevens called ones; got {mistakes}"
    )
