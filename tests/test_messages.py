"""What someone who comes from another library writes first, and the message that says what to write instead."""

import inspect
import io
import pathlib
import pickle
import pydoc
import re
import typing

import numpy as np
import pytest
from helpers import key, on

import fnn
from fnn import errors, trees

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)).astype(np.float32), RNG.integers(0, 2, 12)
NET, LOSS, ADAM = fnn.mlp((4, 2)), fnn.SoftmaxCrossEntropy(), fnn.Adam(0.01)
STATE = fnn.init_state(NET, ADAM, key(), (3,))
PARAMS = STATE.params
IMAGES = np.zeros((12, 5, 5), np.float32)
FIRST = "the parameters come first: net.apply(params, x)"
FIT = "write fnn.fit(net, loss, optimizer, (x, y), key=key, epochs=10, batch_size=32)"
SERIAL = "write fnn.Serial((fnn.Dense(32), fnn.Relu(), fnn.Dense(2)))"


def fit(net=NET, loss=LOSS, optimizer=ADAM, data=(X, Y), **options):
    return fnn.fit(net, loss, optimizer, data, **({"key": key(), "epochs": 2, "batch_size": 4} | options))


def frame_like(**columns):
    """An object that gives arrays as a data frame of pandas does: of objects, if the columns' types differ."""

    class Frame:
        def __init__(self):
            self.columns = list(columns)

        def __getitem__(self, name):
            return columns[name]

        def __array__(self, dtype=None, copy=None):
            return np.stack([np.asarray(column).astype(object) for column in columns.values()], axis=1)

    return Frame()


