"""``fedderm data``: check and describe a folder, generate one, partition one into sites."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from common.config.run import RunConfig
from common.data.check import Check, Count
from common.data.check import check as check_folder
from common.data.dataset import SYNTHETIC_MARKER, Dataset
from common.data.duplicates import open_joined
from common.data.groups import HISTOGRAMS, groups, numbers, table_values
from common.data.image import Defect
from common.data.splits import TEST, site_splits
from common.task import TASKS
from common.text import printable
from simulations.data import tone_survey
from simulations.data.partition import Scheme, write_sites
from simulations.data.partition import partition as spread
from simulations.data.skin_tone import CATEGORIES, WAYS
from simulations.data.synthetic import write_synthetic
from simulations.data.unlabelled import read_shares, without_labels

app = typer.Typer(
    help="Check, describe, generate and partition data folders.", no_args_is_help=True
)

Sites = Annotated[int | None, typer.Option(help="Number of sites.")]
Alpha = Annotated[
    float, typer.Option(help="Skew of dirichlet and quantity; smaller is more skewed.")
]
Data = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder; docs/data.md has the layouts.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]

_WARNINGS = 3
"""Exit code of `check --strict` for a folder that can be used, but not all of it."""
_MOST_SHOWN, _WIDEST = 50, 200

_RUN = RunConfig()  # for its defaults: folders written ahead of a run are those of the run


@app.command()
def check(
    folder: Data,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 if something is left out or unknown.")
    ] = False,
) -> None:
    """Count the images of DIR and list its defects; exit 1 if it cannot be used."""
    report = check_folder(folder)
    if (folder / SYNTHETIC_MARKER).exists():
        typer.echo("SYNTHETIC IMAGES: generated, they describe no patients.\n")
    if report.layout:
        typer.echo(printable(f"read as {report.layout}") + "\n")
    typer.echo(_counts("class", report.by_class, report))
    typer.echo("\n" + _counts("site", report.by_site, report))
    typer.echo("\nno defects" if not report.defects else "")
    for defect in report.defects:
        typer.echo("\n".join(_lines(defect)))
    if not report.usable:
        raise typer.Exit(1)
    if strict and any(defect.severity == "warning" for defect in report.defects):
        raise typer.Exit(_WARNINGS)


def _lines(defect: Defect) -> Iterator[str]:
    """Yield a defect with its remedy, and what has it: the first fifty, then how many more.

    A note is one line: nothing is to be done about it.
    """
    if defect.severity == "note":
        yield f"note     {defect}"
        return
    remedy = f"; {defect.remedy}" * bool(defect.remedy)
    names = [printable(name)[:_WIDEST] for name in defect.offenders[:_MOST_SHOWN]]
    head = f"{defect.severity:7}  {len(defect.offenders)} x {defect.kind}"
    if len(names) == 1:
        yield f"{head}: {names[0]}{remedy}"
        return
    yield f"{head}{remedy}"
    yield from (f"{'':9}{name}" for name in names)
    if more := len(defect.offenders) - len(names):
        yield f"{'':9}and {more} more"


@app.command()
def stats(
    folder: Data,
    tone: Annotated[
        bool, typer.Option("--tone", help="Measure skin tone in images, exploratory.")
    ] = False,
    images: Annotated[
        int, typer.Option(min=0, help="Images that --tone takes by chance; 0 takes all.")
    ] = 500,
    seed: Seed = 0,
) -> None:
    """Count the images and lesions of DIR by what its table says of them; with --tone, skin too."""
    dataset = Dataset.open(folder)
    if dataset.synthetic:
        typer.echo("SYNTHETIC IMAGES: generated, they describe no patients.\n")
    for name in table_values(dataset.images[0]):
        typer.echo(_table([HISTOGRAMS[name], "images", "lesions"], _by_group(dataset, name)) + "\n")
    if tone:
        if 0 < images < len(dataset):
            chosen = np.random.default_rng(seed).choice(len(dataset), images, replace=False)
            dataset = dataset.select(np.sort(chosen))
        _show_tones(dataset)


def _by_group(dataset: Dataset, name: str) -> Iterator[Sequence[object]]:
    """Yield the groups of a column that have images, with those and their lesions."""
    values = [table_values(image)[name] for image in dataset.images]
    found = numbers(name, values, dataset.task)
    for k, group in enumerate(groups(name, dataset.task)):
        if (found == k).any():
            yield group, np.count_nonzero(found == k), len(set(dataset.lesions[found == k]))


def _show_tones(dataset: Dataset) -> None:
    tones = tone_survey.measure(dataset)
    typer.echo(
        f"EXPLORATORY: individual typology angle of {len(dataset)} images, {tones.masks} of them "
        "with a lesion's mask.\nIt shows light and camera as much as skin, and is no ground for a "
        "verdict about any group (docs/fairness.md).\n"
    )
    quartiles = ["25 %", "median", "75 %"]
    header = ["constancy", "way", *quartiles, *CATEGORIES, "above 90 degrees"]
    typer.echo(_table(header, tone_survey.spread(tones)) + "\n")
    header = ["way", "constancy", "same category", "weighted kappa", "rank correlation"]
    typer.echo(_table(header, tone_survey.agreement(tones)) + "\n")
    for way, angles in zip(WAYS, tones.angles[0], strict=True):
        inside, outside, pairs = tone_survey.within_lesions(dataset, angles)
        typer.echo(
            f"{way}: two images of one lesion differ by {inside:.1f} degrees in the median "
            f"({pairs} pairs), of two lesions by {outside:.1f}"
        )


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the images.")],
    images: Annotated[int, typer.Option(help="Number of images.")] = 1200,
    seed: Seed = 0,
    task: Annotated[
        Literal["ham10000", "isic2019", "binary"], typer.Option(help="Diagnoses of the table.")
    ] = "ham10000",
) -> None:
    """Generate a synthetic data set in the new folder OUT, laid out like HAM10000."""
    write_synthetic(out, images, seed, TASKS[task])
    text = f"wrote {images} synthetic images to {out}; they describe no patients"
    typer.echo(printable(text))


@app.command()
def partition(
    folder: Data,
    out: Annotated[Path, typer.Option(help="New folder for the site folders.")],
    scheme: Annotated[Scheme, typer.Option(help="How images are divided over sites.")] = "natural",
    sites: Sites = None,
    alpha: Alpha = 0.5,
    seed: Seed = _RUN.seed,
    test_fraction: Annotated[
        float, typer.Option(help="Share of lesions for the test.")
    ] = _RUN.test_fraction,
    folds: Annotated[int, typer.Option(help="Folds of the other lesions.")] = _RUN.folds,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE=SHARE",
            help="Share of its training lesions that lose the diagnosis.",
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link images instead of copying.")] = False,
) -> None:
    """Divide DIR into one folder per site; all have the splits of the pooled data.

    Splits that the rows of DIR have already are kept.
    """
    dataset = open_joined(folder, _RUN.cache)
    dataset = dataset.with_splits(site_splits(dataset, test_fraction, folds, seed))
    parts = spread(dataset, scheme, sites, alpha, seed)
    written = without_labels(dataset, parts, read_shares(unlabelled or (), parts), seed)
    write_sites(written, parts, out, link=link)
    blank = np.array([not image.dx for image in written.images], dtype=np.bool_)
    rows = [[n, *_summary(dataset.select(i)), int(blank[i].sum())] for n, i in parts.items()]
    rows.append(["total", *_summary(dataset), int(blank.sum())])
    header = ["site", "images", "lesions", TEST, *dataset.task.codes, "unlabelled"]
    width = len(header) if blank.any() else len(header) - 1
    typer.echo(_table(header[:width], [row[:width] for row in rows]))


def _summary(site: Dataset) -> list[int]:
    per_class = np.bincount(site.labels, minlength=site.task.n_classes).tolist()
    test = int(np.count_nonzero(site.splits == TEST))
    return [len(site), len(site.by_lesion.sizes), test, *per_class]


def _counts(key: str, groups: dict[str, Count], report: Check) -> str:
    header = [key, *(name.replace("_", " ") for name in Count._fields)]
    rows = [[name or "(none)", *count] for name, count in groups.items()]
    return _table(header, [*rows, ["total", *report.total]])


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Align columns: names left, numbers right."""
    lines = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
