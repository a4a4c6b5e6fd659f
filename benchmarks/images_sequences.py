"""A convolutional and a recurrent network: gradients, clipping and epochs, against `jax.grad`, `vmap` and PyTorch.

    python benchmarks/images_sequences.py
    python benchmarks/images_sequences.py --smoke

A LeNet (two convolutions of 20 and 40 filters, 5 x 5, with ReLU and max-pooling, and 128 units) on images of MNIST's
shape, batch 64; and an LSTM of 128 units over 128 positions of 64 numbers, batch 32. Each quantity is one compiled loop
of calls: the time of a call, and the memory that the compiler plans for one, temporary and with the results. An epoch
is 6,400 images by plain gradient descent, in an order drawn anew; PyTorch gathers its batches as its tutorials do, and
has its images as it likes them, with the channels first or, "channels last", as they are here. Last, compiled but not
run, the clipped gradient of an LSTM of 512 units over 256 positions, batch 64.
"""

import functools

import numpy as np
from common import harness
from common.models import LOSS, lenet, lstm
from common.quantities import QUANTITIES, calls_side
from common.sides import torch_device
from per_example import planned

import fnn

RATE = 0.01
SHOWN = ("gradient", "jax.grad", "norms", "clipped gradient", "clipped gradient, vmap of jax.grad")


def program(quantity, model, n):
    """The compiled program of one call."""
    import jax

    x, y = model.batch(n)
    return jax.jit(quantity(model)).lower(model.params(), x, y).compile()


def quantities(model, n, calls, options):
    """A table of the quantities, their times and memory; and the figures."""
    many = {name: 1 if "vmap" in name else calls for name in (SHOWN[::3] if options.smoke else SHOWN)}
    sides = {name: harness.seconds(calls_side(QUANTITIES[name], model, n, times)) for name, times in many.items()}
    taken = {name: [t / many[name] for t in times] for name, times in harness.turns(sides, options).items()}
    memory = {name: planned(program(QUANTITIES[name], model, n)) for name in many}
    figures = {name: (1e3 * harness.lower(seconds), *memory[name]) for name, seconds in taken.items()}
    plain, rows = figures["gradient"], []
    for name, row in figures.items():
        cells = [(f"{value:,.2f}", f"{value / base:.2f}") for value, base in zip(row, plain, strict=True)]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    heading = (f"batch {n}", "ms", "ratio", "temporary MiB", "ratio", "with results MiB", "ratio")
    return harness.table(heading, rows), {"seconds": taken, "MiB": memory}


def fnn_epoch(model, x, y, batch, on):
    """An epoch of `fnn.train` on a backend, its checks of the data included."""
    state = fnn.init_state(model.net, fnn.Sgd(RATE), fnn.random.key(0, backend=on), model.shape)
    x, y = (x, y) if on == "numpy" else (fnn.backend.jnp.asarray(x), fnn.backend.jnp.asarray(y))

    def turn():
        nonlocal state
        state, history = fnn.train(model.net, LOSS, state, (x, y), epochs=1, batch_size=batch)
        return float(history["loss"][-1])

    return turn


def torch_epoch(model, x, y, batch, last=False):
    """The loop of PyTorch's tutorials, on tensors in memory, all cores."""
    import torch

    device = torch_device()
    layout = torch.channels_last if last else torch.contiguous_format
    module, cost = model.torch().to(device, memory_format=layout), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    x = torch.tensor(np.moveaxis(x, -1, 1), device=device).contiguous(memory_format=layout)
    y = torch.tensor(y, dtype=torch.int64, device=device)

    def turn():
        loss = torch.zeros(())
        for index in torch.randperm(len(x), device=device).split(batch):
            optimizer.zero_grad()
            loss = cost(module(x[index]), y[index])
            loss.backward()
            optimizer.step()
        return loss.item()

    return turn


def main():
    options = harness.parse(harness.parser(__doc__, repeats=9))
    small = options.smoke
    cases = {
        "LeNet": (lenet(), 4 if small else 64, 1 if small else 10),
        "LSTM of 128 units, 128 positions": (
            lstm(64, 8 if small else 128, 4 if small else 128),
            32,
            1 if small else 10,
        ),
    }
    text, figures = "", {}
    for name, (model, n, calls) in cases.items():
        table, figures[name] = quantities(model, n, calls, options)
        text += f"{name}:\n\n{table}\n\n"

    model, batch = lenet(), 64
    x, y = model.batch(128 if small else 6400)
    makers = {
        "fnn": functools.partial(fnn_epoch, model, x, y, batch, "jax"),
        "fnn on NumPy": functools.partial(fnn_epoch, model, x, y, batch, "numpy"),
        "PyTorch": functools.partial(torch_epoch, model, x, y, batch),
        "PyTorch, channels last": functools.partial(torch_epoch, model, x, y, batch, last=True),
    }
    sides = {name: harness.seconds(side) for name, side in harness.available(makers).items()}
    figures["epochs"] = harness.turns(sides, options)
    heading = (f"an epoch of {len(x):,} images, batch {batch}", "seconds")
    text += harness.ratios(heading, figures["epochs"], ("PyTorch", "PyTorch, channels last"))

    model, n = (lstm(8, 8, 4), 4) if small else (lstm(64, 512, 256), 64)
    large = {name: planned(program(QUANTITIES[name], model, n))[0] for name in ("gradient", "clipped gradient")}
    rows = [[name, f"{value:,.0f}"] for name, value in large.items()]
    text += "\n\n" + harness.table(("LSTM of 512 units, 256 positions, batch 64, compiled only", "temporary MiB"), rows)
    harness.publish("images_sequences", "Images and sequences", text, figures | {"large": large}, options)


if __name__ == "__main__":
    main()
