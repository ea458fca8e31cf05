"""What routes and arms cost: features of an image, training, a diagnosis, megabytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from common.json_types import JsonObject
from simulations.study.results import ArmResult, CellResult

BATCHES = (1, 32)
"""Sizes of the batches that the latency of a diagnosis is measured at."""


@dataclass(frozen=True)
class RouteCost:
    """Measured on this machine, on all of its cores.

    Attributes
    ----------
    feature_seconds : seconds for what is computed once for a training image and kept on disk.
    latency : median seconds from the bytes of an image file to its diagnosis, by batch size.
    model_bytes, backbone_bytes : bytes of the run's model file and of the pretrained weights.
    """

    feature_seconds: float
    latency: Mapping[int, float]
    model_bytes: int
    backbone_bytes: int

    @classmethod
    def read(cls, values: JsonObject) -> Self:
        """Return what was kept as JSON, which makes text of the sizes of batches."""
        latency = {int(batch): seconds for batch, seconds in values["latency"].items()}
        return cls(**{**values, "latency": latency})


@dataclass(frozen=True)
class ArmCost:
    """What it took to train an arm, means over its folds.

    Attributes
    ----------
    features : seconds to compute the features of the training images, were they not on disk.
    training, waiting : seconds that a site with a machine of its own trains, and waits for the
        slowest in each round and for the coordinator.
    wall : seconds in this simulation, where sites train one after the other; features were there.
    computing : seconds for features, and for the training of all sites.
    peak_memory : largest of a process that held all sites and the coordinator, in bytes; None
        where the system does not tell.
    rounds : questions to the sites, choices, calibration and validation included.
    up, down : bytes a site sends and receives in a round, on average.
    site_seconds : of a site with a machine of its own, for its features, training and waiting.
    site_bytes : that a site sends and receives in all.
    """

    features: float
    training: float
    waiting: float
    wall: float
    computing: float
    peak_memory: int | None
    rounds: float
    up: float
    down: float
    site_seconds: float
    site_bytes: float


def arm_cost(result: ArmResult, routes: Mapping[str, RouteCost]) -> ArmCost | None:
    """Return the cost of an arm; None where every fold was interrupted, or none is there."""
    # An interrupted run was not watched to its end.
    watched = [(cell, cell["seconds"]) for cell in result.cells.values() if cell["seconds"]]
    if not watched or result.arm.route not in routes:
        return None
    each = routes[result.arm.route].feature_seconds

    def mean(value: Callable[[CellResult, Mapping[str, float]], float]) -> float:
        return fmean(value(cell, seconds) for cell, seconds in watched)

    features = each * mean(lambda cell, _: cell["training"]["images"])
    its_features = each * mean(lambda cell, _: cell["training"]["images"] / cell["sites"])
    its_time = mean(lambda _, seconds: seconds["training"] + seconds["waiting"])
    peaks = [cell["peak_memory"] for cell, _ in watched if cell["peak_memory"]]
    return ArmCost(
        features=features,
        training=mean(lambda _, seconds: seconds["training"]),
        waiting=mean(lambda _, seconds: seconds["waiting"]),
        wall=mean(lambda _, seconds: seconds["wall"]),
        computing=features + mean(lambda cell, seconds: seconds["training"] * cell["sites"]),
        peak_memory=max(peaks, default=None),
        rounds=mean(lambda cell, _: cell["rounds"]),
        up=mean(lambda cell, _: cell["bytes_up"] / cell["rounds"] / cell["sites"]),
        down=mean(lambda cell, _: cell["bytes_down"] / cell["rounds"] / cell["sites"]),
        site_seconds=its_features + its_time,
        site_bytes=mean(lambda cell, _: (cell["bytes_up"] + cell["bytes_down"]) / cell["sites"]),
    )
