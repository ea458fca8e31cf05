"""FedDerm from Python: train over simulated hospitals, judge the models, diagnose images.

Settings are those of the command line, which ``fedderm settings`` lists, as keyword arguments;
where the command line takes commas, give a list or an array. Results are dataclasses of plain
values, of which a list makes a table in pandas::

    import fedderm, pandas

    run = fedderm.simulate("ham10000", "runs/natural", views=0)
    pandas.DataFrame([run.overall, *run.sites])
    fedderm.load_model(run.folder).predict("image.jpg")

What a user can act on is raised as a :class:`FedDermError`, in one line. ``python -m fedderm`` is
the command line.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Literal

from common.answers.answer import Answer, Unreadable
from common.answers.answering import AnswerOptions, ThresholdKind
from common.answers.prevalence import parse_prevalence
from common.config.run import RunConfig
from common.data.metadata import UNKNOWN, About
from common.errors import ConfigError, DataError, FedDermError, QuorumError
from common.methods import METHODS
from common.models.classifier import Classifier, Image, Rule
from common.models.file import Prediction
from common.models.predictor import Predictor
from common.task import TASKS
from server.run.folder import model_file
from simulations.data.partition import Scheme
from simulations.runtimes.finished_run import ClassMetrics, Round, Run, SiteMetrics
from simulations.study.judgement import Gap, Judged, Selection, SiteFigures

__all__ = [
    "About",
    "Answer",
    "AnswerOptions",
    "ClassMetrics",
    "Classifier",
    "ConfigError",
    "DataError",
    "EvaluatedRun",
    "EvaluatedSite",
    "Evaluation",
    "FedDermError",
    "Prediction",
    "QuorumError",
    "Round",
    "Run",
    "Selection",
    "SiteMetrics",
    "Unreadable",
    "centralized",
    "evaluate",
    "load_model",
    "predict",
    "simulate",
    "write_synthetic",
]

# Flower takes a second to import, PyTorch more: what needs them is imported where it is used.

PathLike = str | os.PathLike[str]

_NO_GAP = Gap(nan, (nan, nan), nan, (nan, nan))


@dataclass(frozen=True)
class EvaluatedRun:
    """A run's model on test images that all runs hold out.

    Attributes
    ----------
    run, method : str
        Its folder, and how its sites trained.
    balanced_accuracy, macro_auc, accuracy : float
        In [0, 1].
    calibration_error, calibration_error_before : float
        Expected calibration error of the probabilities, and of what they would be without
        calibration, in [0, 1].
    balanced_accuracy_gap, macro_auc_gap : float
        The metric minus that of the first run, in [-1, 1]; nan for the first run.
    coverage, set_size : float
        Share of the lesions whose 95 % prediction set holds their diagnosis, in [0, 1], and the
        mean number of diagnoses in a set; nan where the model has too few calibration lesions.
    augrc, risk_at_90 : float
        How often sure answers are wrong: the area under the generalised risk over coverage, in
        [0, 0.5], and the share of wrong ones among the surest 90 %, in [0, 1]; 0 is best.
    mel_sensitivity, mel_specificity, malignant_sensitivity, malignant_specificity : float
        Of the screening rules at their thresholds, in [0, 1]; nan where the model has none.
    balanced_accuracy_low, balanced_accuracy_high, ... : float
        Bounds of 95 % intervals over lesions, those of gaps paired.
    """

    run: str
    method: str
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    macro_auc: float
    macro_auc_low: float
    macro_auc_high: float
    accuracy: float
    calibration_error: float
    calibration_error_before: float
    balanced_accuracy_gap: float
    balanced_accuracy_gap_low: float
    balanced_accuracy_gap_high: float
    macro_auc_gap: float
    macro_auc_gap_low: float
    macro_auc_gap_high: float
    coverage: float
    coverage_low: float
    coverage_high: float
    set_size: float
    set_size_low: float
    set_size_high: float
    augrc: float
    augrc_low: float
    augrc_high: float
    risk_at_90: float
    risk_at_90_low: float
    risk_at_90_high: float
    mel_sensitivity: float
    mel_sensitivity_low: float
    mel_sensitivity_high: float
    mel_specificity: float
    mel_specificity_low: float
    mel_specificity_high: float
    malignant_sensitivity: float
    malignant_sensitivity_low: float
    malignant_sensitivity_high: float
    malignant_specificity: float
    malignant_specificity_low: float
    malignant_specificity_high: float


@dataclass(frozen=True)
class EvaluatedSite:
    """A run's model on the test images of one site.

    Attributes
    ----------
    run, site : str
        The run's folder, and the source that the table names.
    images, lesions, diagnoses : int
        How many there are; means are over the diagnoses that the site has.
    balanced_accuracy, macro_auc, accuracy : float
        In [0, 1]; with one diagnosis alone there is no AUC: it is nan.
    balanced_accuracy_low, balanced_accuracy_high, ... : float
        Bounds of 95 % intervals over lesions; nan with one diagnosis alone.
    """

    run: str
    site: str
    images: int
    lesions: int
    diagnoses: int
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    macro_auc: float
    macro_auc_low: float
    macro_auc_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Evaluation:
    """Several runs' models on the same test images.

    Attributes
    ----------
    synthetic : bool
        Whether the images were generated: then the figures say nothing about skin lesions.
    images, lesions : int
        How many there are.
    runs : tuple of EvaluatedRun
        In the order given.
    sites : tuple of EvaluatedSite
        Each run on the images of each source; none where the table names no sources.
    selection : Selection
        How the images were chosen, and what is not among them.
    """

    synthetic: bool
    images: int
    lesions: int
    runs: tuple[EvaluatedRun, ...]
    sites: tuple[EvaluatedSite, ...]
    selection: Selection


def simulate(
    data: PathLike,
    out: PathLike,
    *,
    scheme: Scheme | Literal["folders"] = "natural",
    sites: int | None = None,
    alpha: float = 0.5,
    **settings: object,
) -> Run:
    """Train over the sites that a data folder is partitioned into, all in this process.

    A run that was stopped goes on when it is called again; a finished one is returned.

    Parameters
    ----------
    data : path
        Folder laid out like HAM10000; where ``scheme`` is "folders", one with such a folder for
        each site.
    out : path
        New folder for the results.
    scheme : {"natural", "iid", "dirichlet", "quantity", "folders"}
        Who holds what: each acquisition source its own images; equal random shares; shares of
        each diagnosis, or of all lesions, drawn from a Dirichlet distribution.
    sites : int, optional
        Number of sites, at least 1; None for "natural" and "folders".
    alpha : float
        Skew of "dirichlet" and "quantity", above 0; smaller is more skewed.
    **settings
        As ``fedderm settings`` lists them.

    Raises
    ------
    ConfigError
        If a setting is unknown, impossible or not used by the method.
    FedDermError
        If the data or the folder cannot be used, or too few sites are left.
    """
    config = _trained(settings)
    from simulations.runtimes import experiment

    return Run.read(experiment.train(config, Path(data), Path(out), scheme, sites, alpha))


def centralized(data: PathLike, out: PathLike, **settings: object) -> Run:
    """Train on everything pooled: the baseline, by the same code as one big site.

    Parameters and errors are those of :func:`simulate`.
    """
    config = _trained(settings)
    from simulations.runtimes import experiment

    return Run.read(experiment.train(config, Path(data), Path(out), experiment.POOLED))


def evaluate(
    data: PathLike,
    *runs: Run | PathLike,
    every_lesion: bool = False,
    trained: Literal["refuse", "leave-out"] = "refuse",
    trained_on: PathLike | Iterable[PathLike] = (),
    weights: PathLike | Iterable[PathLike] = (),
    cache: PathLike | None = None,
    without_metadata: bool = False,
) -> Evaluation:
    """Judge the models of runs on the test lesions of a data folder that all of them hold out.

    Parameters
    ----------
    data : path
        The pooled data.
    *runs : Run or path
        Finished runs, the one to compare with first.
    every_lesion : bool
        Whether all lesions of ``data`` are test lesions, in place of those held out.
    trained : {"refuse", "leave-out"}
        What becomes of those among all lesions that a run was trained on, by their content.
    trained_on : path or paths
        Folders of images that runs were trained on; none for those that the runs recorded.
    weights : path or paths
        Files of pretrained weights, for models that were trained with ``weights``.
    cache : path, optional
        Folder of frozen features; None for the settings' default.
    without_metadata : bool
        Whether runs that use age, sex or place are judged a second time, without them; the name of
        such a run says so.

    Raises
    ------
    ConfigError
        If there are no runs, they hold out different lesions, or weights are missing.
    DataError
        If a run is not finished, or the data cannot be used.
    """
    from simulations.study import evaluation
    from simulations.study.other_data import EveryLesion

    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    files = {str(folder): model_file(folder) for folder in folders}
    settings = {} if cache is None else {"cache": Path(cache)}
    kept = RunConfig.read_settings(settings).cache
    every = EveryLesion(trained, _paths(trained_on)) if every_lesion else None
    judged = evaluation.evaluate(
        Path(data), files, kept, _paths(weights), every, without_metadata=without_metadata
    )
    return Evaluation(
        judged.synthetic,
        judged.images,
        judged.lesions,
        tuple(map(_evaluated, judged.runs)),
        tuple(_at_site(run.run, site) for run in judged.runs for site in run.sites),
        judged.selection,
    )


def load_model(
    path: PathLike, *, rule: Rule = "likeliest", weights: PathLike | Iterable[PathLike] = ()
) -> Classifier:
    """Load the model of a finished run of any method.

    Parameters
    ----------
    path : path
        A run's folder, the folder of its results, or its model file.
    rule : {"likeliest", "balanced"}
        How it chooses a diagnosis: the largest probability, or the largest beside its base rate,
        which a run's accuracies are about.
    weights : path or paths
        Files of pretrained weights, for a model that was trained with ``weights``.

    Raises
    ------
    DataError
        If there is no such model.
    ConfigError
        If its pretrained weights are missing.
    """
    return Classifier(Predictor.open(model_file(Path(path)), *_paths(weights)), rule)


def predict(
    run: Run | PathLike,
    images: Image | Iterable[Image],
    *,
    coverage: float = AnswerOptions.coverage,
    sets: ThresholdKind = AnswerOptions.threshold,
    site: str = AnswerOptions.site,
    sensitivity: float = AnswerOptions.sensitivity,
    refer: float = AnswerOptions.refer,
    prevalence: Mapping[str, float] | None = None,
    about: About | Sequence[About] = UNKNOWN,
    weights: PathLike | Iterable[PathLike] = (),
) -> list[Answer | Unreadable]:
    """Answer about images: how likely, how sure, or "ask a person". Not a medical device.

    The answers are those of the command. ``load_model(run).answers(images)`` gives them too, and
    loads the model once.

    Parameters
    ----------
    run : Run or path
        As for :func:`load_model`.
    images : path, ndarray of uint8, or several of them
        JPEG, PNG, TIFF, BMP, WebP or DICOM files, or red, green and blue pixels of shape (height,
        width, 3).
    coverage : float
        Share of new lesions whose prediction set is to hold their diagnosis, in (0, 1).
    sets : {"everywhere", "pooled", "class", "site"}
        Where sets keep that promise.
    site : str
        Name of the training site that asks; "" for none.
    sensitivity : float
        Of the screening rules, in (0, 1).
    refer : float
        Share of the lesions to refer as those that the model is least sure of, in [0, 1).
    prevalence : mapping, optional
        Frequencies of all diagnoses where the model is used, by code; None for those of the
        training sites.
    about : About or several of them
        What is known of the patient of all images, or of each image: age in years, sex, place on
        the body, which a model trained with ``metadata`` uses.
    weights : path or paths
        As for :func:`load_model`.

    Raises
    ------
    ConfigError
        If frequencies do not add up to 1, a share is out of its range, an age, a sex or a place is
        none, or pretrained weights are missing.
    DataError
        If there is no such model, no image, an array is none of an image, or what is known is not
        of as many images.
    """
    folder = run.folder if isinstance(run, Run) else run
    model, frequencies = load_model(folder, weights=weights), None
    if prevalence is not None:
        text = ",".join(f"{dx}={p}" for dx, p in prevalence.items())
        frequencies = parse_prevalence(text, model.task)
    options = AnswerOptions(
        coverage=coverage,
        threshold=sets,
        site=site,
        sensitivity=sensitivity,
        refer=refer,
        prevalence=frequencies,
    )
    return model.answers(images, options, about)


def write_synthetic(
    folder: PathLike,
    images: int = 1200,
    seed: int = 0,
    task: Literal["ham10000", "isic2019", "binary"] = "ham10000",
) -> None:
    """Generate images that describe no patients, laid out like HAM10000.

    Parameters
    ----------
    folder : path
        New folder.
    images : int
        At least 40.
    seed : int
        At least 0; the same seed gives the same images.
    task : {"ham10000", "isic2019", "binary"}
        The diagnoses of the table: seven, eight, or benign and malignant.

    Raises
    ------
    ConfigError
        If a number is out of range.
    DataError
        If the folder holds anything, or cannot be written.
    """
    from simulations.data import synthetic

    synthetic.write_synthetic(Path(folder), images, seed, TASKS[task])


def _trained(settings: Mapping[str, object]) -> RunConfig:
    """Return the configuration of a run that trains a model."""
    config = RunConfig.read_settings(_plain(settings))
    if no_model := METHODS[config.method].no_model:
        raise ConfigError(
            f"{no_model}; type `fedderm simulate DIR --out OUT method={config.method}`"
        )
    return config


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    """Return settings with Python's own values in place of NumPy's."""
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in settings.items()}


def _paths(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(p) for p in paths]


def _evaluated(judged: Judged) -> EvaluatedRun:
    quality, gap = judged.quality, judged.gap or _NO_GAP
    answers = quality.answers
    return EvaluatedRun(
        judged.run,
        judged.method,
        quality.balanced_accuracy,
        *quality.balanced_accuracy_interval,
        quality.macro_auc,
        *quality.macro_auc_interval,
        quality.accuracy,
        quality.calibration_error,
        quality.calibration_error_before,
        gap.balanced_accuracy,
        *gap.balanced_accuracy_interval,
        gap.macro_auc,
        *gap.macro_auc_interval,
        answers.coverage,
        *answers.coverage_interval,
        answers.set_size,
        *answers.set_size_interval,
        answers.augrc,
        *answers.augrc_interval,
        answers.risk_at_90,
        *answers.risk_at_90_interval,
        answers.mel_sensitivity,
        *answers.mel_sensitivity_interval,
        answers.mel_specificity,
        *answers.mel_specificity_interval,
        answers.malignant_sensitivity,
        *answers.malignant_sensitivity_interval,
        answers.malignant_specificity,
        *answers.malignant_specificity_interval,
    )


def _at_site(run: str, site: SiteFigures) -> EvaluatedSite:
    return EvaluatedSite(
        run,
        site.site,
        site.images,
        site.lesions,
        len(site.diagnoses),
        site.balanced_accuracy,
        *site.balanced_accuracy_interval,
        site.macro_auc,
        *site.macro_auc_interval,
        site.accuracy,
        *site.accuracy_interval,
    )


if __name__ == "__main__":
    from simulations.cli.main import main

    main()
