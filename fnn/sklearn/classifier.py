"""The classifier."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, is_multilabel
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..errors import ArgumentError, shorten
from ..layers.activations import LogSigmoid, LogSoftmax
from ..losses import SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from .base import Estimator
from .examples import relative
from .parameters import knows_its_parameters


class FNNClassifier(ClassifierMixin, Estimator):
    """A multilayer perceptron that classifies, or assigns sets of labels, trained on the cross-entropy.

    The parameters have the names of scikit-learn's `MLPClassifier`, except for the last five. Three defaults differ
    from scikit-learn's, where `alpha` is 0.0001, `learning_rate_init` 0.001 and `batch_size` at most 200: with the
    defaults here, training is as accurate and faster.

    X may be a sparse matrix or array of SciPy. A large one is made dense a few batches at a time (with 'lbfgs' all of
    it, since that is its batch), and in `predict` too; the result is that of the dense array.

    It computes in the precision of X; on JAX in float32, unless 64 bits are enabled there. It passes scikit-learn's
    `check_estimator`, except on JAX in float32 for one comparison to ten digits.

    Args:
        hidden_layer_sizes: the number of units of each hidden layer. Default: (100,).
        activation: 'relu', 'identity', 'logistic', 'tanh', or a layer such as `fnn.Gelu()`. Default: 'relu'.
        solver: 'adam', 'sgd', 'lbfgs' (all examples in each step; for small data often the fastest and the most
            accurate), or an optimizer's class such as `fnn.AdamW`. Default: 'adam'.
        alpha: the strength of the L2 penalty ½ α/B Σ w², which is added to the mean cost; B is `batch_size`, or 200 if
            that is 'auto', and with 'lbfgs' the number of examples, as in scikit-learn. It does not depend on the scale
            of the weights, nor, but for 'lbfgs', on the number of examples. Default: 0.2.
        batch_size: examples per step; 'auto' is about 200, chosen so that all batches have about the same size.
            Default: 'auto'.
        learning_rate: 'constant', 'invscaling' or 'adaptive', for every solver. Default: 'constant'.
        learning_rate_init: the initial learning rate. Default: 0.005.
        power_t: the exponent of 'invscaling'. Default: 0.5.
        max_iter: the maximum number of epochs, of 'lbfgs' of iterations. Default: 200.
        shuffle: whether to shuffle the examples in each epoch. Default: True.
        random_state: the seed, or a `RandomState`. Default: None.
        tol: training stops once the loss has not fallen (or the validation score risen) by at least this much for more
            than `n_iter_no_change` epochs; with 'lbfgs', once no entry of the gradient is larger. Default: 10⁻⁴.
        verbose: whether to print the loss of each epoch. Default: False.
        warm_start: whether `fit` continues from where the last call ended, with the present parameters: another rate,
            solver, activation or penalty is used from there on; other sizes are refused. Default: False.
        momentum: the momentum of 'sgd'. Default: 0.9.
        nesterovs_momentum: whether 'sgd' uses Nesterov's momentum. Default: True.
        early_stopping: whether to monitor the score on held-out data in place of the loss; the network of the best
            epoch is then returned, also if the run diverges after it. Default: False.
        validation_fraction: the fraction held out for early stopping. Classes keep their shares as far as that can be
            had: a class of one example is trained on, and so are examples of weight 0. Default: 0.1.
        beta_1: the decay rate of the first moment of 'adam'. Default: 0.9.
        beta_2: the decay rate of the second moment of 'adam'. Default: 0.999.
        epsilon: the constant for numerical stability of 'adam'. Default: 10⁻⁸.
        n_iter_no_change: the number of epochs without improvement after which training stops, see `tol`. Default: 10.
        standardize: whether a first layer, with constants from the training data, standardizes the inputs to mean 0 and
            standard deviation 1. Default: True.
        dropout: the probability with which each output of a hidden layer is dropped in training, in [0, 1). Default: 0.
        class_weight: 'balanced', or a dict `{class: weight}`, in which those left out are 1, as for other classifiers
            of scikit-learn. They multiply `sample_weight` in training, and not in the score of held-out data. `fit`
            alone takes 'balanced', as `partial_fit` does not see all classes. Default: None, all 1.
        callbacks: functions, or objects such as `fnn.callbacks.CsvLog(path)`, called after each epoch, as those of
            `fnn.fit`; see `fnn.callbacks`. Their metrics are `loss` and, with early stopping, `validation_score`; the
            `state` is that of the network between the standardization of X and of y. Default: none.
        backend: 'numpy', 'jax', or None to choose by the amount of work. Default: None.

    Attributes: `classes_`, `net_` and `params_`, `coefs_`, `intercepts_`, `loss_`, `best_loss_`, `loss_curve_`,
    `n_iter_`, `t_`, `n_layers_`, `n_outputs_`, `validation_scores_`, `best_validation_score_`, `n_features_in_`. As in
    scikit-learn `best_loss_` is None with early stopping, the validation scores are None without. With 'lbfgs',
    `loss_curve_` has an entry for each iteration only if callbacks, `verbose` or early stopping ask for it.

    >>> X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), ["no", "yes", "yes", "no"]
    >>> FNNClassifier(solver="sgd", learning_rate_init=0.3, random_state=0).fit(X, y).predict(X).tolist()
    ['no', 'yes', 'yes', 'no']
    """

    class_weight: Any

    _score = staticmethod(accuracy_score)

    @knows_its_parameters
    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver: Any = "adam",
        alpha=0.2,
        batch_size: Any = "auto",
        learning_rate="constant",
        learning_rate_init=0.005,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        standardize=True,
        dropout=0.0,
        class_weight: Any = None,
        callbacks=(),
        backend=None,
    ):
        # scikit-learn reads the names and defaults from this signature
        super().__init__(**{name: value for name, value in locals().items() if name not in ("self", "__class__")})

    def fit(self, X, y, sample_weight=None):
        """Fit the network to the data.

        With `warm_start` it continues from where the last call ended, with the present parameters; otherwise it starts
        afresh. Ctrl-C ends training with a warning, as in scikit-learn, and the network of the last whole epoch is
        kept (with early stopping that of the best; before the end of the first epoch, the one it began with).

        Args:
            X: the inputs (n_samples, n_features), an array, a frame or a sparse matrix.
            y: the classes (n_samples,), or labels (n_samples, n_labels) of 0 and 1.
            sample_weight: (n_samples,), at least 0; only their ratios matter. Default: None, equal weights.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train for one more epoch; the first call must be given `classes`, all classes that will occur.

        Inputs are standardized by the mean and standard deviation of the first part. Those of a feature are replaced by
        those of all examples so far where they are off by more than a standard deviation, or by a factor of 3.
        """
        anew = not hasattr(self, "params_")
        if anew and classes is None:
            raise ArgumentError("classes: expected all classes on the first call of partial_fit, got None")
        if not anew and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ArgumentError(f"classes: expected those of the first call, {self.classes_}, got {shorten(classes)}")
        return self._fit(X, y, sample_weight, anew, epochs=1, classes=classes if anew else self.classes_)

    def predict(self, X):
        """Predict the class of each example, (n_samples,), or its labels, (n_samples, n_labels) of 0 and 1."""
        return self._decided(self._output(X))

    def predict_proba(self, X):
        """Predict the probability of each class or label, (n_samples, n_classes), in the order of `classes_`."""
        logits = self._logits(X)
        return self._loss().predict(logits)

    def predict_log_proba(self, X):
        """The logarithm of `predict_proba`, which is finite where the probability itself underflows."""
        logits = self._logits(X)
        logarithm = LogSoftmax() if isinstance(self._loss(), SoftmaxCrossEntropy) else LogSigmoid()
        return logarithm.forward((), logits)[0]

    @property
    def out_activation_(self):
        """The function after the last layer: 'softmax' or 'logistic'."""
        check_is_fitted(self)
        return "softmax" if isinstance(self._loss(), SoftmaxCrossEntropy) else "logistic"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _logits(self, X):
        """The logit of each class or label; of two classes with one output, −z and z, as 1 − σ(z) loses its digits."""
        output = self._output(X)
        return np.hstack([-output, output]) if output.shape[1] < len(self.classes_) else output

    def _labels(self, y, anew, classes):
        """y, checked; on the first fit it determines the classes."""
        check_classification_targets(y)
        multilabel = is_multilabel(y)
        y = y if multilabel else column_or_1d(y, warn=True)
        present = np.arange(y.shape[1]) if multilabel else np.unique(y)
        if anew:
            self.classes_, self._multilabel = present if classes is None else np.unique(classes), multilabel
        unknown = np.setdiff1d(present, self.classes_)
        if len(unknown) or multilabel != self._multilabel:
            raise ArgumentError(f"y: expected classes of {shorten(self.classes_)}, got {shorten(unknown)} too")
        if classes is None and len(present) < len(self.classes_):
            raise ArgumentError(
                f"y: expected all classes of the last fit, {shorten(self.classes_)}, as warm_start continues it, "
                f"got {shorten(present)}; partial_fit accepts parts of them"
            )
        return y

    def _targets(self, y):
        if not self._multilabel:
            y = np.searchsorted(self.classes_, y)
            y = y[:, None] if len(self.classes_) == 2 else y
        return self._loss(), y if y.ndim == 1 else y.astype(self._dtype)

    def _weighted(self, y, weights, epochs):
        """The weights of examples, multiplied by those of their classes."""
        if self.class_weight is None:
            return weights
        if self.class_weight == "balanced" and epochs is not None:
            raise ArgumentError(
                "class_weight: expected a dict for partial_fit, which does not see all y, got 'balanced'"
            )
        try:
            of_class = compute_sample_weight(self.class_weight, y)
        except ValueError as error:
            raise ArgumentError(f"class_weight: {error}") from None
        return relative(of_class if weights is None else weights * of_class, len(of_class), "class_weight")

    def _decided(self, output):
        if self._multilabel:
            return (output > 0).astype(int)
        return self.classes_[(output[:, 0] > 0).astype(int) if len(self.classes_) == 2 else output.argmax(axis=1)]

    def _loss(self):
        return SigmoidBinaryCrossEntropy() if self._multilabel or len(self.classes_) == 2 else SoftmaxCrossEntropy()

    def _outputs(self, targets):
        return len(self.classes_) if targets.ndim == 1 else targets.shape[1]
