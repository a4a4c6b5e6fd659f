"""Activations: each one's formula and its derivative side by side.

a = σ(z), applied to each entry (softmax: to each row; GLU: to two halves of it); z, a and δ = ∂L/∂a are (N, ...), and
dz = δ ⊙ σ'(z) is the error of the layer below. What a derivative needs is kept as the residual: a itself where σ' is a
formula of a, else z. At a kink the derivative is the documented one, which is that of `jax.nn`. Parameters that are
learnt have their derivative ∂a/∂θ beside that of z. NaN in z gives NaN in a and in dz, except that dz of a step and of
the identity does not depend on z. All are finite for |z| ≤ 10⁴ in float32, except `SoftExponential` where its α is
not 0.

    base          Elementwise (a function and its derivative, and nothing else) and Learnt (with parameters)
    sigmoids      steps, and the curves that smooth them: bounded on both sides
    rectifiers    the straight line, the ramp, and the curves that smooth it or bend its lower half
    learnt        curves with parameters that are learnt
    gates         a value times a gate: Swish, GELU and their kin
    rows          softmax and its logarithm: the outputs of an example together
"""

from .base import Activation as Activation
from .base import Elementwise as Elementwise
from .base import Learnt as Learnt
from .gates import Gelu as Gelu
from .gates import Glu as Glu
from .gates import HardSwish as HardSwish
from .gates import Mish as Mish
from .gates import Swish as Swish
from .gates import SwishParams as SwishParams
from .learnt import PElu as PElu
from .learnt import PEluParams as PEluParams
from .learnt import PRelu as PRelu
from .learnt import PReluParams as PReluParams
from .learnt import SoftExponential as SoftExponential
from .learnt import SoftExponentialParams as SoftExponentialParams
from .rectifiers import Celu as Celu
from .rectifiers import Elu as Elu
from .rectifiers import Identity as Identity
from .rectifiers import Isrlu as Isrlu
from .rectifiers import LeakyRelu as LeakyRelu
from .rectifiers import LogSigmoid as LogSigmoid
from .rectifiers import Relu as Relu
from .rectifiers import Relu6 as Relu6
from .rectifiers import RRelu as RRelu
from .rectifiers import Selu as Selu
from .rectifiers import Softplus as Softplus
from .rectifiers import Squareplus as Squareplus
from .rows import LogSoftmax as LogSoftmax
from .rows import Softmax as Softmax
from .sigmoids import ArcTan as ArcTan
from .sigmoids import BinaryStep as BinaryStep
from .sigmoids import BipolarSigmoid as BipolarSigmoid
from .sigmoids import HardSigmoid as HardSigmoid
from .sigmoids import HardTanh as HardTanh
from .sigmoids import Sigmoid as Sigmoid
from .sigmoids import Sign as Sign
from .sigmoids import Softsign as Softsign
from .sigmoids import Tanh as Tanh
