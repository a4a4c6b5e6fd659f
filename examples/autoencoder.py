"""An autoencoder: a network learns to reconstruct each digit from eight numbers, and does so better than PCA.

    python examples/autoencoder.py

The layer in the middle is too narrow for the 64 pixels, so the network has to find what the images have in common. With
linear units the principal components are optimal: P. Baldi, K. Hornik (1989). With nonlinear ones the network can do
better: G. Hinton, R. Salakhutdinov, "Reducing the dimensionality of data with neural networks" (2006).
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, CODE = Path("out/autoencoder"), 8

# 1. The images are both input and target, as grey levels from 0 to 1.
(x, _), (x_test, y_test) = fnn.datasets.digits()
x, x_test = (x / 16).astype(np.float32), (x_test / 16).astype(np.float32)

# 2. The network: an encoder into CODE numbers and a decoder, each a Serial, so that each can be used on its own.
encoder = fnn.mlp((64, CODE))
decoder = fnn.Serial((fnn.Dense(64), fnn.Relu(), fnn.Dense(64), fnn.Sigmoid()))
net, loss = fnn.Serial((encoder, decoder)), fnn.MeanSquaredError()
state = fnn.init_state(net, fnn.Adam(0.002), fnn.random.key(0), (64,))
state, _ = fnn.train(net, loss, state, (x, x), epochs=200, batch_size=32)
codes = encoder.apply(state.params[0], x_test)  # (450, CODE)
by_network = np.asarray(decoder.apply(state.params[1], codes))

# 3. PCA with as many numbers: the mean, and the first right singular vectors of the centred images.
mean = x.mean(axis=0)
components = np.linalg.svd(x - mean, full_matrices=False)[2][:CODE]  # (CODE, 64)
by_pca = mean + (x_test - mean) @ components.T @ components

errors = {name: float(((found - x_test) ** 2).mean()) for name, found in (("network", by_network), ("PCA", by_pca))}
spread = float(((x_test - mean) ** 2).mean())
print(f"64 pixels from {CODE} numbers, {len(x_test)} held-out digits")
print("         squared error per pixel   variance explained")
for name, error in errors.items():
    print(f"{name:<7}  {error:23.4f}   {1 - error / spread:18.1%}")

# 4. The figure: the first held-out digit of each class.
first = [int(np.argmax(y_test == digit)) for digit in range(10)]
figure, grid = plt.subplots(3, 10, figsize=(10, 3.4), layout="constrained")
labels = ("original", f"network\n{errors['network']:.4f}", f"PCA\n{errors['PCA']:.4f}")
for row, label, images in zip(grid, labels, (x_test, by_network, by_pca), strict=True):
    for axes, image in zip(row, images[first], strict=True):
        axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.8")
    row[0].set_ylabel(label, rotation=0, ha="right", va="center")
figure.suptitle(f"Held-out digits, 64 pixels, drawn from {CODE} numbers (squared error per pixel)", fontsize=11)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "autoencoder.png", dpi=160)
print(f"picture: {OUT / 'autoencoder.png'}")

if errors["network"] > 0.65 * errors["PCA"]:
    sys.exit(f"expected at most 65 % of the error of PCA, got {errors}")
