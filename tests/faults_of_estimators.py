"""Faults of scikit-learn's scores by name and of the estimators, and the checks that have to find them."""

import sys

import numpy as np
from helpers import blobs
from planting import Fault, given, instead

from fnn.scoring import Score

try:
    import fnn.sklearn
except ImportError:  # without scikit-learn there is nothing to plant in
    FAULTS = []
