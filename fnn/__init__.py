"""Neural networks as pure functions, with the backward pass in plain sight.

A network is a layer, and holds no numbers. Its parameters are the first argument of whatever uses them:

    >>> import numpy as np
    >>> import fnn
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = (x[:, 0] > x[:, 1]).astype(int)  # labels
    >>> net, loss, optimizer = fnn.mlp((16, 2)), fnn.SoftmaxCrossEntropy(), fnn.Adam(0.01)
    >>> key = fnn.random.key(0, backend="numpy")  # fnn.random.key(0) is on JAX, if it is installed
    >>> state, history = fnn.fit(net, loss, optimizer, (x, y), key=key, epochs=20, batch_size=20)
    >>> probabilities = loss.predict(net.apply(state.params, x))
    >>> value, grads = fnn.value_and_grad(net, loss)(state.params, x, y)  # by hand-written backpropagation

`help(fnn.fit)`, `help(fnn.Serial)` and so on describe each public name:

    networks        Serial, mlp, Residual, Parallel, Frozen, Remat, summary; a base for your own: Composition; that
                    settle or compare labels: Hopfield, Goodness, in the module energies
    layers          Dense (DenseParams), Dropout, Flatten, LayerNorm, RMSNorm, Scale, Standardize (StandardizeParams),
                    Function; of images: Conv, MaxPool, AvgPool, GlobalMaxPool, GlobalAvgPool; of sequences: Embedding,
                    Rnn, Lstm (RecurrentParams), Gru (GruParams), and Last, of unequal length; a base for your own:
                    Layer; in the module layers
    activations     Relu, Tanh, Sigmoid, Softmax, LogSoftmax, Gelu, Elu, Selu, LeakyRelu, Swish, Softplus, Identity,
                    ArcTan, BinaryStep, BipolarSigmoid, Celu, Glu, HardSigmoid, HardSwish, HardTanh, Isrlu, LogSigmoid,
                    Mish, PElu, PRelu, RRelu, Relu6, Sign, SoftExponential, Softsign, Squareplus; bases for your own:
                    Elementwise, Activation; in the module activations
    initializers    HeNormal, HeUniform, GlorotNormal, GlorotUniform, LecunNormal, LecunUniform, VarianceScaling,
                    Orthogonal, Normal, TruncatedNormal, Uniform, Constant, Ones, Zeros; in the module initializers
    costs           on logits: SoftmaxCrossEntropy, SigmoidBinaryCrossEntropy, Focal, BinaryFocal, PoissonNll, Hinge,
                    Perceptron; on probabilities: CrossEntropy, BinaryCrossEntropy, KullbackLeibler, Hellinger; on
                    numbers: MeanSquaredError, Quadratic, RootMeanSquaredError, MeanAbsoluteError, Huber,
                    ExponentialCost, ItakuraSaito, GeneralizedKullbackLeibler; of distributions: Quantile, GaussianNll;
                    FunctionLoss; a base for your own: Loss; in the module losses. Penalties: L1, L2
    optimizers      Sgd, Momentum, Nesterov, Adam, AdamW, Adagrad, Adadelta, Adamax, AMSGrad, Nadam, RMSProp, Lion,
                    Muon, Lbfgs, from_optax; around them: ClipByGlobalNorm, ClipByNorm, ClipByValue, Accumulate,
                    Average, MaxNorm, PerLayer, SkipNonFinite, Masters; apply_updates; in the module optimizers.
                    Learning rates: schedules
    training        fit, evaluate, range_test; train, make_step, init_state (TrainState, Best); sweep, folds, ensemble;
                    minimize; in the module training. After each epoch: callbacks. How a batch becomes a gradient:
                    rules, privacy
    data            Batches, of an iterable such as a DataLoader; standardized; weights: class_weights
    predicting      predict, log_probabilities; attribution (integrated gradients and others)
    metrics         accuracy, top_k_accuracy, confusion_matrix, r2_score, mean_absolute_error; of probabilities:
                    negative_log_likelihood, expected_calibration_error, reliability; in the module calibration; by
                    scikit-learn's names: scoring
    the gradient    value_and_grad, grad, backprop (Tape), custom_vjp; factors, per_example, curvature, laplace,
                    influence; of scalars: autodiff
    inspection      diagnose (findings), memory (of a step), diagnostics, plots, testing (a gradient checker)
    files           load_network, checkpoints, datasets; onnx, for other runtimes
    devices         sharding
    for all         random (keys), trees, backend, matrices (the two products), pieces, errors, order; composition;
                    Interval, the range of a field
    estimators      FNNClassifier and FNNRegressor, after `import fnn.sklearn`
"""

import typing as _typing

