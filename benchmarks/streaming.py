"""An epoch over data that lie in a file: the memory that it takes, and the time, beside the same data in memory.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --smoke

784-128-10, batch 128, Adam: 1,370,000 examples of float32, a file of 4 GiB, made in `--folder` and deleted at the end.
Each turn is a fresh process that looks through the data and trains for an epoch by `fnn.fit`, compilation included. The
memory is the most that was resident at any time, the pages of the file among it. Here the file may lie in the system's
cache, as after it was written; what a disk adds depends on the disk.
"""

import argparse
import functools
import json
import os
import tempfile
import time
from pathlib import Path

from common import harness

SIDES = {  # the backend, whether the data stay in the file
    "JAX, in the file": ("jax", True),
    "NumPy, in the file": ("numpy", True),
    "JAX, in memory": ("jax", False),
    "NumPy, in memory": ("numpy", False),
}
BYTES = 784 * 4  # of an example


def make(folder, n):
    """x.npy and y.npy, some rows at a time: labels by a linear rule."""
    import numpy as np

    rng = np.random.default_rng(0)
    rule, y = rng.normal(size=(784, 10)).astype(np.float32), np.empty(n, np.int32)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (n, 784))
    for start in range(0, n, 10_000):
        rows = rng.standard_normal((min(10_000, n - start), 784), np.float32)
        x[start : start + len(rows)], y[start : start + len(rows)] = rows, (rows @ rule).argmax(axis=1)
    x.flush()
    np.save(folder / "y.npy", y)


def child(name, folder):
    """What a fresh process does: opens the data, and trains."""
    import fnn

    backend, mapped = SIDES[name]
    x = fnn.datasets.read_npy(Path(folder) / "x.npy", mapped=mapped)
    y = fnn.datasets.read_npy(Path(folder) / "y.npy")
    net, key = fnn.mlp((128, 10)), fnn.random.key(0, backend=backend)
    start = time.perf_counter()
    _, history = fnn.fit(net, fnn.SoftmaxCrossEntropy(), fnn.Adam(), (x, y), key=key, epochs=1, batch_size=128)
    seconds = time.perf_counter() - start
    with open("/proc/self/status") as status:
        peak = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak": peak, "loss": history["loss"][0]}))


def main():
    parser = harness.parser(__doc__, repeats=3)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the file of 4 GiB is made")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = harness.parse(parser)
    if options.child:
        child(*options.child)
        return
    n = 2_000 if options.smoke else 1_370_000
    spare = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    names = [name for name, (_, mapped) in SIDES.items() if mapped or spare > 5 * n * BYTES]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make(Path(folder), n)
        fresh = functools.partial(harness.fresh, __file__, "--child")
        runs = harness.turns({name: fresh(name, folder) for name in names}, options)
    rows = []
    for name, found in runs.items():
        peak, seconds = max(run["peak"] for run in found), harness.lower([run["seconds"] for run in found])
        rows.append([name, f"{peak / 2**20:.0f}", f"{seconds:.1f}", f"{found[0]['loss']:.7f}"])
    text = harness.table(("", "most resident memory, MiB", "seconds", "mean loss of the epoch"), rows)
    options.folder = "."
    harness.publish("streaming", "Data larger than memory", text, runs, options)


if __name__ == "__main__":
    main()
