"""Figures of training, of networks and of what they learn, drawn with matplotlib (the extra `plots`).

Each function takes an Axes as its first argument, draws into it and returns it; only `animated` takes a Figure. None of
them shows the figure, needs pyplot or changes a setting, so titles, limits and labels can be changed afterwards with
`axes.set(...)`. Invalid arguments raise an error before anything is drawn.

All figures can be read in print, without colour and by the colour-blind: line styles, markers and numbers repeat what
the colours show. The colours are those of M. Okabe, K. Ito, "Color universal design" (2008). The only colour map is
cividis (J. Nuñez, C. Anderton, R. Renslow, 2018), which brightens steadily from blue through grey to yellow. It is used
for amounts, and for values of either sign with 0 at its grey middle. Letters: N examples, L layers, C classes.
"""

from .functions import activations as activations
from .functions import confusion as confusion
from .functions import decision_regions as decision_regions
from .functions import hidden_plane as hidden_plane
from .functions import reliability as reliability
from .layers import feature_maps as feature_maps
from .layers import unrolled as unrolled
from .passes import animated as animated
from .passes import flow as flow
from .runs import alignment as alignment
from .runs import gradient_flow as gradient_flow
from .runs import learning_curves as learning_curves
from .runs import loss_surface as loss_surface
from .structure import first_layer as first_layer
from .structure import network as network
