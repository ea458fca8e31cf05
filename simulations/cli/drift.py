"""``fedderm drift``: whether a model in use meets other images than before."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from hashlib import sha256
from operator import add as add_up
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from client.predict.images import expand, read
from common.answers.answer import Unreadable
from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.watch import (
    LEAST_IMAGES,
    LEVEL,
    OF_PICTURES,
    PICTURES,
    UNLIKE,
    Change,
    PictureCounts,
    WatchCounts,
    Week,
    alarms,
    picture_groups,
)
from common.data.image_measures import ImageMeasures, measure_image
from common.errors import ConfigError, DataError, ReplyError, reason
from common.formats import markdown_table, rounded
from common.models.predictor import Judged, Predictor
from common.statistics.calibration import probabilities
from common.storage.reading import read_bytes, read_text
from common.storage.verified import FORMAT_ERRORS
from common.text import printable
from server.run.expected import read_expected
from server.run.folder import RUN, model_file, read_metrics
from simulations.cli.json_output import refuse_taken, write_figures
from simulations.cli.read_settings import Weights

CHANGED = 3
"""Exit code of an alarm."""


def drift(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run in use.")],
    weeks: Annotated[
        list[Path] | None,
        typer.Argument(metavar="WEEK...", help="Folders of new images, one a lesion, in order."),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(help="File of another site's counts of the same weeks, of its --out."),
    ] = None,
    usual: Annotated[
        Path | None,
        typer.Option(
            help="File of an earlier --out: counts of weeks without change to compare with.",
            show_default="the test lesions of the run",
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run of method=statistics: what images were like before.",
            show_default="as --usual",
        ),
    ] = None,
    level: Annotated[
        float,
        typer.Option(min=0, max=1, help="Chance of a false alarm in all weeks together."),
    ] = LEVEL,
    out: Annotated[Path | None, typer.Option(help="New JSON file for the counts.")] = None,
    weights: Weights = None,
) -> None:
    """Compare what a model says of new images, week by week, with what it said of lesions before.

    No diagnoses are needed. Compared are the likeliest diagnoses, the largest probabilities, and
    how many images look unlike the training lesions; with --usual or --statistics also size,
    brightness and sharpness of images. The exit code is 3 where something changed.
    """
    refuse_taken(out)
    file = model_file(run)
    predictor, digest = Predictor.open(file, *(weights or ())), sha256(read_bytes(file)).hexdigest()
    basis = predictor.model.basis
    zero = Week(WatchCounts.expected(AnswerCounts.zero(basis.task)), _no_pictures())
    if usual is None:
        expected = Week(_expected(file, basis), _no_pictures())
    else:
        expected = reduce(add_up, _read(usual, digest, zero).values())
    if statistics is not None:
        expected = replace(expected, pictures=_surveyed(statistics))
    if not expected.said.images:
        raise ConfigError(
            f"{run} has neither test lesions nor calibration lesions to compare with; name --usual "
            "FILE, of a time without change"
        )
    counts = {week.name: _count(predictor, week) for week in weeks or ()}
    for other in add or ():
        counts = _added(counts, _read(other, digest, zero), other)
    if not counts:
        raise ConfigError("no week was named; name folders of images, or --add FILE")
    kept = {name: week for name, week in counts.items() if week.said.images >= LEAST_IMAGES}
    found = {name: week.compared(expected) for name, week in kept.items()}
    raised = dict(zip(found, alarms(list(found.values()), level), strict=True))
    typer.echo(_table(counts, found, raised))
    typer.echo(printable(_verdict(raised, level)))
    write_figures(out, {"model": digest, "weeks": _as_json(counts)})
    if any(raised.values()):
        raise typer.Exit(CHANGED)


def _expected(file: Path, basis: AnswerBasis) -> WatchCounts:
    """Return the counts of a run's test lesions; without any, those of its calibration lesions.

    What was counted in cross-validation is of models that have seen fewer lesions, and are less
    sure.
    """
    of_test = read_expected(file.parent, basis.task)
    return of_test if of_test and of_test.images else WatchCounts.expected(basis.lesions)


def _no_pictures() -> PictureCounts:
    return PictureCounts.measure(picture_groups(()))


def _surveyed(run: Path) -> PictureCounts:
    """Return what a federation's images are like, as far as a run of statistics may say it."""
    try:
        values = read_metrics(run / RUN if (run / RUN).is_dir() else run)["histograms"]
        counts = {
            name: np.array(values[name]["total"]["images"][:-1], np.int64) for name in PICTURES
        }
        return _no_pictures().from_record(counts)
    except (*FORMAT_ERRORS, OSError, ReplyError) as error:
        raise DataError(
            f"{run} holds no statistics of images ({reason(error)}); name the run folder of "
            "method=statistics"
        ) from error


