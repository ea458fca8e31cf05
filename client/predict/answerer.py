"""A trained model as an answerer: images in, what is shown of them out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client.predict.images import expand
from client.predict.shown import About, Evidence, ImageFile, Shown
from common.answers.answer import Answer, Unreadable
from common.answers.answering import Answering, AnswerOptions
from common.answers.prevalence import estimate, parse_prevalence
from common.arrays import Floats
from common.config.run import RunConfig
from common.errors import DataError
from common.methods import METHODS
from common.models.predictor import Judged, Predictor
from common.reading import read_bytes
from common.task import DIAGNOSES


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
        self._basis = model.basis
        self._answering = Answering(model.basis, options)
        prevalence = options.prevalence
        self.about = About(
            model=_described(model.config),
            base_rates=_by_code(model.basis.base_rates),
            prevalence=None if prevalence is None else _by_code(prevalence),
            prevalence_source=prevalence_source,
            notes=tuple(self._answering.warnings),
        )

    def answer(self, files: Sequence[ImageFile], *, evidence: bool) -> Sequence[Shown]:
        """Answer about images, one for each in the same order; broken ones get the reason."""
        judged = list(self._predictor.judge(files, keep_maps=evidence))
        good = [
            (file.name, each)
            for file, each in zip(files, judged, strict=True)
            if isinstance(each, Judged)
        ]
        answers = iter(self._answers(good))
        return [
            Shown(_unreadable(file.name, each))
            if isinstance(each, DataError)
            else self._shown(next(answers), file, each, evidence)
            for file, each in zip(files, judged, strict=True)
        ]

    def _answers(self, judged: Sequence[tuple[str, Judged]]) -> list[Answer]:
        if not judged:
            return []
        chances = self._basis.probabilities(np.stack([each.scores for _, each in judged]))
        distances = np.array([each.distance for _, each in judged])
        return self._answering.answers([name for name, _ in judged], chances, distances)

    def _shown(self, answer: Answer, file: ImageFile, judged: Judged, evidence: bool) -> Shown:
        if not evidence:
            return Shown(answer)
        return Shown(answer, Evidence(None, "maps are not drawn yet"))


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
        return parse_prevalence(text), "given"
    chances, base = _probabilities(predictor, Path(text)), predictor.model.basis.base_rates
    found = estimate(chances, base)
    source = f"estimated from {len(chances)} images without labels"
    if not found.identifiable:
        first, second = (DIAGNOSES[c] for c in found.confused)
        source += f"; too few or too alike to tell {first} from {second}: do not rely on it"
    return found.frequencies, source


def _probabilities(predictor: Predictor, folder: Path) -> Floats:
    """Return the probabilities (n, n_classes) of the images of a folder that can be read."""
    paths = (path for path in expand([str(folder)], ()) if isinstance(path, Path))
    files = ((str(path), read_bytes(path)) for path in paths)
    judged = (each for each in predictor.judge(files) if isinstance(each, Judged))
    return predictor.model.basis.probabilities(
        np.array([each.scores for each in judged]).reshape(-1, len(DIAGNOSES))
    )


def _described(config: RunConfig) -> str:
    method = METHODS[config.method]
    return f"Model: {method.name} ({method.description}), seed {config.seed}."


def _by_code(rates: Floats) -> dict[str, float]:
    return dict(zip(DIAGNOSES, rates.tolist(), strict=True))


def _unreadable(name: str, error: DataError) -> Unreadable:
    return Unreadable(name, str(error).removeprefix(f"{name}: "))
