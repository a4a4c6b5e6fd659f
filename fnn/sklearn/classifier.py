"""The classifier."""

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..errors import ArgumentError, shorten
from ..losses import SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from .base import Network


class FNNClassifier(ClassifierMixin, Network):
    """A multilayer perceptron that tells classes, or sets of labels, by cross-entropy.

    Parameters, with `MLPClassifier`'s names: `hidden_layer_sizes` (100,); `activation` 'relu', 'identity', 'logistic',
    'tanh', or a layer such as `fnn.Gelu()`; `solver` 'adam' (with `beta_1` 0.9, `beta_2` 0.999, `epsilon` 10⁻⁸), 'sgd'
    (with `momentum` 0.9, `nesterovs_momentum` True) or an optimizer's class such as `fnn.AdamW`; `alpha` 0.2, the L2
    penalty, divided by the examples of a batch; `batch_size` 'auto', about 200, so that all batches are alike;
    `learning_rate` 'constant', 'invscaling' (by `power_t` 0.5) or 'adaptive', for every solver; `learning_rate_init`
    0.005; `max_iter` 200 epochs, before which it stops when for more than `n_iter_no_change` 10 of them the loss has
    not fallen by `tol` 10⁻⁴, or, with `early_stopping`, the score on the `validation_fraction` 0.1 that is held out has
    not risen, whose best epoch then counts; `shuffle` True, `random_state`, `verbose`, `warm_start`. And of its own:
    `standardize` True, whether inputs are brought to mean 0 and deviation 1 by a first layer whose constants come from
    the training data; `backend` 'numpy', 'jax', or None, by the size of the work.

    Three defaults are not scikit-learn's, where `alpha` is 0.0001, `learning_rate_init` 0.001 and `batch_size` at most
    200: with these it does as well, sooner.

    Attributes: `classes_`, `net_` and `params_`, `coefs_`, `intercepts_`, `loss_`, `best_loss_`, `loss_curve_`,
    `n_iter_`, `t_`, `n_layers_`, `n_outputs_`, `validation_scores_`, `best_validation_score_`, `n_features_in_`.

    It computes in the precision of X; on JAX in float32, unless 64 bits are switched on there. It passes scikit-learn's
    `check_estimator`; on JAX in float32 but for a comparison to ten digits.

    >>> X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), ["no", "yes", "yes", "no"]
    >>> FNNClassifier(solver="sgd", learning_rate_init=0.3, random_state=0).fit(X, y).predict(X).tolist()
    ['no', 'yes', 'yes', 'no']
    """

    _score = staticmethod(accuracy_score)

    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """One epoch more; `classes`, all there will be, must be given the first time."""
        anew = not hasattr(self, "params_")
        if anew and classes is None:
            raise ArgumentError("classes: expected all classes on the first call of partial_fit, got None")
        if not anew and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ArgumentError(f"classes: expected those of the first call, {self.classes_}, got {shorten(classes)}")
        return self._fit(X, y, sample_weight, anew, epochs=1, classes=classes)

    def predict(self, X):
        """The class of each example, (n_samples,), or its labels, (n_samples, n_labels) of 0 and 1."""
        output = self._output(X)
        if self._multilabel:
            return (output > 0).astype(int)
        return self.classes_[(output[:, 0] > 0).astype(int) if len(self.classes_) == 2 else output.argmax(axis=1)]

    def predict_proba(self, X):
        """The probability of each class, or of each label, (n_samples, n_classes), in the order of `classes_`."""
        output = self._output(X)
        p = self._loss().predict(output)
        return np.hstack([1 - p, p]) if p.shape[1] < len(self.classes_) else p

    def predict_log_proba(self, X):
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    @property
    def out_activation_(self):
        """What follows the last layer: 'softmax' or 'logistic'."""
        check_is_fitted(self)
        return "softmax" if isinstance(self._loss(), SoftmaxCrossEntropy) else "logistic"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _labels(self, y, anew, classes):
        """y, of classes that are known from here on."""
        check_classification_targets(y)
        multilabel = type_of_target(y).startswith("multilabel")
        y = y if multilabel else column_or_1d(y, warn=True)
        if anew:
            self.classes_, self._multilabel = unique_labels(y) if classes is None else np.unique(classes), multilabel
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown) or multilabel != self._multilabel:
            raise ArgumentError(f"y: expected classes of {shorten(self.classes_)}, got {shorten(unknown)} too")
        return y

    def _targets(self, y, weights, dtype, anew):
        if not self._multilabel:
            y = np.searchsorted(self.classes_, y)
            y = y[:, None] if len(self.classes_) == 2 else y
        return self._loss(), y if y.ndim == 1 else y.astype(dtype)

    def _loss(self):
        return SigmoidBinaryCrossEntropy() if self._multilabel or len(self.classes_) == 2 else SoftmaxCrossEntropy()

    def _outputs(self, targets):
        return len(self.classes_) if targets.ndim == 1 else targets.shape[1]
