"""Figures of training, of networks and of what they learn, drawn by matplotlib (the extra `plots`).

Each function takes an Axes first, draws into it and returns it. None shows anything, needs pyplot or touches a setting,
so titles, limits and labels can be changed afterwards: `axes.set(...)`. Whatever it refuses it refuses before it draws.

All can be read in print, without colour and by the colour-blind: line styles, markers and numbers say again what the
colours say. Colours are those of M. Okabe, K. Ito, "Color universal design" (2008). The one colour map is cividis
(J. Nuñez, C. Anderton, R. Renslow, 2018), ever lighter from blue through grey to yellow: for amounts, and for values
of either sign with 0 at its grey middle. Letters: N examples, L layers, C classes.
"""

from .functions import activations, confusion, decision_regions, hidden_plane
from .runs import gradient_flow, learning_curves, loss_surface
from .structure import first_layer, network

__all__ = [
    "activations",
    "confusion",
    "decision_regions",
    "first_layer",
    "gradient_flow",
    "hidden_plane",
    "learning_curves",
    "loss_surface",
    "network",
]
