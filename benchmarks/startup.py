"""How long it takes until something happens: imports, and the first call with its compilation.

    python benchmarks/startup.py
    python benchmarks/startup.py --smoke

Every sample is a process of its own, and no compilation is kept from one to the next. The first table has 784-128-10,
batch 128, two batches: the network made, the first call (of fnn that is `train`, a whole run in one program; of the
others two steps), and the same call again; the difference is compiling, or whatever else happens only once. The second
has imports: of fnn beyond what it needs in any case, and of others whole.
"""

import argparse
import functools
import importlib
import itertools
import json
import time

from common import harness

NUMPY = {"FNN_BACKEND": "numpy"}  # where JAX has no part it is not to be loaded either
SIDES = {  # what is imported before the clock starts
    "fnn on JAX": ("fnn",),
    "jax.grad in the same scan": ("jax",),
    "Flax Linen, batches by NumPy": ("flax.linen", "optax"),
    "Flax NNX, batches by NumPy": ("flax.nnx", "optax"),
    "Equinox, batches by NumPy": ("equinox", "optax"),
    "PyTorch eager": ("torch",),
    "PyTorch compiled": ("torch",),
    "fnn on NumPy": ("fnn",),
}
WITHOUT_JAX = ("PyTorch eager", "PyTorch compiled", "fnn on NumPy")
IMPORTS = {  # what is loaded already, what is imported, the environment
    "fnn, where JAX is loaded": ("import jax, jax.numpy", "import fnn", {}),
    "JAX": ("", "import jax, jax.numpy", {}),
    "fnn on NumPy alone, where NumPy is loaded": ("import numpy", "import fnn", NUMPY),
    "fnn on NumPy alone, with NumPy": ("", "import fnn", NUMPY),
    "NumPy": ("", "import numpy", {}),
    "PyTorch": ("", "import torch", {}),
    "Flax Linen and Optax": ("", "import flax.linen, optax", {}),
    "scikit-learn's MLPClassifier": ("", "from sklearn.neural_network import MLPClassifier", {}),
}


def child(name):
    """What a fresh process does: make the side, call it, call it again."""
    from common import sides

    (x, y), _ = sides.images(256)
    for package in SIDES[name]:
        importlib.import_module(package)
    marks, run = [time.perf_counter()], None
    run = sides.SIDES[name](sides.Problem((784, 128, 10), 128, x, y))
    marks.append(time.perf_counter())
    for _ in range(2):
        run(1)
        marks.append(time.perf_counter())
    print(json.dumps([after - before for before, after in itertools.pairwise(marks)]))


def calls(name):
    for package in SIDES[name]:
        importlib.import_module(package)  # raises where it is missing
    return harness.fresh(__file__, "--child", name, **(NUMPY if name in WITHOUT_JAX else {}))


def imports(loaded, statement, environment):
    code = f"{loaded}\nimport time; start = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"
    side = harness.fresh("-c", code, **environment)
    side()  # raises where a package is missing
    return side


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = harness.parse(parser)
    if options.child:
        child(options.child)
        return
    chosen = list(SIDES)[:1] if options.smoke else list(SIDES)
    called = harness.turns(harness.available({name: functools.partial(calls, name) for name in chosen}), options)
    chosen = list(IMPORTS)[:1] if options.smoke else list(IMPORTS)
    makers = {name: functools.partial(imports, *IMPORTS[name]) for name in chosen}
    imported = harness.turns(harness.available(makers), options)

    rows = []
    for name, samples in called.items():
        made, first, again = (harness.lower(times) for times in zip(*samples, strict=True))
        rows.append([name, *(f"{s:.3f}" for s in (made, first, again, first - again, made + first))])
    heading = ("side", "made, s", "first call, s", "second call, s", "difference, s", "until the first result, s")
    text = harness.table(heading, rows)
    text += "\n\n" + harness.ratios(("import", "seconds"), imported, ())
    figures = {"calls": called, "imports": imported}
    harness.publish("startup", "Until the first step", text, figures, options)


if __name__ == "__main__":
    main()