# What is written first, and what the message says.
CALLS: dict[str, tuple[typing.Any, str]] = {
    "x and y one after the other": (lambda: fnn.fit(NET, LOSS, ADAM, X, Y, key=key(), epochs=2, batch_size=4), FIT),
    "the number of epochs by position": (lambda: fnn.fit(NET, LOSS, ADAM, (X, Y), 5, 32), FIT),
    "no epochs": (lambda: fnn.fit(NET, LOSS, ADAM, (X, Y), key=key()), FIT),
    "no optimizer": (lambda: fnn.fit(NET, X, Y), FIT),
    "validation_data": (lambda: fit(validation_data=(X, Y)), "the arguments are net, loss, .*, validation, metrics"),
    "train, x and y": (lambda: fnn.train(NET, LOSS, STATE, X, Y), "write fnn.train(net, loss, state, (x, y), "),
    "evaluate, x and y": (
        lambda: fnn.evaluate(NET, LOSS, PARAMS, X, Y),
        "write fnn.evaluate(net, loss, params, (x, y))",
    ),
    "a gradient without parameters": (
        lambda: fnn.value_and_grad(NET, LOSS, X, Y),
        "write fnn.value_and_grad(net, loss)(params, x, y)",
    ),
    "a gradient of x and y": (
        lambda: fnn.value_and_grad(NET, LOSS)(X, Y),
        "missing 1 required positional argument: 'y'; write fnn.value_and_grad(net, loss)(params, x, y)",
    ),
    "a tape at once": (lambda: fnn.backprop(NET, LOSS, PARAMS, X, Y), "write fnn.backprop(net, loss)(params, x, y)"),
    "grad of a function": (lambda: fnn.grad(lambda x: x**2), "write fnn.grad(net, loss)(params, x, y)"),
    "norms at once": (lambda: fnn.per_example.norms(NET, LOSS, PARAMS, X, Y), "norms(net, loss)(params, x, y)"),
    "a step of x and y": (lambda: fnn.make_step(NET, LOSS)(STATE, X, Y), "write step(state, (x, y))"),
    "a step with its optimizer": (lambda: fnn.make_step(NET, LOSS, ADAM), "write fnn.make_step(net, loss)(state, "),
    "diagnose, a pair": (lambda: fnn.diagnose(NET, LOSS, PARAMS, (X, Y)), "write fnn.diagnose(net, loss, params, x, y"),
    "summary without a shape": (lambda: fnn.summary(NET), "write fnn.summary(net, input_shape)"),
    "a state without a shape": (
        lambda: fnn.init_state(NET, ADAM, key()),
        "write fnn.init_state(net, optimizer, key, x",
    ),
    # networks
    "layers one after the other": (lambda: fnn.Serial(fnn.Dense(3), fnn.Relu()), SERIAL),
    "three layers": (lambda: fnn.Serial(fnn.Dense(3), fnn.Relu(), fnn.Dense(1)), SERIAL),
    "a list of layers": (lambda: fnn.Serial([fnn.Dense(3), fnn.Relu()]), "write (Dense(3), Relu())"),
    "one layer": (lambda: fnn.Serial(fnn.Dense(3)), "write (Dense(3),), with the comma"),
    "a class for a layer": (lambda: fnn.Serial((fnn.Dense(3), fnn.Relu)), "layers[1]: .*write fnn.Relu()"),
    "a class with arguments": (lambda: fnn.Serial((fnn.Dense, fnn.Relu())), "layers[0]: .*write fnn.Dense(...)"),
    "the name of a layer": (lambda: fnn.Serial((fnn.Dense(3), "leaky_relu")), "layers[1]: .*write fnn.LeakyRelu()"),
    "a function for a layer": (lambda: fnn.Serial((fnn.Dense(3), np.tanh)), "layers[1]: .*write fnn.Tanh()"),
    "a number for a layer": (lambda: fnn.Serial((3, 2)), "layers[0]: expected a layer, got 3; for example"),
    "a cost as the last layer": (lambda: fnn.Serial((fnn.Dense(2), LOSS)), "a cost is an argument of fnn.fit"),
    "a skip around two layers": (
        lambda: fnn.Residual((fnn.Dense(3), fnn.Relu())),
        "write fnn.Serial((Dense(3), Relu()))",
    ),
    "branches one after the other": (lambda: fnn.Parallel(fnn.Dense(3), fnn.Dense(2)), "with one tuple of layers"),
    "Linear(in, out)": (lambda: fnn.Dense(784, 128), "got 128; write fnn.Dense(units), without the number of inputs"),
    "an activation inside Dense": (lambda: fnn.Dense(3, "relu"), "an activation is a layer of its own"),
    "activation=": (lambda: fnn.Dense(3, activation="relu"), "fnn.Serial((fnn.Dense(32), fnn.Relu()))"),
    "use_bias=": (lambda: fnn.Dense(3, use_bias=False), "the arguments are units, bias, initializer, precision"),
    "LayerNorm(units)": (lambda: fnn.LayerNorm(64), "write fnn.LayerNorm(), without the number of units"),
    "RMSNorm(units)": (lambda: fnn.RMSNorm(64), "write fnn.RMSNorm(), without the number of units"),
    "Dropout(p=)": (lambda: fnn.Dropout(p=0.5), "write fnn.Dropout(0.5); the arguments are rate"),
    "dropout of an mlp": (lambda: fnn.mlp((4, 2), dropout=0.1), "the arguments are units, activation, initializer"),
    "a class for an initializer": (lambda: fnn.Dense(3, initializer=fnn.HeNormal), "write fnn.HeNormal()"),
    "a class for the initializer of a table": (
        lambda: fnn.Embedding(9, 3, initializer=fnn.Normal),
        "write fnn.Normal(",
    ),
    "a name for an initializer": (lambda: fnn.Lstm(3, recurrent_initializer="orthogonal"), "write fnn.Orthogonal()"),
    "a class for the initializer of a kernel": (
        lambda: fnn.Conv(3, (3,), initializer=fnn.HeNormal),
        "write fnn.HeNormal()",
    ),
    "a list for a kernel": (lambda: fnn.Conv(3, [3, 3]), "kernel: expected a tuple such as .*; write (3, 3)"),
    "a list of strides": (lambda: fnn.MaxPool((2, 2), [2, 1]), "stride: expected an integer, or a tuple.*write (2, 1)"),
    "a list of padding": (lambda: fnn.Conv(3, (3,), padding=[(1, 0)]), "write ((1, 0),)"),
    "before and after": (lambda: fnn.Conv(3, (3,), padding=(1, 0)), "write ((1, 0),) for (before, after)"),
    "an activation inside Conv": (lambda: fnn.Conv(3, (3, 3), "relu"), "stride: .*an activation is a layer of its own"),
    "an activation for padding": (lambda: fnn.Conv(3, (3,), 1, fnn.Relu()), "padding: .*an activation is a layer of"),
    "pool_size=": (lambda: fnn.AvgPool(pool_size=2), "write fnn.AvgPool((2, 2)).*the arguments are window, stride"),
    "LSTM(in, out)": (lambda: fnn.Lstm(3, 64), "got 64; write fnn.Lstm(units), without the number of inputs"),
    "ignore_index=": (
        lambda: fnn.SoftmaxCrossEntropy(ignore_index=-100),
        "write .*ignored=-1.* the arguments are ignored",
    ),
    "a word for the ignored label": (lambda: fnn.Focal(ignored="pad"), "Focal.ignored: expected an integer, got 'pad'"),
    "True for the ignored label": (lambda: fnn.CrossEntropy(ignored=True), "ignored: expected an integer, got True"),
    "no positions to pool": (
        lambda: fnn.GlobalMaxPool().apply((), np.zeros((2, 0, 3))),
        "integer of at least 1, got 0",
    ),
    "no axis to pool": (lambda: fnn.GlobalAvgPool().apply((), np.zeros((2, 3))), "expected input of shape (..., C)"),
    "sizes one after the other": (lambda: fnn.mlp(4, 2), "write mlp((128, 10))"),
    "the name of an activation": (lambda: fnn.mlp((4, 2), "relu"), "write fnn.Relu()"),
    "a class for an activation": (lambda: fnn.mlp((4, 2), fnn.Relu), "write fnn.Relu()"),
    # parameters and data
    "a state for parameters": (lambda: NET.apply(STATE, X), "write state.params"),
    "a state for parameters in evaluate": (lambda: fnn.evaluate(NET, LOSS, STATE, (X, Y)), "write state.params"),
    "a network for parameters": (lambda: NET.apply(NET, X), "state.params after fnn.fit, or net.init(key, input_"),
    "x before the parameters": (lambda: NET.apply(X, PARAMS), FIRST),
    "bytes before the parameters": (lambda: NET.apply(X.astype(np.uint8), PARAMS), FIRST),
    "a list before the parameters": (lambda: NET.apply(X.tolist(), PARAMS), FIRST),
    "x before the parameters of one layer": (lambda: fnn.Dense(4).apply(X, PARAMS[0]), FIRST),
    "parameters last": (lambda: fnn.value_and_grad(NET, LOSS)(X, Y, PARAMS), FIRST),
    "no parameters": (lambda: NET.apply(X), "write net.apply(params, x)"),
    "lists for parameters": (
        lambda: fnn.Dense(3).apply(fnn.DenseParams([[1.0, 2.0, 3.0]], [0.0]), X),
        "params.w[0][0]: expected a floating-point array, got 1.0; write np.asarray(..., np.float32)",
    ),
    "integers for parameters": (
        lambda: fnn.Dense(4).apply(fnn.DenseParams(np.ones((4, 3), int), np.zeros(4)), X),
        "got int64; write np.asarray(..., np.float32)",
    ),
    "a list of parameters": (lambda: NET.apply(list(PARAMS), X), r"got \[DenseParams"),
    "one example": (lambda: NET.apply(PARAMS, X[0]), "write x[None] for one example"),
    "one example in fit": (lambda: fit(data=(X[0], Y[0])), "write x[None] for one example"),
    "images": (lambda: fit(data=(IMAGES, Y)), "begin the dense layers with fnn.Flatten()"),
    "images in a gradient": (
        lambda: fnn.grad(NET, LOSS)(NET.init(key(), (5, 5)), IMAGES, Y),
        "begin the dense layers with fnn.Flatten()",
    ),
    "x alone": (lambda: fit(data=X), "got ndarray of length 12; write (x, y), with all examples in each"),
    "pairs of examples": (lambda: fit(data=list(zip(X, Y, strict=True))), "write tuple(map(np.stack, zip(*data)))"),
    "a dict of x and y": (lambda: fit(data={"x": X, "y": Y}), "got dict of length 2; write (x, y)"),
    "labels of text": (
        lambda: fit(data=(X, np.array(["cat", "dog"])[Y])),
        "y: .*write np.unique(y, return_inverse=True)[1]",
    ),
    "labels in a list of text": (
        lambda: fit(data=(X, [["cat", "dog"][i] for i in Y])),
        "y: .*write np.unique(y, return_inverse=True)[1]",
    ),
    "weights of classes": (lambda: fit(data=(X, Y, {0: 1.0, 1: 2.0})), "weights: .*write fnn.class_weights(y, {0: 1.0"),
    "an argument of Keras": (
        lambda: fnn.fit(NET, LOSS, fnn.Adam(), (X, Y), key=key(), epochs=1, batch_size=4, class_weight="balanced"),
        "unexpected keyword argument 'class_weight'; weights are data: (x, y, fnn.class_weights(y))",
    ),
    "a column of text": (
        lambda: fit(data=(frame_like(age=X[:, 0], town=np.array(["a", "b"])[Y]), Y)),
        "x: expected numbers, got text in the columns ['town'] (pd.get_dummies(x, columns=['town']) makes a column",
    ),
    "paths of images": (
        lambda: fit(data=([pathlib.Path("1.png")] * 12, Y)),
        "x: .*read the files first: np.stack([read(path) for path in x])",
    ),
    "None for x": (lambda: NET.apply(PARAMS, None), "x: expected an array, got None"),
    # kinds
    "a list for a network": (lambda: fit([fnn.Dense(3), fnn.Relu()]), "write fnn.Serial((Dense(3), Relu()))"),
    "parameters for a network": (lambda: fit(PARAMS), "make one by fnn.mlp((32, 2))"),
    "the name of a cost": (lambda: fit(loss="mse"), "expected a loss such as fnn.SoftmaxCrossEntropy(), got 'mse'"),
    "a class for a cost": (lambda: fit(loss=fnn.Quadratic), "write fnn.Quadratic()"),
    "weights in a cost": (lambda: fnn.SoftmaxCrossEntropy(weight=[1, 2]), "are data, (x, y, fnn.class_weights(y))"),
    "from_logits=": (lambda: fnn.SigmoidBinaryCrossEntropy(from_logits=True), "the arguments are label_smoothing, pos"),
    "a function for a cost": (lambda: fit(loss=lambda a, y: (a - y) ** 2), "write fnn.FunctionLoss(f)"),
    "the name of an optimizer": (lambda: fit(optimizer="adam"), "such as fnn.Adam(), got 'adam'"),
    "a class for an optimizer": (lambda: fit(optimizer=fnn.Adam), "write Adam(...)"),
    "lr=": (lambda: fnn.Adam(lr=0.01), "write fnn.Adam(0.001); the arguments are learning_rate, b1, b2, eps"),
    "momentum=": (lambda: fnn.Sgd(0.1, momentum=0.9), "with momentum fnn.Momentum(0.1); the arguments are learning"),
    "a class for a schedule": (lambda: fit(optimizer=fnn.Adam(fnn.schedules.Constant)), "write Constant(...)"),
    "parameters in the optimizer": (lambda: fit(optimizer=fnn.Adam(PARAMS)), "Adam.learning_rate: expected a number"),
    "text for a rate": (
        lambda: fit(optimizer=fnn.Adam("0.1")),
        "Adam.learning_rate: expected a real number, got '0.1'",
    ),
    "a class for a penalty": (lambda: fit(penalty=fnn.L2), "such as fnn.L2(1e-4), got <class"),
    "a number for a penalty": (lambda: fit(penalty=0.01), "such as fnn.L2(1e-4), got 0.01"),
    "no key": (lambda: fit(key=None), "key: expected a key, as fnn.random.key(0) gives"),
    "an int for a key": (lambda: fit(key=0), "key: expected a key, as fnn.random.key(0) gives, got 0"),
    "names of metrics": (lambda: fit(validation=(X, Y), metrics=[fnn.accuracy]), 'such as {"accuracy": fnn.accuracy}'),
    "a file without its tree": (
        lambda: fnn.checkpoints.save("net.npz"),
        "write fnn.checkpoints.save(path, params, net=",
    ),
    "no epochs at all": (lambda: fit(epochs=0), "epochs: expected an integer of at least 1"),
    "a batch larger than the data": (lambda: fit(batch_size=500), "at most the number of examples, 12, got 500"),
    "x for its shape": (lambda: fnn.init_state(NET, ADAM, key(), X), "write x.shape[1:]"),
    "an int for a shape": (lambda: fnn.init_state(NET, ADAM, key(), 3), "write (3,)"),
    "None for the batch axis": (lambda: fnn.init_state(NET, ADAM, key(), (None, 3)), "write (3,)"),
    # calls of what is not called
    "net(x)": (lambda: NET(X), "write net.apply(params, x)"),
    "layer(params, x)": (lambda: fnn.Relu()((), X), "write net.apply(params, x)"),
    "loss(a, y)": (lambda: LOSS(NET.apply(PARAMS, X), Y), "write loss.value(prediction, y)"),
}
NAMES = {  # in other libraries
    "Sequential": (lambda: fnn.Sequential, "write fnn.Serial(("),
    "Linear": (lambda: fnn.Linear, "write fnn.Dense(units)"),
    "ReLU": (lambda: fnn.ReLU, "write fnn.Relu"),
    "leaky_relu": (lambda: fnn.leaky_relu, "write fnn.LeakyRelu"),
    "LSTM": (lambda: fnn.LSTM, "write fnn.Lstm"),
    "Conv2d": (lambda: fnn.Conv2d, "write fnn.Conv"),
    "MaxPool1D": (lambda: fnn.MaxPool1D, "write fnn.MaxPool"),
    "BatchNorm2d": (lambda: fnn.BatchNorm2d, "write fnn.LayerNorm(), as no layer of fnn couples examples"),
    "BatchNormalization": (lambda: fnn.BatchNormalization, "write fnn.LayerNorm()"),
    "SGD": (lambda: fnn.SGD, "write fnn.Sgd"),
    "MSELoss": (lambda: fnn.MSELoss, "write fnn.MeanSquaredError()"),
    "CrossEntropyLoss": (lambda: fnn.CrossEntropyLoss, "write fnn.SoftmaxCrossEntropy()"),
    "load": (lambda: fnn.load, "write fnn.checkpoints.load(path), or fnn.load_network(path)"),
    "nothing like it": (lambda: fnn.conv, "module 'fnn' has no attribute 'conv'"),
}


