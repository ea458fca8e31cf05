"""The sites of a private run, which answer with noisy sums; each sum is charged once."""

import logging
from collections.abc import Collection

from common.arrays import Floats
from common.config.run import RunConfig
from common.errors import QuorumError
from common.json_types import Json
from common.privacy.linear import NoisySum, plan
from common.statistics.metrics import Evaluation
from common.wire.messages import Value
from server.federation.federation import Federation
from server.federation.question import Answers, LossPolicy, Question
from server.privacy.descent import Arrays
from server.run.folder import RunFolder

_log = logging.getLogger(__name__)


class NoisySites:
    """The sites of a federation that add noise to what they answer.

    Sums of an interrupted run are on disk, and are not asked for again.

    Raises
    ------
    ConfigError
        If no noise keeps the epsilon that is configured.
    """

    def __init__(self, federation: Federation, config: RunConfig, folder: RunFolder) -> None:
        if config.epsilon and config.unit == "image_id":
            _log.warning("an image is private, not a lesion: one of six has six times epsilon")
        plan(config)  # what cannot be paid for is said before a site is asked
        self._federation, self._config, self._folder = federation, config, folder

    def sum(self, question: str, step: int, shape: tuple[int, ...], arrays: Arrays) -> Floats:
        """Return the sum over the sites that are left, of ``shape``, in real numbers.

        Parameters
        ----------
        step : number of the sum in the run, from 0; each is charged once.
        shape : the shape of the sum.
        arrays : what goes with the question, by name, of the shapes that the allow-list declares.

        Raises
        ------
        QuorumError
            If too few sites are left, or too few that add noise.
        """

        def check_noise(sites: Collection[str]) -> None:
            if len(sites) < self._config.honest:
                raise QuorumError(
                    f"{len(sites)} sites added noise in step {step}, {self._config.honest} must"
                )

        values: dict[str, Value] = {"run": self._folder.name, "step": step}
        zero = NoisySum.zero(*shape)
        noisy = Question(question, zero, arrays, values, check_sites=check_noise)
        return self._federation.total(noisy, LossPolicy.CONTINUE).decoded()

    def evaluate(self, **arrays: Floats) -> Answers[Evaluation]:
        """Return the counts on test lesions of the sites that give them.

        Secure sums are over all sites, so there are none where one site gives no counts.

        Parameters
        ----------
        arrays : the model, by name, of the shapes that the allow-list declares.

        Raises
        ------
        QuorumError
            If too few sites are left.
        """
        sites, zero = self._federation.sites, Evaluation.zero(self._config.task.n_classes)
        giving = [name for name, info in sites.items() if info.test_counts]
        if len(giving) < len(sites):
            _log.warning("hospitals give no counts on test lesions; figures are without theirs")
            if self._config.secure or not giving:
                return Answers(zero, [], {})
        question = Question("evaluate", zero, arrays, sites=giving)
        return self._federation.answers(question, LossPolicy.CONTINUE)


def details(config: RunConfig, counts: Floats) -> dict[str, Json]:
    """Return the details of a private run, given its noisy class ``counts`` (n_classes,)."""
    spent = plan(config)
    return {
        "noise": spent.training.noise if spent else 0.0,
        "class_counts": dict(zip(config.task.codes, counts.tolist(), strict=True)),
    }
