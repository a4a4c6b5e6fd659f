"""JAX's switches: fnn works with each of them, or refuses it by its name. And what JAX's exports need.

Whether types and shapes agree is seen by tracing, which compiles nothing.
"""

import importlib

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, key, on

import fnn
from fnn import errors, factors, per_example, schedules
from fnn.backend import Held, jax
from fnn.optimizers import prepare
from fnn.static import namedtuples

pytestmark = pytest.mark.usefixtures("needs_jax")

N, K = 6, 4
LAYERS = {name: layer for name, (layer, _) in (oracle.ACTIVATIONS | oracle.LEARNT).items() if name != "function"}
LAYERS |= {
    "dense": fnn.Dense(3),
    "layer norm": fnn.LayerNorm(),
    "rms norm": fnn.RMSNorm(),
    "standardize": fnn.Standardize(),
    "dropout": fnn.Dropout(0.4),
    "flatten": fnn.Flatten(),
    "scale": fnn.Scale(2.0),
    "residual": fnn.Residual(fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(K)))),
    "parallel": fnn.Parallel((fnn.Identity(), fnn.Dense(2), fnn.Swish(learnt=True))),
    "frozen": fnn.Serial((fnn.Dense(3), fnn.Frozen(fnn.Dense(3)), fnn.Gelu())),
}
SHAPED = {  # layers of images and sequences, and what they take
    "conv": (fnn.Conv(4, (3, 2), 2, "same", groups=2), (6, 5, 2)),
    "conv of few": (fnn.Conv(40, (3,)), (8, 40)),
    "max": (fnn.MaxPool((2,), 1, "same"), (8, 2)),
    "mean": (fnn.AvgPool((2, 2), 1, "same"), (3, 4, 2)),
    "largest": (fnn.GlobalMaxPool(), (8, 2)),
    "mean of all": (fnn.GlobalAvgPool(), (8, 2)),
    "rnn": (fnn.Rnn(3), (8, 2)),
    "lstm": (fnn.Lstm(3, all_states=True), (8, 2)),
    "gru": (fnn.Gru(3), (8, 2)),
}
UNEQUAL = fnn.Last(fnn.Serial((fnn.Embedding(9, 3), fnn.Gru(3, all_states=True))))
COSTS = {name: cost for name, cost in oracle.LOSSES.items() if name != "function"}
RATES = (
    schedules.Constant(0.1),
    schedules.TimeBasedDecay(0.1, 0.1),
    schedules.StepDecay(0.1, 0.5, 2),
    schedules.ExponentialDecay(0.1, 0.5, 2),
    schedules.PolynomialDecay(0.1, 0.0, 3, 0.5),
    schedules.CosineAnnealing(0.1, 3),
    schedules.CosineRestarts(0.1, 3),
    schedules.LinearWarmup(0.1, 3),
    schedules.OneCycle(0.1, 10),
    schedules.Piecewise((2,), (0.1, 0.2)),
    schedules.Join((schedules.LinearWarmup(0.1, 2), schedules.Constant(0.1)), (2,)),
)
OPTIMIZERS = (
    *(cls(0.1) for cls in (fnn.Sgd, fnn.Momentum, fnn.Nesterov, fnn.Adagrad, fnn.Adadelta, fnn.RMSProp, fnn.Adam)),
    *(cls(0.1) for cls in (fnn.AdamW, fnn.Nadam, fnn.Adamax, fnn.AMSGrad, fnn.Lion, fnn.Muon)),
    *(cls(fnn.Adam(), 0.5) for cls in (fnn.ClipByValue, fnn.ClipByNorm, fnn.ClipByGlobalNorm, fnn.MaxNorm)),
    *(fnn.Accumulate(fnn.Adam(), 2), fnn.Average(fnn.Adam()), fnn.SkipNonFinite(fnn.Adam())),
    fnn.PerLayer((fnn.Adam(), None, fnn.Muon())),
    *map(fnn.Adam, RATES),
)


def all_of_a_layer(net, key, x):
    """Its value, gradient, tangent and everything that factors give."""
    params = net.init(key, x.shape[1:], x.dtype)
    y = jax.numpy.zeros((x.shape[0], *net.output_shape(x.shape[1:])), np.float32)
    run = fnn.value_and_grad(net, fnn.Quadratic(), need_dx=True, penalty=fnn.L2(0.1))
    tape = fnn.backprop(net, fnn.Quadratic())(params, x, y, y.sum(axis=1) + 1)
    f = net.factors(params, tape.residuals, tape.deltas)
    weights = tape.losses
    given = factors.total(params, f), factors.total(params, f, weights), factors.made(params, f), factors.norm(f)
    given += factors.products(f, f), factors.squares(params, f, weights), factors.along(f, params)
    return run(params, x, y, key=key), run(params, x, y, weights), given, net.tangent(params, tape.residuals, params, x)


