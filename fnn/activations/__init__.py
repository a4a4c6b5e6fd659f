"""Activations: each one's formula and its derivative side by side.

a = σ(z), applied to each entry (softmax: to each row; GLU: to two halves of it); z, a and δ = ∂L/∂a are (N, ...), and
dz = δ ⊙ σ'(z) is the error of the layer below. What a derivative needs is kept as the residual: a itself where σ' is a
formula of a, else z. At a kink the derivative is the documented one, which is that of `jax.nn`. Parameters that are
learnt have their derivative beside that of z, for each example and summed. All are finite for |z| ≤ 10⁴ in float32,
but for `SoftExponential` where its α is not 0.

    sigmoids      steps, and the curves that smooth them: bounded on both sides
    rectifiers    the straight line, the ramp, and the curves that smooth it or bend its lower half
    gates         a value times a gate: Swish, GELU and their kin
    rows          softmax and its logarithm: the outputs of an example together
"""

from .base import Activation, Learnt
from .gates import Gelu, Glu, HardSwish, Mish, Swish, SwishParams
from .rectifiers import (
    Celu,
    Elu,
    Identity,
    Isrlu,
    LeakyRelu,
    LogSigmoid,
    PElu,
    PEluParams,
    PRelu,
    PReluParams,
    Relu,
    Relu6,
    RRelu,
    Selu,
    SoftExponential,
    SoftExponentialParams,
    Softplus,
    Squareplus,
)
from .rows import LogSoftmax, Softmax
from .sigmoids import ArcTan, BinaryStep, BipolarSigmoid, HardSigmoid, HardTanh, Sigmoid, Sign, Softsign, Tanh

__all__ = [
    "Activation",
    "ArcTan",
    "BinaryStep",
    "BipolarSigmoid",
    "Celu",
    "Elu",
    "Gelu",
    "Glu",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Identity",
    "Isrlu",
    "LeakyRelu",
    "Learnt",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PElu",
    "PEluParams",
    "PRelu",
    "PReluParams",
    "RRelu",
    "Relu",
    "Relu6",
    "Selu",
    "Sigmoid",
    "Sign",
    "SoftExponential",
    "SoftExponentialParams",
    "Softmax",
    "Softplus",
    "Softsign",
    "Squareplus",
    "Swish",
    "SwishParams",
    "Tanh",
]
