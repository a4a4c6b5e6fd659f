"""Training: a run is a function of its state.

state        the state of a run: TrainState, init_state
step         one update: make_step
loop         many steps or epochs as one compiled call: train, and the loop that fit is built on
evaluation   predictions, costs and metrics on data: evaluate
minimizing   any other function of parameters: minimize
fitting      the loop on the host: fit, range_test
resuming     the progress of a fit between two steps, its checkpoints, and signals
sweeps       many runs at once: sweep, folds, ensemble
"""

from .evaluation import evaluate as evaluate
from .fitting import fit as fit
from .fitting import range_test as range_test
from .loop import Best as Best
from .loop import train as train
from .minimizing import minimize as minimize
from .state import TrainState as TrainState
from .state import init_state as init_state
from .step import make_step as make_step
from .sweeps import ensemble as ensemble
from .sweeps import folds as folds
from .sweeps import sweep as sweep
