"""Laplace's approximation: the Gaussian posterior around a trained network, and what it says of new examples.

    θ ~ N(θ*, Σ)        Σ = (H / σ² + τ I)⁻¹        H = Σₙ wₙ Jₙᵀ ∂²ℓₙ Jₙ, the curvature of the summed cost
    f(x) ~ N(f(x; θ*), J Σ Jᵀ)        J = ∂f(x)/∂θ, for the outputs of the linearized network

`fit` computes H at θ*, the parameters of a trained network, as a diagonal, as Kronecker products, or whole, for all
parameters or for those of the last layer. H is kept in its eigenvectors, so that another prior precision τ or another
standard deviation σ of the noise costs nothing: `tuned` chooses those that maximize `log_marginal_likelihood`.
`outputs` and `targets` are Gaussians for new examples, `probabilities` are those of classes; `sample` and
`output_samples` draw.

Sources: D. MacKay, "A practical Bayesian framework for backpropagation networks" (1992); H. Ritter, A. Botev, D.
Barber, "A scalable Laplace approximation for neural networks" (2018); A. Immer, M. Korzepa, M. Bauer, "Improving
predictions of Bayesian neural nets via local linearization" (2021); E. Daxberger et al., "Laplace redux" (2021).
"""

from .evidence import log_marginal_likelihood as log_marginal_likelihood
from .evidence import tuned as tuned
from .posterior import Full as Full
from .posterior import Posterior as Posterior
from .posterior import fit as fit
from .posterior import sample as sample
from .predictive import Gaussian as Gaussian
from .predictive import output_samples as output_samples
from .predictive import outputs as outputs
from .predictive import probabilities as probabilities
from .predictive import targets as targets
