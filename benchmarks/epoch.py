"""An epoch of MNIST: fnn against the frameworks, all in this one process.

    python benchmarks/epoch.py                                   784-128-10, 784-32-10 and 784-1024-1024-10
    python benchmarks/epoch.py --hidden 32 --batch 32            one of them, or any other
    python benchmarks/epoch.py --smoke                           a few hundred examples, to see that it runs

Every side trains its own network over whole epochs, shuffled anew for each, as `common/sides.py` has them: Sgd, softmax
cross-entropy, float32 images in memory. Sides take turns of a few epochs, see `common/harness.py`. With FNN_DATA=folder
the images are MNIST, otherwise random ones of the same shape, which take the same time. A side whose package is not
installed is left out. The floor is the time of the matrix products alone, which no program that makes them can beat.
"""

import functools

from common import harness
from common.sides import SIDES, Problem, images

PROBLEMS = (((128,), 128, 3), ((32,), 32, 3), ((1024, 1024), 512, 1))  # hidden units, batch size, epochs a turn


def main():
    parser = harness.parser(__doc__, repeats=15)
    parser.add_argument("--hidden", type=int, nargs="+", help="units of each hidden layer")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a turn")
    options = harness.parse(parser)
    problems = PROBLEMS if options.hidden is None else ((tuple(options.hidden), options.batch, options.epochs),)
    if options.smoke:
        problems = (((16, 16), 64, 1),)
    (x, y), _ = images(600 if options.smoke else None)
    sections, figures = [], {}
    for hidden, batch, epochs in problems:
        problem = Problem((784, *hidden, 10), batch, x, y)
        sides = harness.available({name: functools.partial(make, problem) for name, make in SIDES.items()})
        taken = harness.turns({name: harness.seconds(run, epochs) for name, run in sides.items()}, options)
        figures[str(problem)] = {name: [s / epochs for s in times] for name, times in taken.items()}
        ours = ("fnn on JAX", "fnn on NumPy")
        table = harness.ratios(("side", "seconds an epoch"), figures[str(problem)], ours)
        sections.append(f"{problem}:\n\n{table}")
    harness.publish("epoch", "An epoch of MNIST", "\n\n".join(sections), figures, options)


if __name__ == "__main__":
    main()
