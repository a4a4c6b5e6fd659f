"""A metric that is watched from epoch to epoch: its name, its direction, and what counts as a gain."""

from typing import Any, NamedTuple

import numpy as np

from .errors import ArgumentError, KindError, real, shorten


class Watch(NamedTuple):
    """A metric that is watched: its name, whether it should be small ("min") or large ("max"), and what a gain is.

    By default it is the loss, that of the validation data if there are any.
    """

    monitor: str | None = None
    mode: str | None = None
    min_delta: float = 0.0

    def checked(self) -> "Watch":
        """The same; raises if it makes no sense. Of a metric that is no loss nobody can guess the direction."""
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise KindError(f"monitor: expected the name of a metric, got {shorten(self.monitor)}")
        of_loss = self.monitor in (None, "loss", "validation_loss")
        if self.mode not in ("min", "max") and not (of_loss and self.mode is None):
            raise ArgumentError(f"mode: expected 'min' or 'max' with monitor={self.monitor!r}, got {self.mode!r}")
        return self._replace(mode=self.mode or "min", min_delta=real("min_delta", self.min_delta, least=0))

    def name(self, names: Any) -> str:
        """The name of the metric among these names."""
        return self.monitor or ("validation_loss" if "validation_loss" in names else "loss")

    def costs(self, metrics: dict[str, Any]) -> Any:
        """The metric, a number or an array over the epochs; its negative if it should be large."""
        value = metrics[self.name(metrics)]
        return -value if self.mode == "max" else value

    def cost(self, metrics: dict[str, Any], private: bool = False) -> float:
        """What should be small after one epoch; raises unless it is a number, of validation data in a private run."""
        name = self.name(metrics)
        if name not in metrics or np.ndim(metrics[name]):
            raise ArgumentError(f"monitor: expected one of {', '.join(numbers_of(metrics))}, got {shorten(name)}")
        if private and not name.startswith("validation_"):
            raise ArgumentError(f"monitor: expected a metric of validation data, since {name!r} is not private")
        return self.costs(metrics)

    def is_gain(self, cost: float, least: float) -> bool:
        """Whether a cost is less than the least one so far by more than `min_delta`; NaN never is."""
        return cost < least - self.min_delta


def numbers_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {name: value for name, value in metrics.items() if not np.ndim(value)}
