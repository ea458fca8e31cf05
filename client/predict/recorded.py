"""Answers by the current version of a model registry, which keeps which version answered."""

from collections.abc import Sequence
from dataclasses import replace

from client.predict.shown import About, Answerer, ImageFile, Shown
from common.models.registry import Registry, log_answers


class RecordedAnswerer:
    """Answers as another answerer does, once the registry's log says so.

    Parameters
    ----------
    answerer : of the registry's current version.
    """

    def __init__(self, answerer: Answerer, registry: Registry) -> None:
        self._answerer, self._registry = answerer, registry
        self._version = registry.current

    @property
    def about(self) -> About:
        """What all its answers share."""
        about = self._answerer.about
        return replace(about, model=f"{about.model} Version {self._version.number}.")

    def answer(self, files: Sequence[ImageFile], *, evidence: bool) -> Sequence[Shown]:
        """Answer about images, one for each in the same order."""
        log_answers(self._registry.folder, self._version, len(files))
        return self._answerer.answer(files, evidence=evidence)
