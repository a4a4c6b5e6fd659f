"""Optimizers: from a gradient to a change of the parameters.

An optimizer is a NamedTuple of its hyperparameters with two pure methods:

    init(params) -> opt_state        update(grads, opt_state, params) -> (updates, opt_state)
    params ← params + updates

with Optax's signatures. g is the gradient, w a parameter, η the learning rate (a number, or a schedule: a record
that is called on the number of steps taken so far), t the step, counted from 1; products, quotients and roots of arrays
are entry by entry. Hyperparameters are leaves, so they can be traced: another learning rate compiles nothing, and
`jax.vmap` maps over them. States are float32 or wider. An optimizer of your own states its formula for one array, and
`lift` makes `init` and `update` of it.

    base           `lift`, the states, and what formulas share
    descent        along the gradient: Sgd, Momentum, Nesterov
    adaptive       a rate for each parameter by the size of its gradients: Adagrad, Adadelta, RMSProp, Adam, ...
    normalized     the size of the gradient is discarded: Lion, Muon
    quasi_newton   the curvature from the last few steps: Lbfgs, for whole batches
    line_search    how far to go along its direction
    combinators    around other optimizers: clipping, accumulation, averages, an optimizer for each layer
    masters        float32 copies of parameters of 16 bits
    extras         what an optimizer may ask for besides the gradient: the cost as a function
    preparation    checks of the hyperparameters, and Optax's optimizers
"""

from .adaptive import Adadelta as Adadelta
from .adaptive import Adagrad as Adagrad
from .adaptive import Adam as Adam
from .adaptive import Adamax as Adamax
from .adaptive import AdamW as AdamW
from .adaptive import AMSGrad as AMSGrad
from .adaptive import Nadam as Nadam
from .adaptive import RMSProp as RMSProp
from .base import Count as Count
from .base import Moment as Moment
from .base import Moments as Moments
from .base import Square as Square
from .base import Velocity as Velocity
from .base import apply_updates as apply_updates
from .base import lift as lift
from .combinators import Accumulate as Accumulate
from .combinators import Average as Average
from .combinators import ClipByGlobalNorm as ClipByGlobalNorm
from .combinators import ClipByNorm as ClipByNorm
from .combinators import ClipByValue as ClipByValue
from .combinators import MaxNorm as MaxNorm
from .combinators import PerLayer as PerLayer
from .combinators import SkipNonFinite as SkipNonFinite
from .descent import Momentum as Momentum
from .descent import Nesterov as Nesterov
from .descent import Sgd as Sgd
from .masters import Mastered as Mastered
from .masters import Masters as Masters
from .normalized import Lion as Lion
from .normalized import Muon as Muon
from .preparation import from_optax as from_optax
from .preparation import prepare as prepare
from .quasi_newton import Lbfgs as Lbfgs
from .quasi_newton import LbfgsState as LbfgsState
