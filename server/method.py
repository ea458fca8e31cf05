"""A method's side at the coordinator."""

from importlib import import_module
from typing import Protocol

from common.config.run import RunConfig
from common.json_types import JsonObject
from common.methods import METHODS
from server.federation.federation import Federation
from server.run.folder import RunFolder
from server.run.training_result import TrainingResult
from server.survey.documents import Described


class ServerMethod(Protocol):
    """What a module in ``server/methods`` offers: the module itself is such an object."""

    def check(self, config: RunConfig) -> None:
        """Refuse settings that cannot work, before a run has a folder or asks a site.

        Raises
        ------
        ConfigError
            If the network cannot be loaded, or has no part that the settings name.
        DataError
            If the file of its weights cannot be read.
        """

    def train(self, federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
        """Train a model over the sites that have joined, and test it on their test lesions.

        Parameters
        ----------
        federation : the sites; nothing is known of them but their answers.
        config : the configuration of the run.
        folder : the folder of the run, for the state from which an interrupted run goes on; the
            caller writes the model and its card.

        Returns
        -------
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

    def model_name(self, config: RunConfig) -> str:
        """Return what the model card calls the model, without an article."""

    def training_facts(self, config: RunConfig, training: JsonObject) -> dict[str, object]:
        """Return what the model card says of the training, by name.

        Parameters
        ----------
        training : the details of the result, as they stand in the run's metrics.
        """


class SurveyMethod(Protocol):
    """What a module in ``server/methods`` offers whose method trains no model."""

    def check(self, config: RunConfig) -> None:
        """Refuse settings that cannot work, before a run has a folder or asks a site.

        Raises
        ------
        ConfigError
            If one cannot.
        """

    def survey(self, federation: Federation, config: RunConfig) -> Described:
        """Describe what the sites that have joined have.

        Raises
        ------
        QuorumError
            If too few sites are left.
        """


def survey_method(config: RunConfig) -> SurveyMethod:
    """Return the coordinator's side of a run's method that trains no model."""
    module: SurveyMethod = import_module(METHODS[config.method].server)
    return module


def server_method(config: RunConfig) -> ServerMethod:
    """Return the coordinator's side of a run's method."""
    module: ServerMethod = import_module(METHODS[config.method].server)
    return module
