"""Costs: the value of each and its derivative side by side, and penalties on the parameters.

A cost compares a prediction a (N, ...) with a target y and gives, for every example on its own,

    value   ℓ (N,)        delta   δ = ∂ℓ/∂a, shaped as a

unscaled and unweighted: the mean over the examples is taken in one place, `backprop`. Over the outputs of an example
a cost sums, unless its name says Mean.

    distances       of two numbers: regression
    probabilities   of a prediction that is a probability, or positive, itself
    logits          of the value z before a softmax, sigmoid, exponential or sign, fused with it: stable and cheap
    penalties       L1 and L2, of the parameters
"""

from .base import FunctionLoss, Loss
from .distances import (
    ExponentialCost,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Quadratic,
    RootMeanSquaredError,
)
from .logits import Hinge, Perceptron, PoissonNll, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from .penalties import L1, L2
from .probabilities import (
    BinaryCrossEntropy,
    CrossEntropy,
    GeneralizedKullbackLeibler,
    Hellinger,
    ItakuraSaito,
    KullbackLeibler,
)

__all__ = [
    "L1",
    "L2",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "ExponentialCost",
    "FunctionLoss",
    "GeneralizedKullbackLeibler",
    "Hellinger",
    "Hinge",
    "Huber",
    "ItakuraSaito",
    "KullbackLeibler",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Perceptron",
    "PoissonNll",
    "Quadratic",
    "RootMeanSquaredError",
    "SigmoidBinaryCrossEntropy",
    "SoftmaxCrossEntropy",
]