def _count(predictor: Predictor, week: Path) -> Week:
    """Count what a model says of a folder's images; one that cannot be read is named."""
    problems: list[str] = []
    measures: list[ImageMeasures | None] = []
    answers = list(predictor.judge(_files(week, problems, measures)))
    judged = [each for each in answers if isinstance(each, Judged)]
    looks = [look for each, look in zip(answers, measures, strict=True) if isinstance(each, Judged)]
    problems += [str(each) for each in answers if not isinstance(each, Judged)]
    if not judged:
        raise DataError(f"{week} has no image that can be read: {problems[0]}")
    for problem in problems:
        typer.echo(f"warning: {printable(problem)}", err=True)
    basis = predictor.model.basis
    scores = np.array([each.scores for each in judged])
    distances = np.array([each.distance for each in judged])
    threshold = basis.appearance.threshold if basis.appearance else np.inf
    said = WatchCounts.measure(probabilities(scores, basis.calibration), distances, threshold)
    return Week(said, PictureCounts.measure(picture_groups(looks)))


def _files(
    week: Path, problems: list[str], measures: list[ImageMeasures | None]
) -> Iterator[tuple[str, bytes]]:
    """Yield the images of a folder and note their measures; what cannot be read is a problem."""
    for file in map(read, expand([str(week)], ())):
        if isinstance(file, Unreadable):
            problems.append(f"{file.image}: {file.error}")
        else:
            measures.append(measure_image(file.data))
            yield file.name, file.data


def _added(counts: dict[str, Week], more: dict[str, Week], file: Path) -> dict[str, Week]:
    if not counts:
        return more
    if counts.keys() != more.keys():
        raise ConfigError(
            f"{file} has the weeks {', '.join(more)}, not {', '.join(counts)}; name the same ones"
        )
    return {name: week + more[name] for name, week in counts.items()}


def _read(file: Path, digest: str, like: Week) -> dict[str, Week]:
    try:
        said = json.loads(read_text(file))
        if said["model"] != digest:
            raise ConfigError(f"{file} has counts of another model; count by this one")
        if not said["weeks"]:
            raise ValueError("no weeks")
        return {
            str(name): like.from_record({n: np.array(v, np.int64) for n, v in week.items()})
            for name, week in said["weeks"].items()
        }
    except (*FORMAT_ERRORS, ReplyError) as error:
        raise DataError(
            f"{file} holds no counts of `fedderm drift --out` ({reason(error)})"
        ) from error


def _as_json(counts: dict[str, Week]) -> dict[str, dict[str, list[int]]]:
    return {
        name: {array: values.tolist() for array, values in week.to_record().items()}
        for name, week in counts.items()
    }


def _table(
    counts: dict[str, Week],
    found: dict[str, dict[str, Change]],
    raised: dict[str, list[str]],
) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for name, week in counts.items():
            images = str(week.said.images)
            if name not in found:
                yield (name, images, *["-"] * len(shown), f"fewer than {LEAST_IMAGES} images")
                continue
            cells = (f"{rounded(c.stability)} ({c.p:.2g})" for c in found[name].values())
            yield (name, images, *cells, ", ".join(raised[name]) or "none")

    shown = list(dict.fromkeys(what for each in found.values() for what in each))
    kinds = [f"{what}: {'share' if what == UNLIKE else 'stability'} (p)" for what in shown]
    return markdown_table(("week", "images", *kinds, "changed"), rows())


def _verdict(raised: dict[str, list[str]], level: float) -> str:
    held = f"at a chance of {level:g} of any false alarm in all weeks together"
    changed = [f"{name} ({', '.join(what)})" for name, what in raised.items() if what]
    if not changed:
        return f"No change is shown, {held}"
    pictures = {what for each in raised.values() for what in each} & set(OF_PICTURES)
    why = ". The images themselves differ, as by another camera or light" if pictures else ""
    return f"Changed, {held}: {'; '.join(changed)}{why}"
