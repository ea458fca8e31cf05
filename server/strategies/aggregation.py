"""From the mean of the sites' weight changes to the next weights, by Flower's strategies."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi
from numpy.typing import NDArray

from common.arrays import Floats32
from common.errors import ConfigError

Weights = Mapping[str, Floats32]

# Reddi et al. 2021, "Adaptive federated optimization", Algorithm 2; the values of their section 5.
BETA_2 = 0.99
TAU = 1e-3

_ROUNDS = "rounds"
# The address of messages in which Flower's strategies want arrays; they go nowhere.
_NO_NODE = 0

_flower_log = logging.getLogger("flwr")


class Aggregation:
    """The coordinator's side of a federated optimiser.

    The strategies are Flower's. "fedprox", "scaffold" and "qfedavg" differ from "fedavg" only at
    the sites and in what is averaged, so that here all four add the mean as it is.

    Parameters
    ----------
    strategy : "fedavg", "fedprox", "scaffold", "qfedavg", "fedavgm" (Hsu et al. 2019), "fedadam" or
        "fedyogi" (both Reddi et al. 2021, Algorithm 2).
    learning_rate : FedAvgM's server learning rate, the others' eta; > 0.
    momentum : FedAvgM's server momentum, the others' beta_1; in [0, 1).

    Raises
    ------
    ConfigError
        If the strategy is none of these.

    Notes
    -----
    FedAdam corrects the bias of its moments, which Algorithm 2 does not, by the number of
    rounds as in Kingma & Ba 2015, section 2. Moments start at zero, not at tau squared.
    """

    def __init__(self, strategy: str, learning_rate: float, momentum: float):
        self._flower = _flower_strategy(strategy, learning_rate, momentum)
        self._rounds = 0
        self._moments: dict[str, Weights] = {name: {} for name in _moment_names(self._flower)}

    def step(self, current: Weights, mean: Weights) -> dict[str, Floats32]:
        """Return the next weights, with the names and shapes of ``current``.

        Parameters
        ----------
        current : the weights that the sites started from, by name, of any shape. There may be more
            of them than in the last step: the moments of new ones start at zero.
        mean : the sites' changes of these weights, averaged; same names and shapes.
        """
        self._moments = {
            moment: {name: known.get(name, np.zeros_like(w)) for name, w in current.items()}
            for moment, known in self._moments.items()
        }
        # Every strategy adds something to the current weights that does not depend on them.
        # From the origin it returns just that, and the digits of a small change are not lost
        # beside a large weight.
        origin = {name: np.zeros_like(w) for name, w in current.items()}
        _prepare(self._flower, origin, self._moments)
        with only_warnings():
            # Flower takes its first round for Adam's second: t is its round + 1.
            added, _ = self._flower.aggregate_train(
                self._rounds, [reply({name: mean[name] for name in current})]
            )
        assert added is not None
        self._moments = _moments(self._flower, list(current))
        self._rounds += 1
        # Flower's bias correction is in double precision.
        return {name: (w + added[name].numpy()).astype(np.float32) for name, w in current.items()}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what the next steps depend on; nothing for a mean.

        Returns
        -------
        The number of rounds () and the moments, such as "m/head.weight", of their weights' shapes.
        """
        if not self._moments:
            return {}
        moments = {
            f"{moment}/{name}": array
            for moment, arrays in self._moments.items()
            for name, array in arrays.items()
        }
        return {_ROUNDS: np.array(self._rounds), **moments}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on, bit for bit, from a ``state`` of the same settings, as in `state`."""
        self._rounds = int(state[_ROUNDS]) if self._moments else 0
        self._moments = {
            moment: {
                key.removeprefix(f"{moment}/"): np.asarray(array, np.float32)
                for key, array in state.items()
                if key.startswith(f"{moment}/")
            }
            for moment in self._moments
        }


def _flower_strategy(strategy: str, learning_rate: float, momentum: float) -> FedAvg:
    match strategy:
        case "fedavg" | "fedprox" | "scaffold" | "qfedavg":
            # Flower's FedProx is its FedAvg that also tells the sites the weight of their term.
            return FedAvg()
        case "fedavgm":
            return FedAvgM(server_learning_rate=learning_rate, server_momentum=momentum)
        case "fedadam":
            return FedAdam(eta=learning_rate, beta_1=momentum, beta_2=BETA_2, tau=TAU)
        case "fedyogi":
            return FedYogi(eta=learning_rate, beta_1=momentum, beta_2=BETA_2, tau=TAU)
        case _:
            raise ConfigError(
                f"configuration key 'strategy' is '{strategy}'; known are "
                "fedavg, fedprox, scaffold, fedavgm, fedadam, fedyogi, qfedavg"
            )


def _moment_names(flower: FedAvg) -> tuple[str, ...]:
    if isinstance(flower, FedAdam | FedYogi):
        return ("m", "v")
    return ("m",) if isinstance(flower, FedAvgM) else ()


def _prepare(flower: FedAvg, weights: Weights, moments: Mapping[str, Weights]) -> None:
    """Set what Flower's `configure_train` and its earlier rounds would have left."""
    if isinstance(flower, FedAdam | FedYogi):
        flower.current_arrays = dict(weights)
        flower.m_t, flower.v_t = dict(moments["m"]), dict(moments["v"])
    elif isinstance(flower, FedAvgM):
        flower.current_arrays = _record(weights)
        # Without names: in the order of the weights.
        flower.momentum_vector = list(moments["m"].values())


def _moments(flower: FedAvg, names: list[str]) -> dict[str, Weights]:
    """Return the moments after a round by their and the weights' names."""
    if isinstance(flower, FedAdam | FedYogi):
        assert flower.m_t is not None
        assert flower.v_t is not None
        return {"m": _arrays(flower.m_t), "v": _arrays(flower.v_t)}
    if isinstance(flower, FedAvgM):
        assert flower.momentum_vector is not None
        return {"m": _arrays(dict(zip(names, flower.momentum_vector, strict=True)))}
    return {}


def _arrays(values: Mapping[str, Floats32]) -> Weights:
    """Return arrays also where NumPy made scalars of those without dimensions."""
    return {name: np.asarray(value) for name, value in values.items()}


def _record(arrays: Weights) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def reply(arrays: Weights, weight: float = 1.0) -> Message:
    """Return ``arrays``, of any shape, as Flower's strategies want them of a site of a weight."""
    metrics = MetricRecord({"num-examples": weight})
    content = RecordDict({"arrays": _record(arrays), "metrics": metrics})
    return Message(content, dst_node_id=_NO_NODE, message_type=MessageType.TRAIN)


@contextmanager
def only_warnings() -> Iterator[None]:
    """Silence Flower's count of results; the run's log says how many sites answered."""
    _flower_log.addFilter(_is_warning)
    try:
        yield
    finally:
        _flower_log.removeFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
