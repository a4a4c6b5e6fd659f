"""The training of an estimator, epoch by epoch: what is recorded, when it stops, and what is kept."""

import math
import time
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .. import backend, random, trees
from ..backend import namespace
from ..backpropagation import Problem
from ..callbacks import Epoch, begun, call
from ..errors import DivergenceError
from ..losses import L2
from ..optimizers.rates import last_rate
from ..order import Plan
from ..training.loop import advance
from ..training.state import changed, next_epoch
from .examples import Rows, admitted
from .parameters import USUAL_BATCH

WORTH_COMPILING = 1e10  # operations of a whole run: about a second of NumPy's
QUICK = WORTH_COMPILING / 100  # operations that are not worth an interruption
TOGETHER = 20  # iterations of L-BFGS, each more than one gradient where they are apart


class Run:
    """One training run of an estimator, whose attributes it sets.

    model     the estimator, with its network and state
    held      (X, y, weights) held out for early stopping, or None
    epochs    how many epochs `partial_fit` asks for; None for `fit`, which goes on until it stops
    n         the number of examples
    waited    the number of epochs without an improvement; an epoch of L-BFGS is an iteration
    best      the state of the best epoch on the data held out
    """

    def __init__(self, model, held, epochs, n):
        self.model, self.held, self.epochs, self.n = model, held, epochs, n
        self.waited, self.best, self.started = 0, None, time.perf_counter()

    def train(self, X, targets, weights, loss) -> Any:
        """The state after training."""
        model, epochs, n = self.model, self.epochs, self.n
        most, size = model.max_iter if epochs is None else epochs, model._batch(n)
        chosen, work = model.backend, 6 * sum(p.size for p in trees.leaves(model._state.params)) * n
        whole = model.solver == "lbfgs"  # which mostly ends long before max_iter, and takes longer to compile
        if chosen is None:
            worth = work * most > WORTH_COMPILING * (10 if whole else 1)
            chosen = "jax" if worth and backend.jax is not None else "numpy"
        state = on_backend(chosen, model._state)
        data = admitted(model._net, loss, state.params, X, targets, weights)
        state = next_epoch(state)
        per_epoch, plan = -(-n // size), Plan(n, size, model.shuffle)
        nominal = n if whole else USUAL_BATCH if model.batch_size == "auto" else model.batch_size
        penalty = L2(trees.leaves(state.params)[0].dtype.type(model.alpha / nominal)) if model.alpha else None
        problem = Problem(model._net, loss, penalty)
        self._begin_records()
        stopped = False
        alone = (chosen == "numpy" or whole) and self.held is None and not model.verbose and not model.callbacks
        try:
            with begun(model.callbacks, state):
                while model.n_iter_ < most and not stopped:
                    at_once = 1  # or as many as must be done before it can stop
                    if whole:
                        state = state._replace(optimizer=self._iterating(state, work, most - model.n_iter_, alone))
                    elif alone:
                        at_once = min(model.n_iter_no_change + 1 - self.waited, most - model.n_iter_, 1 + QUICK // work)
                    state, history = advance(problem, state, data, plan, int(at_once) * per_epoch)
                    if whole:
                        self._end_epoch(float(history["loss_after"][0]), state, int(history["iterations"][0]))
                    else:
                        losses, sizes = (
                            np.asarray(history[k], float).reshape(-1, per_epoch) for k in ("loss", "weight")
                        )
                        for value in (losses * sizes).sum(axis=1) / sizes.sum(axis=1):
                            self._end_epoch(float(value), state)
                    state, stopped = self._told(state)
                    stopped = stopped or (whole and bool(history["status"][0]))
                    if epochs is None and not stopped and self.waited > model.n_iter_no_change:
                        state, stopped = self._slower(state)
        except KeyboardInterrupt:
            if epochs is not None:  # so that a loop of partial_fit can be stopped; the network remains that of before
                raise
            message = f"training was interrupted after {model.n_iter_} epochs, whose network is kept"
            warnings.warn(message, stacklevel=4)
            stopped = True
        except DivergenceError as error:
            if self.best is None:
                raise
            warnings.warn(f"{error}; the best epoch's network is kept", ConvergenceWarning, stacklevel=4)
            stopped = True
        if epochs is None and not stopped:
            message = (
                f"max_iter: {most} {'iterations' if whole else 'epochs'} are done, and training has not converged yet"
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=4)
        state = on_backend("numpy", state) if self.held is None or not model.n_iter_ else self.best
        if state is None or not all(np.isfinite(p).all() for p in trees.leaves(state.params)):
            raise self._diverged("a parameter is not finite")
        return state

    def _begin_records(self):
        """The records of the estimator, continued; what was best on other data is no measure for these."""
        model, held = self.model, self.held
        model.loss_curve_ = list(model.loss_curve_)  # a copy of the estimator keeps the earlier one
        if self.epochs is None or model.best_loss_ is None:
            model.best_loss_, model.best_validation_score_ = (None, -math.inf) if held else (math.inf, None)
            model.validation_scores_ = list(model.validation_scores_ or []) if held else None
        model.n_iter_ = 0

    def _iterating(self, state, work, most, alone):
        """The optimizer with the number of iterations until the next report."""
        iterations = min(most, TOGETHER + int(QUICK // work)) if alone else 1
        return state.optimizer._replace(iterations=namespace(state.step).asarray(iterations, dtype=np.int32)[()])

    def _end_epoch(self, value, state, iterations=1):
        """Record the end of an epoch, or of iterations of L-BFGS, with this mean loss."""
        model = self.model
        if self.held is None and not math.isfinite(value):
            raise self._diverged(f"the loss is {value:g}")
        model.n_iter_ += iterations
        model.t_ += iterations * self.n
        model.loss_ = value
        model.loss_curve_.append(value)
        if model.verbose:
            print(f"Iteration {model.n_iter_}, loss = {value:.8f}")
        if self.held is None:
            watched, best = value, model.best_loss_
            model.best_loss_ = min(value, best)
        else:
            X, y, weights = self.held
            state = on_backend("numpy", state)
            output = applied(*model._public(state.params), X)
            finite = np.isfinite(output).all()
            score = float(model._score(y, model._decided(output), sample_weight=weights)) if finite else math.nan
            watched, best = -score, -model.best_validation_score_
            model.validation_scores_.append(score)
            if score > model.best_validation_score_:
                model.best_validation_score_, self.best = score, state
            if model.verbose:
                print(f"Validation score: {score:f}")
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value:g}")
        self.waited = 0 if watched <= best - model.tol else self.waited + 1

    def _told(self, state):
        """`(state, whether to stop)` after the callbacks have been called."""
        model = self.model
        if not model.callbacks:
            return state, False
        curves = {"loss": model.loss_curve_}
        if self.held is not None:
            curves["validation_score"] = model.validation_scores_
        metrics, history = ({k: f(v) for k, v in curves.items()} for f in (lambda v: v[-1], np.array))
        counters, seconds = (int(state.epoch), int(state.step)), time.perf_counter() - self.started
        return call(model.callbacks, Epoch(*counters, metrics, state, last_rate(state), seconds, history), changed)

    def _diverged(self, what):
        model = self.model
        lower = "" if model.solver == "lbfgs" else "a lower learning_rate_init helps, or "
        message = f"epoch {model.n_iter_}: {what}; {lower}standardize=True{'' if lower else ' helps'}"
        return DivergenceError(message, model._state, {"loss": np.array(model.loss_curve_)})

    def _slower(self, state):
        """`(state, whether to stop)` once the loss stops falling: an adaptive rate is lowered before it stops."""
        if self.model.solver == "lbfgs":  # which has no rate, and stops by itself unless examples are held out
            return state, self.held is not None
        if self.model.learning_rate != "adaptive" or (rate := state.optimizer.learning_rate) <= 1e-6:
            return state, True
        self.waited = 0
        return state._replace(optimizer=state.optimizer._replace(learning_rate=rate / 5)), False


def applied(net, params, X):
    """The outputs of the network, computed for at most 10,000 examples at a time; sparse ones are made dense there."""
    X = Rows(X) if hasattr(X, "toarray") else X
    size = min(10_000, X.at_once) if isinstance(X, Rows) else 10_000
    return np.concatenate([net.apply(params, X[i : i + size]) for i in range(0, len(X), size)])


def on_backend(chosen, state):
    """The state on the chosen backend."""
    xp = np if chosen == "numpy" else backend.jnp
    if namespace(state.key) is xp:
        return state
    key = random.like(state.key, xp)
    return trees.map(lambda a: xp.asarray(a)[()], state._replace(key=()))._replace(key=key)
