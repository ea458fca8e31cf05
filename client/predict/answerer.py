"""A trained model as an answerer: images in, what is shown of them out."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from client.predict.images import expand, read
from client.predict.shown import About, Evidence, ImageFile, Shown
from common.answers.answer import Answer
from common.answers.answering import Answering, AnswerOptions
from common.answers.prevalence import DISAGREEMENT, disagreement, estimate, parse_prevalence
from common.arrays import Floats
from common.config.run import RunConfig
from common.data.metadata import BLOCKS, Described
from common.data.patients import known
from common.errors import ConfigError
from common.explanations.evidence import PooledHead, log_odds
from common.explanations.overlay import caption, overlay, place
from common.methods import METHODS
from common.models.predictor import Answered, Judged, Predictor
from common.networks.spatial_maps import Maps
from common.task import Task


class ModelAnswerer:
    """Answers by a model.

    Parameters
    ----------
    predictor : the model with its network.
    options : what the user chose of the answers.
    prevalence_source : where ``options.prevalence`` is from; "" without it.
    """

    def __init__(
        self, predictor: Predictor, options: AnswerOptions, prevalence_source: str = ""
    ) -> None:
        self._predictor = predictor
        model = predictor.model
        self._answering = Answering(model.basis, options)
        prevalence = options.prevalence
        self.about = About(
            model=_described(model.config, predictor.digest),
            task=model.task,
            base_rates=_by_code(model.task, model.basis.base_rates),
            prevalence=None if prevalence is None else _by_code(model.task, prevalence),
            prevalence_source=prevalence_source,
            notes=tuple(self._answering.warnings),
            metadata=model.config.metadata,
            threshold_by=model.config.screening_column,
        )

    def answer(self, files: Sequence[ImageFile], *, evidence: bool) -> Sequence[Shown]:
        """Answer about images, one for each in the same order; broken ones get the reason."""
        named = [(file.name, file.data) for file in files]
        patients = {file.name: file.patient for file in files}
        answered = self._predictor.answer(named, self._answering, evidence, patients)
        return [
            self._shown(each, file, evidence) for each, file in zip(answered, files, strict=True)
        ]

    def _shown(self, answered: Answered, file: ImageFile, evidence: bool) -> Shown:
        answer = answered.answer
        if not evidence or answered.maps is None or not isinstance(answer, Answer):
            return Shown(answer)
        head = self._head(file.patient)
        if isinstance(head, str):
            return Shown(answer, Evidence(None, head))
        return Shown(answer, self._drawn(head, answered.maps, answer, file))

    def _head(self, patient: Described) -> PooledHead | str:
        """Return the classifier of a patient as one of maps, or why it is none."""
        if isinstance(self._image_head, str) or not known(self.about.metadata, patient):
            return self._image_head
        return self._predictor.model.head(patient)

    @cached_property
    def _image_head(self) -> PooledHead | str:
        """The classifier of images alone as one of maps, or why it is none."""
        try:
            return self._predictor.model.head()
        except ConfigError as error:
            return str(error)

    def _drawn(self, head: PooledHead, maps: Maps, answer: Answer, file: ImageFile) -> Evidence:
        task = answer.task
        label, rival = (task.codes.index(code) for code in list(answer.probabilities)[:2])
        contrast = log_odds(self._predictor.model.basis.calibration, label, rival)
        try:
            found = head.evidence(maps, contrast)
        except ConfigError as error:
            return Evidence(None, str(error))
        spec = self._predictor.model.config.feature_spec
        pixels = place(found, *spec.transform.image(file.data).size)
        names = (task.names[label], task.names[rival])
        return Evidence(overlay(pixels, spec.predictions), caption(found, *names))


def chosen_prevalence(predictor: Predictor, text: str) -> tuple[Floats, str]:
    """Return the frequencies (n_classes,) at the place of use, and where they are from.

    Parameters
    ----------
    text : frequencies such as "nv=0.7,mel=0.1,...", or a folder of images to estimate them from.

    Raises
    ------
    ConfigError
        If they are no frequencies.
    DataError
        If no image can be read.
    """
    if not Path(text).is_dir():
        return parse_prevalence(text, predictor.model.task), "given"
    basis, chances = predictor.model.basis, _probabilities(predictor, Path(text))
    found = estimate(chances, basis.base_rates)
    shares = np.bincount(chances.argmax(axis=1), minlength=len(basis.base_rates)) / len(chances)
    source = f"estimated from {len(chances)} images without labels"
    if not found.identifiable:
        first, second = (basis.task.codes[c] for c in found.confused)
        source += (
            f"; they are too few or too alike to tell {first} from {second}: do not rely on it"
        )
    elif disagreement(found, shares, basis.lesions.confusion) > DISAGREEMENT:
        source += (
            "; a second estimate disagrees, so lesions look different here than in training: do "
            "not rely on it"
        )
    return found.frequencies, source


def refuse_place_as_site(predictor: Predictor, site: str) -> None:
    """Refuse a place on the body as the name of a training site, if no site has it.

    Raises
    ------
    ConfigError
        It says which option is for the place.
    """
    if site.lower() in BLOCKS["localization"] and site not in predictor.model.basis.by_site:
        raise ConfigError(
            f"'{site}' is no training site; for the place on the body write --place {site}"
        )


def _probabilities(predictor: Predictor, folder: Path) -> Floats:
    """Return the probabilities (n, n_classes) of the images of a folder that can be read."""
    found = map(read, expand([str(folder)], ()))
    files = ((file.name, file.data) for file in found if isinstance(file, ImageFile))
    judged = (each for each in predictor.judge(files) if isinstance(each, Judged))
    n_classes = predictor.model.task.n_classes
    return predictor.model.basis.probabilities(
        np.array([each.scores for each in judged]).reshape(-1, n_classes)
    )


def _described(config: RunConfig, digest: str) -> str:
    method = METHODS[config.method]
    named = f", {digest[:16]} (SHA-256)" if digest else ""
    return f"Model: {method.name} ({method.description}), seed {config.seed}{named}."


def _by_code(task: Task, rates: Floats) -> dict[str, float]:
    return dict(zip(task.codes, rates.tolist(), strict=True))
