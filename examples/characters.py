"""A character model: an LSTM that predicts the next character of Python's own documentation, and then writes some.

    python examples/characters.py

The text is what `help()` says about the language, about 200,000 characters that every Python ships with. The network
sees 64 characters and predicts the next one at each position, so the cost of an example is a sum over its positions. It
is compared with the frequencies of single characters and of pairs. The figure, with the surprise at each character of a
held-out sentence, is saved to out/characters/characters.png.
"""

import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, LENGTH, EPOCHS, BATCH = Path("out/characters"), 64, 12, 32

# 1. The text as numbers: the most frequent 63 characters, and one for all others.
text = "\n".join(topics[name] for name in sorted(topics))[:200_000]
letters, counts = np.unique(list(text), return_counts=True)
letters = ["?", *letters[np.argsort(-counts)][:63]]
number = {letter: i for i, letter in enumerate(letters)}
symbols = np.array([number.get(letter, 0) for letter in text])
windows = np.lib.stride_tricks.sliding_window_view(symbols, LENGTH + 1)[::LENGTH]
x, y = windows[:, :-1], windows[:, 1:]  # (N, T) each: the next character is the label of each position
cut = len(x) * 9 // 10
train, test = (x[:cut], y[:cut]), (x[cut:], y[cut:])


# 2. Bits for each character: of the network, and of frequencies, counted with one more for each.
def bits_of_frequencies(pairs):
    table = np.ones((len(letters), len(letters)))
    np.add.at(table, (train[0], train[1]), 1)
    table = table if pairs else np.broadcast_to(table.sum(axis=0), table.shape)
    return float(-np.log2((table / table.sum(axis=1, keepdims=True))[test]).mean())


layers = fnn.Embedding(len(letters), 32), fnn.Lstm(128, all_states=True), fnn.Dense(len(letters))
net, loss = fnn.Serial(layers), fnn.SoftmaxCrossEntropy()
print(fnn.summary(net, (LENGTH,)))
optimizer = fnn.ClipByGlobalNorm(fnn.Adam(fnn.schedules.CosineAnnealing(6e-3, EPOCHS * -(-cut // BATCH))), 50.0)
begun = time.perf_counter()
state, history = fnn.fit(
    net, loss, optimizer, train, key=fnn.random.key(0), epochs=EPOCHS, batch_size=BATCH, validation=test
)
print(f"{EPOCHS} epochs in {time.perf_counter() - begun:.0f} s")
scale = LENGTH * np.log(2)
curves = {name: history[key] / scale for name, key in (("training", "loss"), ("held out", "validation_loss"))}
bits = {"single characters": bits_of_frequencies(False), "pairs": bits_of_frequencies(True)}
bits["LSTM"] = float(curves["held out"][-1])
for name, value in bits.items():
    print(f"{name:18} {value:.2f} bits for each character")

# 3. It writes: each character is drawn from what the network predicts after the last 64.
apply = fnn.backend.jit(net.apply)
written, key = list(test[0][0]), fnn.random.key(1)
for i in range(200):
    logits = np.asarray(apply(state.params, np.array([written[-LENGTH:]])))[0, -1]
    noise = -np.log(-np.log(np.asarray(fnn.random.uniform(fnn.random.fold_in(key, i), logits.shape)) + 1e-20) + 1e-20)
    written.append(int((logits / 0.7 + noise).argmax()))  # Gumbel's way to draw from a softmax, a little cooled
print("\n" + "".join(letters[i] for i in written[LENGTH:]) + "\n")

# 4. The figure.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=(1, 2))
fnn.plots.learning_curves(left, curves).set(title="Training", xlabel="epoch", ylabel="bits for each character")
left.axhline(bits["pairs"], color="0.6", linestyle=":")
left.annotate("pairs", (EPOCHS, bits["pairs"]), (0, 3), textcoords="offset points", color="0.4", ha="right")
shown = max(range(len(test[1])), key=lambda n: len(set(test[1][n])))  # a lively passage, not a ruled line
probability = np.asarray(loss.predict(net.apply(state.params, test[0][shown : shown + 1])))[0]
surprise = -np.log2(probability[np.arange(LENGTH), test[1][shown]])
right.bar(np.arange(LENGTH), surprise, color="#0072B2")
right.set_xticks(np.arange(LENGTH), [letters[i].replace("\n", "↵") for i in test[1][shown]], family="monospace", size=7)
right.set(title="What surprises it in a held-out passage", ylabel="bits", xlim=(-0.7, LENGTH - 0.3))
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "characters.png", dpi=160)
print(f"picture: {OUT / 'characters.png'}")

if not bits["LSTM"] < bits["pairs"] - 0.4:
    sys.exit(f"expected at least 0.4 bits less than pairs, got {bits}")