def all_of_unequal_lengths(params, symbols):
    """The value and gradient of sequences of unequal length, whose symbols and lengths have any integer dtype."""
    y = jax.numpy.zeros((len(symbols), 3), np.float32)
    return fnn.value_and_grad(UNEQUAL, fnn.Quadratic())(params, {"x": symbols, "length": symbols[:, 0]}, y)


def all_of_a_cost(cost, x, y):
    """Its value and derivative, with weights and without, and a prediction."""
    net = fnn.Identity()
    run = fnn.value_and_grad(net, cost.loss, need_dx=True)
    return run((), x, y), run((), x, y, jax.numpy.ones(x.shape[0])), cost.loss.predict(x)


def all_of_an_optimizer(optimizer, params):
    """Two steps of it, as a user holds it and as a run does."""
    found = []
    for tx in (optimizer, prepare(optimizer, params)):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
        found += [fnn.apply_updates(params, updates), state]
    return found


def all_of_training(key, x, labels):
    """A run with validation and metrics, each quantity of single examples, and a rule of its own."""
    net, loss = fnn.Serial((fnn.Dense(3), fnn.Relu(), fnn.Dropout(0.2), fnn.Dense(3))), fnn.SoftmaxCrossEntropy()
    found = []
    for rule in (fnn.rules.Backprop(), fnn.rules.Private(1.0, 1.0)):
        state = fnn.init_state(net, fnn.Adam(), key, x.shape[1:], x.dtype, rule=rule)
        found.append(fnn.train(net, loss, state, (x, labels), epochs=2, batch_size=4))
    params, data = state.params, (x, labels)
    for make in (per_example.gradients, per_example.norms, per_example.gram, per_example.second_moment):
        found.append(make(net, loss)(params, *data))
    for make in (per_example.variance, per_example.signal_to_noise, per_example.noise_scale):
        found.append(make(net, loss)(params, *data))
    found.append(per_example.clipped_gradient(net, loss, 1.0)(params, *data))
    found.append(fnn.diagnostics.statistics(net, loss)(params, *data, state))
    z = net.apply(params, x)
    found += [metric(z, labels) for metric in (fnn.accuracy, fnn.confusion_matrix)] + [fnn.top_k_accuracy(z, labels, 2)]
    return *found, fnn.r2_score(z, z), fnn.mean_absolute_error(z, z)


# ---- types and shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"] if THOROUGH else ["bfloat16"])
def test_no_formula_mixes_dtypes(dtype):
    rng, few = np.random.default_rng(0), {"dense", "prelu", "hard_swish", "softmax_labels", "root_mean_squared"}
    chosen = lambda table: [thing for name, thing in table.items() if THOROUGH or name in few]
    optimizers = OPTIMIZERS if THOROUGH else [tx for tx in OPTIMIZERS if isinstance(tx, fnn.ClipByValue | fnn.Muon)]
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        key, x = fnn.random.key(0), jax.numpy.zeros((N, K), dtype)
        for layer in chosen(LAYERS):
            jax.eval_shape(lambda x, net=layer: all_of_a_layer(net, key, x), x)
        for layer, sizes in SHAPED.values() if THOROUGH else ():
            net = fnn.Serial((layer, fnn.Flatten(), fnn.Dense(3)))
            jax.eval_shape(lambda x, net=net: all_of_a_layer(net, key, x), jax.numpy.zeros((N, *sizes), dtype))
        params = tuple({"w": jax.numpy.ones((3, 2), dtype)} for _ in range(3))
        for optimizer in optimizers:
            jax.eval_shape(lambda params, tx=optimizer: all_of_an_optimizer(tx, params), params)
        if dtype == "float64":
            params = UNEQUAL.init(key, {"x": (5,), "length": ()}, dtype)
            jax.eval_shape(all_of_unequal_lengths, params, np.zeros((N, 5), int))
            return  # where labels are int32 and JAX counts in int64
        for cost in chosen(COSTS):
            y = np.asarray(cost.target(rng, N, 3))
            jax.eval_shape(
                lambda x, y, cost=cost: all_of_a_cost(cost, x, y), jax.numpy.zeros((N, cost.width(3)), dtype), y
            )
        if THOROUGH:
            jax.eval_shape(all_of_training, key, x, np.zeros(N, np.int32))