from . import attribution as attribution
from . import autodiff as autodiff
from . import backend as backend
from . import callbacks as callbacks
from . import checkpoints as checkpoints
from . import composition as composition
from . import curvature as curvature
from . import datasets as datasets
from . import diagnostics as diagnostics
from . import errors as errors
from . import factors as factors
from . import influence as influence
from . import initializers as initializers
from . import laplace as laplace
from . import layers as layers
from . import matrices as matrices
from . import onnx as onnx
from . import order as order
from . import per_example as per_example
from . import pieces as pieces
from . import plots as plots
from . import privacy as privacy
from . import random as random
from . import rules as rules
from . import schedules as schedules
from . import sharding as sharding
from . import static as static
from . import testing as testing
from . import trees as trees
from .backpropagation import Tape as Tape
from .backpropagation import backprop as backprop
from .backpropagation import custom_vjp as custom_vjp
from .backpropagation import grad as grad
from .backpropagation import value_and_grad as value_and_grad
from .calibration import expected_calibration_error as expected_calibration_error
from .calibration import negative_log_likelihood as negative_log_likelihood
from .calibration import reliability as reliability
from .checkpoints import load_network as load_network
from .composition import Composition as Composition
from .energies import Goodness as Goodness
from .energies import Hopfield as Hopfield
from .findings import diagnose as diagnose
from .footprint import memory as memory
from .initializers import Constant as Constant
from .initializers import GlorotNormal as GlorotNormal
from .initializers import GlorotUniform as GlorotUniform
from .initializers import HeNormal as HeNormal
from .initializers import HeUniform as HeUniform
from .initializers import LecunNormal as LecunNormal
from .initializers import LecunUniform as LecunUniform
from .initializers import Normal as Normal
from .initializers import Ones as Ones
from .initializers import Orthogonal as Orthogonal
from .initializers import TruncatedNormal as TruncatedNormal
from .initializers import Uniform as Uniform
from .initializers import VarianceScaling as VarianceScaling
from .initializers import Zeros as Zeros
from .layers import AvgPool as AvgPool
from .layers import Conv as Conv
from .layers import Dense as Dense
from .layers import DenseParams as DenseParams
from .layers import Dropout as Dropout
from .layers import Embedding as Embedding
from .layers import Flatten as Flatten
from .layers import Function as Function
from .layers import GlobalAvgPool as GlobalAvgPool
from .layers import GlobalMaxPool as GlobalMaxPool
from .layers import Gru as Gru
from .layers import GruParams as GruParams
from .layers import Layer as Layer
from .layers import LayerNorm as LayerNorm
from .layers import Lstm as Lstm
from .layers import MaxPool as MaxPool
from .layers import RecurrentParams as RecurrentParams
from .layers import RMSNorm as RMSNorm
from .layers import Rnn as Rnn
from .layers import Scale as Scale
from .layers import Standardize as Standardize
from .layers import StandardizeParams as StandardizeParams
from .layers import activations as activations
from .layers.activations import Activation as Activation
from .layers.activations import ArcTan as ArcTan
from .layers.activations import BinaryStep as BinaryStep
from .layers.activations import BipolarSigmoid as BipolarSigmoid
from .layers.activations import Celu as Celu
from .layers.activations import Elementwise as Elementwise
from .layers.activations import Elu as Elu
from .layers.activations import Gelu as Gelu
from .layers.activations import Glu as Glu
from .layers.activations import HardSigmoid as HardSigmoid
from .layers.activations import HardSwish as HardSwish
from .layers.activations import HardTanh as HardTanh
from .layers.activations import Identity as Identity
from .layers.activations import Isrlu as Isrlu
from .layers.activations import LeakyRelu as LeakyRelu
from .layers.activations import LogSigmoid as LogSigmoid
from .layers.activations import LogSoftmax as LogSoftmax
from .layers.activations import Mish as Mish
from .layers.activations import PElu as PElu
from .layers.activations import PRelu as PRelu
from .layers.activations import Relu as Relu
from .layers.activations import Relu6 as Relu6
from .layers.activations import RRelu as RRelu
from .layers.activations import Selu as Selu
from .layers.activations import Sigmoid as Sigmoid
from .layers.activations import Sign as Sign
from .layers.activations import SoftExponential as SoftExponential
from .layers.activations import Softmax as Softmax
from .layers.activations import Softplus as Softplus
from .layers.activations import Softsign as Softsign
from .layers.activations import Squareplus as Squareplus
from .layers.activations import Swish as Swish
from .layers.activations import Tanh as Tanh
from .losses import L1 as L1
from .losses import L2 as L2
from .losses import BinaryCrossEntropy as BinaryCrossEntropy
from .losses import BinaryFocal as BinaryFocal
from .losses import CrossEntropy as CrossEntropy
from .losses import ExponentialCost as ExponentialCost
from .losses import Focal as Focal
from .losses import FunctionLoss as FunctionLoss
from .losses import GaussianNll as GaussianNll
from .losses import GeneralizedKullbackLeibler as GeneralizedKullbackLeibler
from .losses import Hellinger as Hellinger
from .losses import Hinge as Hinge
from .losses import Huber as Huber
from .losses import ItakuraSaito as ItakuraSaito
from .losses import KullbackLeibler as KullbackLeibler
from .losses import Loss as Loss
from .losses import MeanAbsoluteError as MeanAbsoluteError
from .losses import MeanSquaredError as MeanSquaredError
from .losses import Perceptron as Perceptron
from .losses import PoissonNll as PoissonNll
from .losses import Quadratic as Quadratic
from .losses import Quantile as Quantile
from .losses import RootMeanSquaredError as RootMeanSquaredError
from .losses import SigmoidBinaryCrossEntropy as SigmoidBinaryCrossEntropy
from .losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .metrics import accuracy as accuracy
from .metrics import confusion_matrix as confusion_matrix
from .metrics import mean_absolute_error as mean_absolute_error
from .metrics import r2_score as r2_score
from .metrics import top_k_accuracy as top_k_accuracy
from .networks import Frozen as Frozen
from .networks import Parallel as Parallel
from .networks import Residual as Residual
from .networks import Serial as Serial
from .networks import mlp as mlp
from .optimizers import Accumulate as Accumulate
from .optimizers import Adadelta as Adadelta
from .optimizers import Adagrad as Adagrad
from .optimizers import Adam as Adam
from .optimizers import Adamax as Adamax
from .optimizers import AdamW as AdamW
from .optimizers import AMSGrad as AMSGrad
from .optimizers import Average as Average
from .optimizers import ClipByGlobalNorm as ClipByGlobalNorm
from .optimizers import ClipByNorm as ClipByNorm
from .optimizers import ClipByValue as ClipByValue
from .optimizers import Lbfgs as Lbfgs
from .optimizers import Lion as Lion
from .optimizers import Masters as Masters
from .optimizers import MaxNorm as MaxNorm
from .optimizers import Momentum as Momentum
from .optimizers import Muon as Muon
from .optimizers import Nadam as Nadam
from .optimizers import Nesterov as Nesterov
from .optimizers import PerLayer as PerLayer
from .optimizers import RMSProp as RMSProp
from .optimizers import Sgd as Sgd
from .optimizers import SkipNonFinite as SkipNonFinite
from .optimizers import apply_updates as apply_updates
from .optimizers import from_optax as from_optax
from .overview import summary as summary
from .predicting import log_probabilities as log_probabilities
from .predicting import predict as predict
from .remat import Remat as Remat
from .sequences import Last as Last
from .sources import Batches as Batches
from .standardization import standardized as standardized
from .static import Interval as Interval
from .training import Best as Best
from .training import TrainState as TrainState
from .training import ensemble as ensemble
from .training import evaluate as evaluate
from .training import fit as fit
from .training import folds as folds
from .training import init_state as init_state
from .training import make_step as make_step
from .training import minimize as minimize
from .training import range_test as range_test
from .training import sweep as sweep
from .training import train as train
from .weights import class_weights as class_weights

