"""A method's side at a site: what its module must have."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from client.egress.activity_gate import Gated
from client.egress.questions import Question
from client.site import Site
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.methods import METHODS
from common.statistics.sums import Sums
from common.wire.messages import Value


class ClientMethod(Protocol):
    """A method's module at a site; of the run it knows only what a site and a question hold."""

    def describe(self, site: Site, /) -> Mapping[str, Value]:
        """Return what the coordinator must know of this site before the first question."""

    def answer(self, site: Site, question: Question, /) -> Sums | Gated:
        """Answer one question that was checked.

        Raises
        ------
        RefusalError
            If this site does not answer it.
        """

    def prepare(self, dataset: Dataset, config: RunConfig, cache: Path) -> None:
        """Compute what sites keep of images on disk, so that a run only reads it.

        Raises
        ------
        ConfigError
            If the network cannot be used.
        DataError
            If an image cannot be decoded.
        """


def client_method(config: RunConfig) -> ClientMethod:
    """Return a site's side of a run's method."""
    module: ClientMethod = import_module(METHODS[config.method].client)
    return module