def says(message):
    """A pattern for a message in which only `.*` and `\\[` are patterns."""
    return ".*".join(part if "\\" in part else re.escape(part) for part in message.split(".*"))


@pytest.mark.parametrize("name", CALLS)
def test_a_mistake_is_answered_by_what_to_write_instead(name):
    call, message = CALLS[name]
    with pytest.raises(errors.FnnError, match=says(message)):
        call()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_another_library_is_answered_by_fnns_own(name):
    look_up, message = NAMES[name]
    with pytest.raises(AttributeError, match=says(message)):
        look_up()


def test_no_conversion_is_suggested_that_would_fail():
    with pytest.raises(errors.KindError, match="got dtype object") as caught:
        fit(data=(np.array([{1}] * 12), Y))
    assert "astype" not in str(caught.value)


OPTIMIZERS = [thing for thing in vars(fnn.optimizers).values() if hasattr(thing, "_fields") and hasattr(thing, "init")]
PLOTS = [f for name, f in vars(fnn.plots).items() if inspect.isfunction(f) and name != "animated"]


@pytest.mark.parametrize("thing", OPTIMIZERS + PLOTS, ids=lambda thing: thing.__name__)
def test_an_optimizer_or_a_figure_with_a_wrong_argument_says_how_it_is_called(thing):
    with pytest.raises(
        errors.KindError, match=rf"unexpected keyword.*; write fnn\..*{thing.__name__}\(.*arguments are"
    ):
        thing(lr=0.1)