static.make_exportable()

__version__ = "0.1.0"

if not _typing.TYPE_CHECKING:  # a type checker knows the names itself

    def __getattr__(name):
        """The error for a name that fnn does not have, with what to write instead of other libraries' names."""
        elsewhere = {
            "sequential": "fnn.Serial((fnn.Dense(32), fnn.Relu(), fnn.Dense(10)))",
            "linear": "fnn.Dense(units), without the number of inputs",
            "module": "fnn.Layer",
            "batchnorm": "fnn.LayerNorm(), as no layer of fnn couples examples",
            "gaussiannllloss": "fnn.GaussianNll(), whose prediction is means and logarithms of variances",
            "mseloss": "fnn.MeanSquaredError()",
            "crossentropyloss": "fnn.SoftmaxCrossEntropy()",
            "bcewithlogitsloss": "fnn.SigmoidBinaryCrossEntropy()",
            "save": "fnn.checkpoints.save(path, state, net=net)",
            "load": "fnn.checkpoints.load(path), or fnn.load_network(path)",
            "sklearn": "import fnn.sklearn first",
        }
        known = {known.lower(): known for known in globals() if not known.startswith("_")}
        plain = name.replace("_", "").lower()
        for ending in ("1d", "2d", "3d", "alization"):
            plain = plain.removesuffix(ending)
        write = elsewhere.get(plain) or (f"fnn.{known[plain]}" if plain in known else "")
        raise AttributeError(f"module 'fnn' has no attribute {name!r}{write and '; write '}{write}")
