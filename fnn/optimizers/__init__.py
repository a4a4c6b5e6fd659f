"""Optimizers: how a gradient becomes a change of the parameters.

An optimizer is a NamedTuple of its hyperparameters with two pure methods:

    init(params) -> opt_state        update(grads, opt_state, params) -> (updates, opt_state)
    params ← params + updates

which are Optax's signatures. g is the gradient, w a parameter, η the learning rate (a number, or a schedule: a
NamedTuple that can be called on the number of steps taken so far), t the step, counted from 1; products, quotients and
roots of arrays are entry by entry. Hyperparameters are leaves, so they can be traced: another learning rate compiles
nothing, and `jax.vmap` runs over many. States hold float32 or wider.

    descent        along the gradient: Sgd, Momentum, Nesterov
    adaptive       a rate for each parameter by the size of its gradients: Adagrad, Adadelta, RMSProp, Adam and its kin
    normalized     the size of the gradient thrown away: Lion, Muon
    combinators    around other optimizers: clipping, accumulation, averages, an optimizer for each layer
"""

from .adaptive import Adadelta, Adagrad, Adam, Adamax, AdamW, AMSGrad, Nadam, RMSProp
from .base import Count, Moment, Moments, Square, Velocity, apply_updates
from .checks import from_optax, prepare
from .combinators import (
    Accumulate,
    Average,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    MaxNorm,
    PerLayer,
    SkipNonFinite,
)
from .descent import Momentum, Nesterov, Sgd
from .normalized import Lion, Muon

__all__ = [
    "AMSGrad",
    "Accumulate",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Average",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "Count",
    "Lion",
    "MaxNorm",
    "Moment",
    "Moments",
    "Momentum",
    "Muon",
    "Nadam",
    "Nesterov",
    "PerLayer",
    "RMSProp",
    "Sgd",
    "SkipNonFinite",
    "Square",
    "Velocity",
    "apply_updates",
    "from_optax",
    "prepare",
]