def test_an_optimizer_is_still_a_tuple_that_can_be_pickled_replaced_and_mapped():
    assert pickle.loads(pickle.dumps(ADAM)) == ADAM == trees.map(lambda leaf: leaf, ADAM)
    assert type(ADAM._replace(b1=0.5)) is fnn.Adam
    assert ADAM._replace(b1=0.5).b1 == 0.5
    assert list(inspect.signature(fnn.Adam).parameters) == list(fnn.Adam._fields)


def test_an_error_within_a_call_is_not_taken_for_a_wrong_call():
    def f(prediction, target):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        fnn.evaluate(NET, LOSS, PARAMS, (X, Y), metrics={"mine": f})


def test_what_can_be_called_shows_its_own_signature():
    assert list(inspect.signature(fnn.fit).parameters)[:5] == ["net", "loss", "optimizer", "data", "epochs"]
    assert list(inspect.signature(fnn.Serial).parameters) == ["layers"]
    assert fnn.value_and_grad.__module__ == "fnn.backpropagation"


# ---- images and sequences --------------------------------------------------------------------------------------------

PICTURES, TOKENS = RNG.normal(size=(12, 9, 9, 3)).astype(np.float32), RNG.integers(0, 9, (12, 5))
CONV = fnn.Serial((fnn.Scale(0.5), fnn.Conv(4, (3, 3), padding="same"), fnn.GlobalAvgPool(), fnn.Dense(2)))
SIGNALS = fnn.Serial((fnn.Conv(4, (5,)), fnn.GlobalMaxPool(), fnn.Dense(2)))
STATES, WORDS = fnn.Serial((fnn.Lstm(3), fnn.Dense(2))), fnn.Serial((fnn.Embedding(9, 3), fnn.Gru(3), fnn.Dense(2)))
TAGS = fnn.Serial((fnn.Embedding(9, 3), fnn.Gru(3, all_states=True), fnn.Dense(2)))
LAST = fnn.Serial((fnn.Last(fnn.Serial((fnn.Embedding(9, 3), fnn.Gru(3, all_states=True)))), fnn.Dense(2)))
UNEQUAL = {"x": TOKENS, "length": np.arange(12) % 5 + 1}


