"""Influence: how the cost of a query, such as a mistake, would change if a training example were left out.

Near a minimum of the mean cost Σ w ℓ / Σ w, leaving out example j moves the parameters by sⱼ (H + λ)⁻¹ gⱼ, and so

    score of query q and example j    sⱼ g_q · (H + λ)⁻¹ gⱼ        g = ∂ℓ/∂θ        sⱼ = wⱼ / Σ w, or 1 / N

is the predicted increase of the cost of q: positive for examples that help, negative for those that harm. λ is the
damping: the penalty `L2(λ)` adds λ to the Hessian of the weights, and more of it bounds the step where H is flat.

    (H + λ)⁻¹ as               the score over sⱼ, with the factors g = δ aᵀ of each layer
    Kronecker products         (δ_q · (G + √λ/π)⁻¹ δⱼ) (a_q · (A + π√λ)⁻¹ aⱼ)        separates: no gradient is made
    their eigenvectors         δⱼ · V aⱼ with V = Q_G ((Q_Gᵀ g_q Q_A) / (Λ + λ)) Q_Aᵀ, made for a few queries at a time
    a matrix                   the same with V = (H + λ)⁻¹ g_q
    the identity               TracIn: Σ η (δ_q · δⱼ) (a_q · aⱼ) over checkpoints

Each function takes `(net, loss)` and options, and returns a pure function, which is not compiled: wrap it in `jax.jit`.
Data are `(x, y)` or `(x, y, weights)`; training examples are taken a batch at a time, so that memory does not grow with
their gradients. The weights of queries multiply their rows.

Sources: P. Koh, P. Liang, "Understanding black-box predictions via influence functions" (2017); R. Grosse et al.,
"Studying large language model generalization with influence functions" (2023), for EK-FAC.
"""

from .kernel import leave_one_out as leave_one_out
from .pairs import Most as Most
from .pairs import Top as Top
from .pairs import scores as scores
from .pairs import top as top
from .pairs import tracin as tracin
