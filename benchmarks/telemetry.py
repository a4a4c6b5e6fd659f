"""What telemetry costs: `fit` with the figures of every layer after each epoch, over `fit` without.

    FNN_DATA=/path/to/data python benchmarks/telemetry.py
    python benchmarks/telemetry.py --smoke

60,000 images (MNIST's where they are, random ones elsewhere), Adam, five epochs a turn, on JAX and on NumPy. `fit`
looks at 512 examples after each epoch, in one more forward and backward pass; its share of a step is that of the run.
"""

from common import harness, sides

import fnn


def main():
    parser = harness.parser(__doc__, repeats=15)
    options = harness.parse(parser)
    (x, y), _ = sides.images(600 if options.smoke else None)
    x = x.reshape(len(x), -1)
    epochs, loss, runs = 1 if options.smoke else 5, fnn.SoftmaxCrossEntropy(), {}
    for sizes, batch_size in (((128, 10), 128), ((32, 10), 32)):
        net = fnn.mlp(sizes)
        for backend in ("jax", "numpy"):
            state = fnn.init_state(net, fnn.Adam(1e-3), fnn.random.key(0, backend=backend), x.shape[1:])
            for telemetry in (None, 512):

                def fit(net=net, state=state, batch_size=batch_size, telemetry=telemetry):
                    how = {"epochs": epochs, "batch_size": batch_size, "telemetry": telemetry}
                    fnn.fit(net, loss, state, (x, y), **how)

                name = "-".join(map(str, (x.shape[1], *sizes))) + f", batch {batch_size}, {backend}"
                runs[name, telemetry] = harness.seconds(fit)
    taken = harness.turns(runs, options)
    rows = []
    for name in dict.fromkeys(name for name, _ in runs):
        off, on = harness.lower(taken[name, None]), harness.lower(taken[name, 512])
        rows.append([name, f"{off / epochs:.3f}", f"{on / epochs:.3f}", f"{100 * (on / off - 1):+.1f} %"])
    text = harness.table(("", "seconds an epoch", "with telemetry", "more"), rows)
    figures = {f"{name}, telemetry {telemetry}": times for (name, telemetry), times in taken.items()}
    harness.publish("telemetry", "Telemetry of fit", text, figures, options)


if __name__ == "__main__":
    main()