def lengths(length):
    return UNEQUAL | {"length": length}


# The network, what it takes, and what it is given: x, y and what the message says.
MISTAKES: dict[str, tuple] = {
    "channels first": (
        CONV,
        PICTURES,
        PICTURES.transpose(0, 3, 1, 2),
        Y,
        "got (12, 3, 9, 9); if .*x.transpose(0, 2, 3",
    ),
    "channels first, one": (CONV, PICTURES, np.zeros((12, 1, 9, 9)), Y, "(N, H, W, C), the channels last, got (12, 1,"),
    "channels first, sequences": (
        SIGNALS,
        PICTURES[:, 0],
        PICTURES[:, 0].transpose(0, 2, 1),
        Y,
        "got (3,); if the channels come first, use x.transpose(0, 2, 1)",
    ),
    "no channel": (CONV, PICTURES, PICTURES[..., 0], Y, "got (9, 9); if the channel is missing, use x[..., None]"),
    "one image": (CONV, PICTURES, PICTURES[0], Y[:9], "for a single example, x[None]"),
    "flat images": (CONV, PICTURES, PICTURES.reshape(12, -1), Y, "use x.reshape(-1, H, W, C)"),
    "one number per position": (STATES, TOKENS[..., None] * 1.0, TOKENS * 1.0, Y, "use x[..., None]"),
    "floats for symbols": (
        WORDS,
        TOKENS,
        TOKENS * 1.0,
        Y,
        "expected integers from 0 to 8, got dtype float32; use x.ast",
    ),
    "a symbol too many": (
        WORDS,
        TOKENS,
        TOKENS + 5 * (TOKENS == 8),
        Y,
        "expected integers from 0 to 8, got 13 at x[0, ",
    ),
    "several arrays for one": (
        WORDS,
        TOKENS,
        UNEQUAL,
        Y,
        "expected one array, got several, {'length': (N,), 'x': (N, 5)}",
    ),
    "other names": (LAST, UNEQUAL, {"tokens": TOKENS}, Y, "{'x': (N, T, ...), 'length': (N,)}, got {'tokens': (N, 5)}"),
    "no lengths": (LAST, UNEQUAL, TOKENS, Y, "expected x as {'x': (N, T, ...), 'length': (N,)}, got (N, 5)"),
    "a mask for lengths": (LAST, UNEQUAL, lengths(TOKENS > 2), Y, "the lengths of a mask are mask.sum(axis=1)"),
    "floats for lengths": (
        LAST,
        UNEQUAL,
        lengths(np.ones(12)),
        Y,
        "length: expected integers, got dtype float32; use leng",
    ),
    "a column for lengths": (LAST, UNEQUAL, lengths(np.ones((12, 1), int)), Y, "use length[:, 0]"),
    "a length beyond T": (LAST, UNEQUAL, lengths(np.arange(12) // 2 + 1), Y, "from 1 to 5, got 6 at length[10]"),
    "a length of 0": (
        LAST,
        UNEQUAL,
        lengths(np.arange(12) % 5),
        Y,
        "length: expected lengths from 1 to 5, got 0 at lengt",
    ),
    "symbols in rows of unequal length": (
        WORDS,
        TOKENS,
        [[1], [2, 3]],
        Y,
        "pad sequences .*and give their lengths to fnn.",
    ),
    "labels for examples": (TAGS, TOKENS, TOKENS, Y, "leave all_states=True out of the last recurrent layer"),
    "labels for positions": (
        WORDS,
        TOKENS,
        TOKENS,
        TOKENS % 2,
        "for one prediction per position, recurrent layers take al",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.thorough(backend="jax")
def test_a_mistake_with_images_or_sequences_is_named_wherever_the_data_go(name, backend):
    net, good, x, y, message = MISTAKES[name]
    shape = {k: a.shape[1:] for k, a in good.items()} if isinstance(good, dict) else good.shape[1:]
    params = on(backend, net.init(key(), shape))
    state = fnn.init_state(net, fnn.Sgd(0.1), key(backend), shape, params=params)
    runs = {
        "apply": lambda: net.apply(params, x),
        "train": lambda: fnn.train(net, LOSS, state, (x, y), epochs=1, batch_size=4),
        "fit": lambda: fnn.fit(net, LOSS, fnn.Sgd(0.1), (x, y), key=key(backend), epochs=1, batch_size=4),
        "evaluate": lambda: fnn.evaluate(net, LOSS, params, (x, y)),
        "gradient": lambda: fnn.value_and_grad(net, LOSS)(params, x, y),
    }
    if backend == "jax":
        del runs["fit"]  # which compiles `init` first
    for run in list(runs)[name.startswith("labels") :]:
        with pytest.raises(errors.FnnError, match=says(message)):
            runs[run]()


@pytest.mark.parametrize(
    ("good", "x", "message"),
    [
        (TOKENS, TOKENS[:, :4], "expected x of shape (N, 5), as the data have, got (12, 4); pad or cut the sequences"),
        (PICTURES, PICTURES[:, 1:], "got (12, 8, 9, 3)$"),
        (TOKENS * 1.0, TOKENS[:, :4] * 1.0, "got (12, 4)$"),
        (
            UNEQUAL,
            UNEQUAL | {"x": TOKENS[:, :4]},
            "'x': (N, 5)}, as the data have, got {'length': (12,), 'x': (12, 4)}; pad",
        ),
        (UNEQUAL, {"x": TOKENS}, "got {'x': (12, 5)}$"),
        (TOKENS, UNEQUAL, "got {'length': (12,), 'x': (12, 5)}$"),
    ],
)
def test_validation_data_of_another_shape_are_named_and_only_sequences_are_to_be_padded(good, x, message):
    data, like = (fnn.examples.opened((given, Y)) for given in (x, good))
    with pytest.raises(errors.ShapeError, match=says(message).replace(r"\$", "$")):
        fnn.gate.check_like(data, like)


def test_images_of_three_rows_are_images_where_rows_and_channels_cannot_be_confused():
    for shape in ((12, 3, 9, 8), (12, 3, 7, 7), (12, 2, 9, 9), (12, 4, 9, 9)):
        net = fnn.Conv(1, (1, 1))
        net.apply(net.init(key(), shape[1:]), np.zeros(shape, np.float32))
    inner = fnn.Serial((fnn.Conv(9, (9, 1)), fnn.MaxPool((1, 2))))  # (N, 9, 9, 1) -> (N, 1, 9, 9) -> ...
    inner.apply(inner.init(key(), (9, 9, 1)), np.zeros((2, 9, 9, 1)))


CONSTRUCTORS = {
    "return_sequences=": (
        lambda: fnn.Lstm(3, return_sequences=True),
        "write fnn.Lstm(64), or fnn.Lstm(64, all_states=T",
    ),
    "an embedding of one size": (lambda: fnn.Embedding(9), "missing .*'units'; write fnn.Embedding(1000, 32)"),
    "kernel_size=": (
        lambda: fnn.Conv(4, kernel_size=3),
        "write fnn.Conv(32, (3, 3)).*the arguments are channels, kernel",
    ),
    "Conv2d(in, out, k)": (lambda: fnn.Conv(3, 8, 5), "kernel: expected a tuple such as (3, 3)"),
    "one name for Last": (lambda: fnn.Last(fnn.Rnn(3), inputs="x"), "expected the names of the sequences and of their"),
    "recurrent on recurrent": (
        lambda: fnn.Serial((fnn.Rnn(3), fnn.Rnn(3))).output_shape((5, 2)),
        "below takes all_states",
    ),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_layer_of_images_or_sequences_that_is_made_wrongly_is_answered(name):
    make, message = CONSTRUCTORS[name]
    with pytest.raises(errors.FnnError, match=says(message)):
        make()


# ---- data frames -----------------------------------------------------------------------------------------------------


def test_a_frame_of_numbers_and_of_true_and_false_is_an_array_of_numbers(backend):
    frame, x = frame_like(age=X[:, 0], owner=Y > 0, rooms=Y), np.stack([X[:, 0], Y > 0, Y], axis=1).astype(np.float32)
    np.testing.assert_array_equal(fnn.Flatten().apply((), frame), x)
    scale = on(backend, fnn.Standardize().measured(x))
    assert type(fnn.Standardize().apply(scale, frame)) is type(scale.mean)
    for run in fnn.value_and_grad(NET, LOSS), fnn.backprop(NET, LOSS), fnn.per_example.norms(NET, LOSS):
        trees.map(np.testing.assert_array_equal, run(PARAMS, frame, Y), run(PARAMS, x, Y))
    trees.map(np.testing.assert_array_equal, fit(data=(frame, Y))[0].params, fit(data=(x, Y))[0].params)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_dummies_of_a_real_frame_are_numbers(library):
    module, columns = pytest.importorskip(library), {"age": X[:, 0], "town": np.array(["a", "b"])[Y]}
    frame = module.DataFrame(columns)
    dummies = module.get_dummies(frame) if library == "pandas" else frame.to_dummies("town")
    expected = np.stack([X[:, 0], Y == 0, Y == 1], axis=1).astype(np.float32)
    np.testing.assert_array_equal(fnn.Identity().apply((), dummies), expected)
    state, _ = fit(data=(dummies, module.Series(Y)))
    np.testing.assert_array_equal(NET.apply(state.params, dummies), NET.apply(state.params, expected))
    with pytest.raises(errors.KindError, match=r"columns \['town'\]"):
        fit(data=(frame, Y))


# ---- help ------------------------------------------------------------------------------------------------------------


def shown_by_help(thing):
    out = io.StringIO()
    pydoc.Helper(output=out).help(thing)
    return out.getvalue()


def test_help_begins_with_an_example_and_lists_every_public_name():
    words = set(re.findall(r"\w+", fnn.__doc__ or ""))
    inside = {"checks", "comparison", "gate", "numerics", "complex_step", "sources", "static", "files", "watching"}
    inside |= {"frames", "streams", "standardization", "footprint", "remat", "processes", "devices", "threefry"}
    inside |= {"outer", "examples"}
    public = {name for name in vars(fnn) if not name.startswith("_")} - inside  # which are of no use to a user
    public -= {"backpropagation", "metrics", "networks", "overview", "sequences"}  # whose names are all in fnn
    assert public - words == set()
    text = shown_by_help(fnn)
    assert text.index(">>> state, history = fnn.fit(") < text.index("PACKAGE CONTENTS") < text.index("VERSION")


def test_help_of_a_network_begins_with_how_it_is_used():
    text = shown_by_help(fnn.Serial)
    assert text.index("net.apply(params, x)") < text.index("Methods defined here")
