"""Costs, each with its value and derivative side by side, and penalties on the parameters.

A cost compares a prediction a (N, ...) with a target y and gives, independently for every example,

    value   ℓ (N,)        delta   δ = ∂ℓ/∂a, shaped as a

unscaled and unweighted: the mean over the examples is taken in one place, `backprop`. A cost sums over the outputs of
an example, unless its name contains "Mean".

    distances       costs of the difference of two numbers: regression
    probabilities   costs of predictions that are themselves probabilities, or positive
    logits          costs of the value z before a softmax, sigmoid, exponential or sign, fused with it: stable and cheap
    focal           costs on logits that count easy examples less
    distributions   costs of predictions that describe the distribution of a target: quantiles, mean and variance
    penalties       L1 and L2 penalties on the parameters
"""

from .base import FunctionLoss as FunctionLoss
from .base import Loss as Loss
from .distances import ExponentialCost as ExponentialCost
from .distances import Huber as Huber
from .distances import MeanAbsoluteError as MeanAbsoluteError
from .distances import MeanSquaredError as MeanSquaredError
from .distances import Quadratic as Quadratic
from .distances import RootMeanSquaredError as RootMeanSquaredError
from .distributions import GaussianNll as GaussianNll
from .distributions import Quantile as Quantile
from .focal import BinaryFocal as BinaryFocal
from .focal import Focal as Focal
from .logits import Hinge as Hinge
from .logits import Perceptron as Perceptron
from .logits import PoissonNll as PoissonNll
from .logits import SigmoidBinaryCrossEntropy as SigmoidBinaryCrossEntropy
from .logits import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .penalties import L1 as L1
from .penalties import L2 as L2
from .probabilities import BinaryCrossEntropy as BinaryCrossEntropy
from .probabilities import CrossEntropy as CrossEntropy
from .probabilities import GeneralizedKullbackLeibler as GeneralizedKullbackLeibler
from .probabilities import Hellinger as Hellinger
from .probabilities import ItakuraSaito as ItakuraSaito
from .probabilities import KullbackLeibler as KullbackLeibler
