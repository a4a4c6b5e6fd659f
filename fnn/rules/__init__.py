"""Rules: how a batch is turned into a direction for the parameters. Any rule runs in `train`, `fit` and `sweep`.

base        what a rule is
backprop    Backprop: the gradient of the cost (the default)
private     Private: clipped and noisy gradients (DP-SGD)
feedback    FeedbackAlignment, SignSymmetry, KolenPollack, DirectFeedbackAlignment: other matrices carry the errors back
targets     TargetPropagation: each layer is told a target for its output
predictive  PredictiveCoding: the values of units settle between prediction and error
equilibrium EquilibriumPropagation: a network settles twice more, nudged either way
goodness    ForwardForward: each stage tells what is true from what is not
natural     NaturalGradient: the gradient divided by the curvature of the batch, for small networks
kfac        KFac: the same with curvature in Kronecker factors, averaged over batches
forward     ForwardGradient: the derivative along a random direction, times the direction
parts       InParts: a few examples of a batch at a time, in less memory
loss_scale  LossScale: errors in float16 multiplied by a number that keeps them in range
angles      alignment, Aligned: how far a rule's gradient is from that of backpropagation
chain       a network as a chain of stages, for rules that look at one layer at a time
"""

from ..backpropagation import Problem as Problem
from .angles import Aligned as Aligned
from .angles import alignment as alignment
from .backprop import Backprop as Backprop
from .base import Batch as Batch
from .base import Choice as Choice
from .base import Keys as Keys
from .base import RuleOutput as RuleOutput
from .equilibrium import EquilibriumPropagation as EquilibriumPropagation
from .feedback import DirectFeedbackAlignment as DirectFeedbackAlignment
from .feedback import FeedbackAlignment as FeedbackAlignment
from .feedback import KolenPollack as KolenPollack
from .feedback import SignSymmetry as SignSymmetry
from .forward import ForwardGradient as ForwardGradient
from .goodness import ForwardForward as ForwardForward
from .kfac import KFac as KFac
from .loss_scale import LossScale as LossScale
from .natural import NaturalGradient as NaturalGradient
from .parts import InParts as InParts
from .predictive import PredictiveCoding as PredictiveCoding
from .private import Private as Private
from .targets import TargetPropagation as TargetPropagation
