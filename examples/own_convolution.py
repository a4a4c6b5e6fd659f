"""Writing your own convolution, in five short methods: it trains in `fit` with checkpoints, on JAX and on NumPy.

    python examples/own_convolution.py

Its gradient is that of a dense layer with one position per patch, and so are its factors: per-example norms, clipping,
kernels and private training work without any further code.
"""

import sys
import tempfile
from dataclasses import dataclass

import numpy as np

import fnn
from fnn.backend import namespace
from fnn.matrices import product


@dataclass(frozen=True)
class Conv(fnn.Layer):
    """y_p = W x_p over all K × K patches x_p        x (N, H, H, C)   W (O, K·K·C)   y (N, H−K+1, H−K+1, O)"""

    channels: int
    size: int = 3

    def output_shape(self, input_shape):
        return (input_shape[0] - self.size + 1, input_shape[1] - self.size + 1, self.channels)

    def init(self, key, input_shape, dtype=np.float32):
        return fnn.HeNormal()(key, (self.channels, self.size**2 * input_shape[2]), dtype)

    def forward(self, w, x, key=None):
        rows = np.arange(x.shape[1] - self.size + 1)[:, None] + np.arange(self.size)
        patches = x[:, rows[:, None, :, None], rows[None, :, None, :]].reshape(len(x), len(rows), len(rows), -1)
        return product(patches, w.T), patches

    def backward(self, w, patches, dy):
        k, xp = self.size, namespace(dy)
        spread = product(dy, w).reshape(*dy.shape[:3], k, k, -1)  # each patch goes back to where it was cut out
        shifted = [(spread[:, :, :, a, b], a, b) for a in range(k) for b in range(k)]
        return sum(xp.pad(s, ((0, 0), (a, k - 1 - a), (b, k - 1 - b), (0, 0))) for s, a, b in shifted)

    def factors(self, w, patches, dy):
        return fnn.factors.Outer(dy.reshape(len(dy), -1, dy.shape[3]), patches.reshape(len(dy), -1, patches.shape[3]))


fnn.testing.check_layer(Conv(2), (5, 5, 3))
(x, y), (x_test, y_test) = ((images.reshape(-1, 8, 8, 1) / np.float32(16), y) for images, y in fnn.datasets.digits())
layers = (Conv(8), fnn.Relu(), Conv(16), fnn.Relu(), fnn.Flatten(), fnn.Dropout(0.3), fnn.Dense(10))
net, loss = fnn.Serial(layers), fnn.SoftmaxCrossEntropy()
for backend in ("numpy",) if fnn.backend.jax is None else ("numpy", "jax"):
    key, options = fnn.random.key(0, backend=backend), {"epochs": 12, "batch_size": 32}
    with tempfile.TemporaryDirectory() as folder:
        state, _ = fnn.fit(net, loss, fnn.Adam(2e-3), (x, y), key=key, checkpoint=folder, **options)
    accuracy = fnn.evaluate(net, loss, state.params, (x_test, y_test), metrics={"accuracy": fnn.accuracy})["accuracy"]
    norms = fnn.per_example.norms(net, loss)(state.params, x_test, y_test)
    print(f"{backend}: test accuracy {accuracy:.1%}, longest gradient of an example {float(norms.max()):.1f}")
    if accuracy < 0.96:
        sys.exit(f"expected a test accuracy of at least 96 %, got {accuracy:.2%}")
