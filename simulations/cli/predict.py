"""``fedderm predict`` and ``fedderm serve``: answers about images."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.predict.answerer import ModelAnswerer, chosen_prevalence, refuse_place_as_site
from client.predict.cli import check_form
from client.predict.cli import predict as show_answers
from client.predict.images import expand, patients_of
from client.predict.recorded import RecordedAnswerer
from client.predict.serve import LOOPBACK
from client.predict.serve import serve as serve_answers
from client.predict.shown import Answerer
from common.answers.answering import AnswerOptions
from common.data.patients import stated
from common.models.predictor import Predictor
from common.models.registry import Registry
from server.run.folder import model_file
from simulations.cli.read_settings import Weights

Coverage = Annotated[
    float, typer.Option(help="Share of new lesions whose set is to hold their diagnosis.")
]
Sensitivity = Annotated[float, typer.Option(help="Sensitivity of the screening rules.")]
Refer = Annotated[float, typer.Option(help="Share of the least sure lesions to refer to a person.")]
SetBy = Annotated[
    Literal["pooled", "class", "site", "everywhere"],
    typer.Option(help="Where sets keep their promise: over all lesions, in each class, at a site."),
]
OfSite = Annotated[str, typer.Option("--site", help="Name of the training site that asks.")]
Prevalence = Annotated[
    str | None,
    typer.Option(
        metavar="nv=0.7,...|FOLDER",
        help="Frequencies of the diagnoses where you are; or a folder of images to estimate them.",
        show_default="those of the training sites",
    ),
]
Age = Annotated[str, typer.Option(metavar="YEARS", help="The patient's age, of all images.")]
Sex = Annotated[str, typer.Option(help="The patient's sex: female or male.")]
Place = Annotated[
    str,
    typer.Option(
        "--place",
        "--localization",
        help="Place on the body: back, face, ... (--site is the training site.)",
    ),
]
OfPatients = Annotated[
    Path | None,
    typer.Option(
        "--metadata",
        metavar="FILE.csv",
        help="Table with image_id and age, sex, localization of each image.",
    ),
]
RunModel = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of a run, its model file, or a model registry."),
]


def predict(
    run: RunModel,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Image files, folders of them, or - for a list of paths."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table.")] = False,
    html: Annotated[Path | None, typer.Option(help="New page with pictures and maps.")] = None,
    age: Age = "",
    sex: Sex = "",
    place: Place = "",
    metadata: OfPatients = None,
    coverage: Coverage = AnswerOptions.coverage,
    sets: SetBy = AnswerOptions.threshold,
    site: OfSite = AnswerOptions.site,
    sensitivity: Sensitivity = AnswerOptions.sensitivity,
    refer: Refer = AnswerOptions.refer,
    prevalence: Prevalence = None,
    weights: Weights = None,
) -> None:
    """Answer about images: how likely, how sure, or "ask a person". Not a medical device.

    For each image the likeliest diagnosis (rule `likeliest`); what stands out beside how rare it is
    (rule `balanced`, by which a run's accuracies are measured); whether it is above the thresholds
    for melanoma and for all malignant diagnoses (rule `screening`); the diagnoses that cannot be
    excluded; and whether to refer it to a person. A file that cannot be read is a line of its own,
    and the exit code is then 1. A model that was trained with metadata uses age, sex and place, and
    says what they changed.
    """
    check_form(as_json, as_csv, html)
    about = stated(age, sex, place)
    found = expand(paths, sys.stdin.buffer)
    patients = patients_of(found, about, metadata)
    options = AnswerOptions(
        coverage=coverage, threshold=sets, site=site, sensitivity=sensitivity, refer=refer
    )
    answerer = _answerer(run, options, prevalence, weights)
    forms = {"as_json": as_json, "as_csv": as_csv}
    if not show_answers(answerer, found, **forms, html=html, patients=patients):
        raise typer.Exit(1)


def serve(
    run: RunModel,
    host: Annotated[str, typer.Option(help="Address of this machine to listen at.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 0,
    coverage: Coverage = AnswerOptions.coverage,
    sets: SetBy = AnswerOptions.threshold,
    site: OfSite = AnswerOptions.site,
    sensitivity: Sensitivity = AnswerOptions.sensitivity,
    refer: Refer = AnswerOptions.refer,
    prevalence: Prevalence = None,
    weights: Weights = None,
) -> None:
    """Answer in a browser on this machine: drop images, see answers. Not a medical device.

    The address that is printed has a secret; whoever knows it can ask. Images are kept nowhere.
    """
    options = AnswerOptions(
        coverage=coverage, threshold=sets, site=site, sensitivity=sensitivity, refer=refer
    )
    serve_answers(_answerer(run, options, prevalence, weights), host, port)


def _answerer(
    run: Path, options: AnswerOptions, prevalence: str | None, weights: list[Path] | None
) -> Answerer:
    # Opened once, so that a version that is promoted meanwhile is not named in this one's place.
    registry = Registry.open(run) if Registry.is_at(run) else None
    file = model_file(run) if registry is None else registry.file(registry.current)
    answerer = _of_model(Predictor.open(file, *(weights or ())), options, prevalence)
    return answerer if registry is None else RecordedAnswerer(answerer, registry)


def _of_model(
    predictor: Predictor, options: AnswerOptions, prevalence: str | None
) -> ModelAnswerer:
    refuse_place_as_site(predictor, options.site)
    if prevalence is None:
        return ModelAnswerer(predictor, options)
    frequencies, source = chosen_prevalence(predictor, prevalence)
    return ModelAnswerer(predictor, replace(options, prevalence=frequencies), source)
