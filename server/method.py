"""A method's side at the coordinator."""

from typing import Protocol

from common.config.run import RunConfig
from server.federation.federation import Federation
from server.run.folder import RunFolder
from server.run.training_result import TrainingResult


class ServerMethod(Protocol):
    """What a module in ``server/methods`` offers: the module itself is such an object."""

    def train(self, federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
        """Train a model over the sites that have joined, and test it on their test lesions.

        Parameters
        ----------
        federation : the sites. What they are asked is all that is known of them.
        config : of the run.
        folder : of the run, for what a run that is interrupted goes on from; the model and its
            card are written by the caller.

        Returns
        -------
        TrainingResult
            The same, bit for bit, for a run that was interrupted as for one that was not.

        Raises
        ------
        QuorumError
            If too few sites are left.
        DataError
            If there is nothing to train on, or the folder cannot be read or written.
        ConfigError
            If what is configured does not fit the network or the data.
        """