@pytest.mark.skipif(not THOROUGH, reason="traces everything")
def test_the_number_of_examples_may_be_a_symbol():
    rng, key = np.random.default_rng(0), fnn.random.key(0)
    (n,) = jax.export.symbolic_shape("n")
    of_shape = lambda shape, dtype=np.float32: jax.ShapeDtypeStruct(shape, dtype)
    for name, layer in LAYERS.items():
        if not layer.draws:
            run = fnn.value_and_grad(layer, fnn.Quadratic(), need_dx=True)
            params = layer.init(key, (K,))
            y = of_shape((n, *layer.output_shape((K,))))
            dx = jax.eval_shape(run, params, of_shape((n, K)), y)[1][1]
            assert dx.shape == (n, K), name
    for name, (layer, sizes) in SHAPED.items():
        params, run = layer.init(key, sizes), fnn.value_and_grad(layer, fnn.Quadratic(), need_dx=True)
        y = of_shape((n, *layer.output_shape(sizes)))
        assert jax.eval_shape(run, params, of_shape((n, *sizes)), y)[1][1].shape == (n, *sizes), name
    for cost in COSTS.values():
        y = np.asarray(cost.target(rng, N, 3))
        y = of_shape((n, *y.shape[1:]), np.int32 if y.dtype == np.int64 else np.float32)
        jax.eval_shape(lambda x, y, cost=cost: all_of_a_cost(cost, x, y), of_shape((n, cost.width(3))), y)


# ---- what is refused by its name -------------------------------------------------------------------------------------

DATA = np.ones((N, K), np.float32), np.zeros((N, 3), np.float32)
NET, COST = fnn.Dense(3), fnn.Quadratic()
CALLS = {
    "apply": lambda state: NET.apply(state.params, DATA[0]),
    "value_and_grad": lambda state: fnn.value_and_grad(NET, COST)(state.params, *DATA),
    "make_step": lambda state: fnn.make_step(NET, COST)(state, DATA),
    "train": lambda state: fnn.train(NET, COST, state, DATA, epochs=1, batch_size=3),
    "fit": lambda state: fnn.fit(NET, COST, state, DATA, epochs=1, batch_size=3),
    "evaluate": lambda state: fnn.evaluate(NET, COST, state.params, DATA),
    "norms": lambda state: per_example.norms(NET, COST)(state.params, *DATA),
    "diagnose": lambda state: fnn.diagnose(NET, COST, state.params, *DATA),
}


def new_state(optimizer=None):
    return fnn.init_state(NET, optimizer or fnn.Sgd(0.1), fnn.random.key(0), (K,))


def test_that_ranks_must_not_be_promoted_is_refused():
    state = new_state()
    with jax.numpy_rank_promotion("raise"):
        for name, call in CALLS.items():
            with pytest.raises(errors.ArgumentError, match="jax_numpy_rank_promotion: expected 'allow'"):
                print(name, call(state))


def test_a_generator_that_draws_other_numbers_is_refused():
    key, state = fnn.random.key(0), new_state()
    draws = fnn.random.split, fnn.random.bits, fnn.random.normal, lambda key: fnn.random.permutation(key, 5)
    with jax.threefry_partitionable(False):
        for run in (*(lambda f=f: f(key) for f in draws), new_state, lambda: CALLS["train"](state)):
            with pytest.raises(errors.ArgumentError, match="jax_threefry_partitionable: expected True"):
                run()


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_other_types_train_on_jax_and_are_refused_elsewhere(impl, tmp_path):
    net, loss, key = fnn.Serial((fnn.Dropout(0.5), fnn.Dense(3))), COST, jax.random.key(0, impl=impl)
    run = lambda key, x, y: fnn.train(
        net, loss, fnn.init_state(net, fnn.Sgd(0.1), key, (K,)), (x, y), epochs=2, batch_size=3
    )
    if THOROUGH:
        first, again = (run(key, *DATA)[0] for _ in range(2))
        assert first.key.dtype == key.dtype
        np.testing.assert_array_equal(first.params[1].w, again.params[1].w)
        assert not np.array_equal(first.params[1].w, run(jax.random.key(1, impl=impl), *DATA)[0].params[1].w)
    else:
        assert jax.eval_shape(run, key, *DATA)[0].key.dtype == key.dtype
    with pytest.raises(errors.KindError, match="key: expected one of type threefry2x32"):
        fnn.random.split(fnn.random.like(key, np))
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=DATA[0].shape)
    state = fnn.init_state(net, fnn.Sgd(0.1), key, (K,))
    with pytest.raises(errors.KindError, match="key: expected one of type threefry2x32"):
        fnn.fit(net, loss, state, (x, DATA[1]), epochs=1, batch_size=3)


