"""The character model and the time series of `examples/`, trained by fnn and by PyTorch from the same weights.

    python benchmarks/same_start.py
    python benchmarks/same_start.py --smoke

    characters     Embedding 32, LSTM of 128 units, Dense, on windows of 64 characters of Python's own documentation:
                   bits for each character that was held out
    series         GRU of 32 units, Dense, on windows of 32 values of the Mackey-Glass equation: root of the mean
                   squared error on its last quarter, as a share of its spread

Both sides begin with the weights that fnn draws for the seed, use Adam with cosine decay, and clip the whole gradient;
each draws its own order of the examples. Of PyTorch's two biases of a gate, which are added, one stays 0.
"""

import statistics
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import numpy as np
from common import harness

import fnn

BATCH = 32


class Problem(NamedTuple):
    """A network with a cost, its data, the rate of Adam, the longest gradient, and what is told of test predictions."""

    net: Any
    loss: Any
    train: tuple
    test: tuple
    rate: float
    longest: float
    error: Any


def characters(smoke):
    text = "\n".join(topics[name] for name in sorted(topics))[: 10_000 if smoke else 200_000]
    letters, counts = np.unique(list(text), return_counts=True)
    number = {letter: i + 1 for i, letter in enumerate(letters[np.argsort(-counts)][:63])}
    symbols = np.array([number.get(letter, 0) for letter in text])
    windows = np.lib.stride_tricks.sliding_window_view(symbols, 65)[::64]
    x, y, cut = windows[:, :-1], windows[:, 1:], len(windows) * 9 // 10
    net = fnn.Serial((fnn.Embedding(64, 32), fnn.Lstm(128, all_states=True), fnn.Dense(64)))

    def bits(logits):
        return float(np.asarray(fnn.SoftmaxCrossEntropy().value(logits, y[cut:])).mean() / (64 * np.log(2)))

    return Problem(net, fnn.SoftmaxCrossEntropy(), (x[:cut], y[:cut]), (x[cut:], y[cut:]), 6e-3, 50.0, bits)


def series(smoke):
    length, delay, spacing = 400 if smoke else 4000, 170, 30
    x = np.full(delay + 2001 + length * spacing, 1.2)
    for t in range(delay, len(x) - 1):
        x[t + 1] = x[t] + 0.1 * (0.2 * x[t - delay] / (1 + x[t - delay] ** 10) - 0.1 * x[t])
    values = x[-length * spacing :: spacing].astype(np.float32)
    windows, cut = np.lib.stride_tricks.sliding_window_view(values, 33), length * 3 // 4
    x, y = windows[:, :-1, None], windows[:, -1:]
    net, test = fnn.Serial((fnn.Gru(32), fnn.Dense(1))), (x[cut + 32 :], y[cut + 32 :])

    def error(prediction):
        return float(np.sqrt(np.square(prediction - test[1]).mean()) / values.std())

    return Problem(net, fnn.Quadratic(), (x[:cut], y[:cut]), test, 5e-3, 1.0, error)


def steps_of(problem, epochs):
    return epochs * -(-len(problem.train[0]) // BATCH)


def by_fnn(problem, params, seed, epochs):
    """The error on the test data after that many epochs."""
    rate = fnn.schedules.CosineAnnealing(problem.rate, steps_of(problem, epochs))
    optimizer = fnn.ClipByGlobalNorm(fnn.Adam(rate), problem.longest)
    state = fnn.init_state(problem.net, optimizer, fnn.random.key(seed), problem.train[0].shape[1:], params=params)
    state, _ = fnn.train(problem.net, problem.loss, state, problem.train, epochs=epochs, batch_size=BATCH)
    return problem.error(np.asarray(problem.net.apply(state.params, problem.test[0])))


def by_torch(problem, params, seed, epochs):
    """The same by PyTorch."""
    import torch

    torch.manual_seed(seed)
    module, recurrent = torch_module(params), problem.net.layers[-2]
    optimizer = torch.optim.Adam(module.parameters(), problem.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps_of(problem, epochs))
    tensors = lambda data: [torch.tensor(a.copy()) for a in data]
    (x, y), (x_test, _) = tensors(problem.train), tensors(problem.test)

    def predict(x):
        table, states, dense = module
        states = states(table(x) if len(table) else x)[0]
        return dense(states if recurrent.all_states else states[:, -1])

    def cost(prediction, y):
        if isinstance(problem.loss, fnn.Quadratic):
            return 0.5 * ((prediction - y) ** 2).sum() / len(y)
        return torch.nn.functional.cross_entropy(prediction.flatten(0, 1), y.flatten(), reduction="sum") / len(y)

    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            cost(predict(x[index]), y[index]).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), problem.longest)
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return problem.error(predict(x_test).numpy())


def torch_module(params):
    """PyTorch's table (or nothing), recurrent layer and dense layer with fnn's parameters."""
    import torch

    *tables, of_layer, (v, c) = params
    units, inputs = of_layer.u.shape[1], of_layer.w.shape[1]
    gru = hasattr(of_layer, "c")
    layer = (torch.nn.GRU if gru else torch.nn.LSTM)(inputs, units, batch_first=True)
    second = np.r_[np.zeros(2 * units), of_layer.c] if gru else np.zeros(4 * units)
    learnt = np.r_[np.zeros(2 * units), np.ones(units)] if gru else np.zeros(4 * units)
    dense, embeddings = torch.nn.Linear(units, len(v)), [torch.nn.Embedding(*table.shape) for table in tables]
    arrays = [*tables, *of_layer[:3], second, v, c]
    module = torch.nn.ModuleList([torch.nn.Sequential(*embeddings), layer, dense])
    with torch.no_grad():
        for p, a in zip(module.parameters(), arrays, strict=True):
            p.copy_(torch.tensor(np.array(a)))
    mask = torch.tensor(learnt, dtype=torch.float32)
    layer.bias_hh_l0.register_hook(lambda grad: grad * mask)
    return module


def main():
    parser = harness.parser(__doc__, repeats=3)
    options = harness.parse(parser)
    rows, figures = [], {}
    for name, make, epochs in (("characters", characters, 12), ("series", series, 30)):
        problem, found = make(options.smoke), {"fnn": [], "PyTorch": []}
        for seed in range(options.repeats):
            params = problem.net.init(fnn.random.key(seed), problem.train[0].shape[1:])
            for side, run in (("fnn", by_fnn), ("PyTorch", by_torch)):
                found[side].append(run(problem, params, seed, 1 if options.smoke else epochs))
            print(name, seed, {side: round(errors[-1], 4) for side, errors in found.items()}, flush=True)
        figures[name] = found
        for side, errors in found.items():
            each = ", ".join(f"{error:.4f}" for error in errors)
            rows.append([f"{name}, {epochs} epochs", side, each, f"{statistics.mean(errors):.4f}"])
    table = harness.table(("problem", "side", "from each start", "mean"), rows)
    harness.publish("same_start", "From the same weights", table, figures, options, told="figures")


if __name__ == "__main__":
    main()
