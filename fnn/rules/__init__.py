"""Rules: how a batch is turned into a direction for the parameters. Any rule runs in `train`, `fit` and `sweep`.

base        what a rule is
backprop    Backprop: the gradient of the cost (the default)
private     Private: clipped and noisy gradients (DP-SGD)
"""

from ..backpropagation import Problem as Problem
from .backprop import Backprop as Backprop
from .base import Batch as Batch
from .base import Choice as Choice
from .base import Keys as Keys
from .base import RuleOutput as RuleOutput
from .private import Private as Private
