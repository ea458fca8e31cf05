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
from simulations.evaluation.evaluated import (
    EvaluatedGroup,
    EvaluatedRun,
    EvaluatedSite,
    Evaluation,
    evaluated,
)
from simulations.evaluation.judgement import Selection
from simulations.runtimes.finished_run import ClassMetrics, Round, Run, SiteMetrics

__all__ = [
    "About",
    "Answer",
    "AnswerOptions",
    "ClassMetrics",
    "Classifier",
    "ConfigError",
    "DataError",
    "EvaluatedGroup",
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
    by: str | Iterable[str] = (),
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
    by : str or strings
        By what groups of lesions runs are judged apart: "sex", "age", "localization", "site",
        "dx_type", or two of them as "sex*age"; "age:40,60" sets where groups of ages begin.
    without_metadata : bool
        Whether runs that use age, sex or place are judged a second time, without them; the name of
        such a run says so.

    Raises
    ------
    ConfigError
        If there are no runs, they hold out different lesions, weights are missing, or nobody
        knows such groups.
    DataError
        If a run is not finished, or the data cannot be used.
    """
    from common.data.dimensions import read_dimensions
    from simulations.evaluation.other_data import EveryLesion
    from simulations.evaluation.runs import evaluate_runs

    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    files = {str(folder): model_file(folder) for folder in folders}
    settings = {} if cache is None else {"cache": Path(cache)}
    kept = RunConfig.read_settings(settings).cache
    every = EveryLesion(trained, _paths(trained_on)) if every_lesion else None
    dimensions = read_dimensions(by if isinstance(by, str) else ",".join(by)) if by else ()
    weights_files = _paths(weights)
    judgement = evaluate_runs(
        Path(data), files, kept, weights_files, every, dimensions, without_metadata
    )
    return evaluated(judgement)


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
        the body, which a model trained with ``metadata`` uses, or one with ``screening_by`` for
        the threshold of the patient's group.
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


if __name__ == "__main__":
    from simulations.cli.main import main

    main()