# ---- NaN and infinity as results -------------------------------------------------------------------------------------


def test_a_diagnosis_counts_what_is_not_finite_also_where_jax_looks_for_it(capsys):
    state, (x, y) = new_state(), DATA
    with jax.debug_nans(True), jax.debug_infs(True):
        broken = fnn.diagnose(NET, COST, state.params._replace(b=np.float32([1, np.nan, 1])), x, y)
        if THOROUGH:
            fnn.diagnostics.statistics(NET, COST)(state.params, x, y)
            ratios = per_example.signal_to_noise(NET, COST)(state.params, x, y)  # all examples are the same
            assert np.isinf(ratios.b).any()
            fnn.fit(NET, COST, state, DATA, epochs=2, batch_size=3, telemetry=2, validation=DATA)
    assert [finding.illness for finding in broken.findings] == ["not finite"]
    assert jax.config.jax_debug_nans is False


def test_a_relu_makes_no_nan_of_its_own_where_jax_looks_for_it():
    z = jax.numpy.float32([[-1, 2]])
    with jax.debug_nans(True), jax.debug_infs(True):
        np.testing.assert_array_equal(fnn.Relu().backward((), fnn.Relu().forward((), z)[1], z), [[0, 2]])


# ---- exports ---------------------------------------------------------------------------------------------------------


def test_every_node_of_fnns_trees_can_be_written_by_an_export():
    importlib.import_module("fnn.sklearn")  # which has nodes of its own
    classes = [cls for name, cls in namedtuples().items() if name.startswith("fnn.")]
    assert len({cls.__name__ for cls in classes}) == len(classes)
    tree = tuple(cls._make([np.float32(0)] * len(cls._fields)) for cls in classes), Held("a"), Held(True)
    again = jax.export.deserialize(jax.export.export(jax.jit(lambda tree: tree))(tree).serialize())
    assert again.in_tree == jax.tree.structure(((tree,), {}))


def test_a_step_of_any_number_of_examples_survives_an_export():
    state, step = new_state(fnn.ClipByGlobalNorm(fnn.Adam(RATES[5]), 1.0)), fnn.make_step(NET, COST)
    n, of_shape = jax.export.symbolic_shape("n")[0], lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
    exported = jax.export.export(jax.jit(lambda state, *data: step(state, data)))(state, of_shape(n, K), of_shape(n, 3))
    found, metrics = jax.export.deserialize(exported.serialize()).call(state, *DATA)
    wanted, _ = step(state, DATA)
    assert type(found) is fnn.TrainState
    assert metrics["weight"] == N
    np.testing.assert_allclose(found.params.w, wanted.params.w, rtol=1e-6)


def test_images_and_sequences_of_any_number_survive_an_export():
    net, loss, of = fnn.Serial((fnn.Conv(3, (3,)), fnn.MaxPool((2,)), fnn.Gru(2), fnn.Dense(2))), COST, np.float32
    params, rng = net.init(key("jax"), (8, 2)), np.random.default_rng(0)
    n = jax.export.symbolic_shape("n")[0]

    def run(params, x, y):
        gradients = fnn.grad(net, loss), fnn.per_example.clipped_gradient(net, loss, 1.0)
        return [net.apply(params, x), *(gradient(params, x, y) for gradient in gradients)]

    outline = [jax.ShapeDtypeStruct((n, *sizes), of) for sizes in ((8, 2), (2,))]
    exported = jax.export.export(jax.jit(run))(
        fnn.trees.map(lambda p: jax.ShapeDtypeStruct(p.shape, of), params), *outline
    )
    x, y = rng.normal(size=(3, 8, 2)).astype(of), rng.normal(size=(3, 2)).astype(of)
    if THOROUGH:
        oracle.assert_close(exported.call(params, x, y), run(on("numpy", params), x, y), 1e-5)


def test_an_optimizer_of_another_library_cannot_be_exported_and_says_so():
    with pytest.raises(errors.KindError, match=r"jax\.export: expected a choice"):
        jax.export.export(jax.jit(lambda held: held))(Held(np.sin)).serialize()
