"""``fedderm predict``: answers in one of four forms, as they come."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tqdm import tqdm

from client.predict.images import NO_PATIENTS, Answered, answers
from client.predict.page import Page
from client.predict.shown import Answerer
from client.predict.text import block
from client.predict.values import columns, row, values
from client.predict.words import NOT_A_DEVICE
from common.answers.answer import Unreadable
from common.data.metadata import Described
from common.errors import ConfigError
from common.storage.whole_files import refuse_taken_file
from common.task import Task
from common.text import printable

LONG = 20
"""From how many images on a bar is shown, where standard error is a terminal."""

Show = Callable[[Answered], None]


def check_form(as_json: bool, as_csv: bool, html: Path | None) -> None:
    """Check the form that a user wants, before a model is loaded.

    Raises
    ------
    ConfigError
        If it is more than one.
    DataError
        If the page cannot be written.
    """
    if as_json + as_csv + (html is not None) > 1:
        raise ConfigError("--json, --csv and --html exclude each other; choose one")
    if html is not None:
        refuse_taken_file(html)


def predict(
    answerer: Answerer,
    found: Sequence[Path | Unreadable],
    *,
    as_json: bool = False,
    as_csv: bool = False,
    html: Path | None = None,
    patients: Mapping[Path, Described] = NO_PATIENTS,
) -> bool:
    """Print answers about images, or write a page; text for a person if no form is chosen.

    Parameters
    ----------
    found : what :func:`client.predict.images.expand` gives.
    html : the page's file.
    patients : what is known of the patients behind the paths.

    Returns
    -------
    Whether all images could be read: the exit code is 1 if not.

    Raises
    ------
    DataError
        If the page cannot be written.
    """
    form = _form(answerer, as_json, as_csv, html)
    bar = tqdm(total=len(found), unit="image", disable=None if len(found) >= LONG else True)
    complete = True
    with form as show, bar:
        for each in answers(answerer, found, evidence=html is not None, patients=patients):
            with tqdm.external_write_mode():
                show(each)
            bar.update()
            complete &= not isinstance(each.shown.answer, Unreadable)
    return complete


@contextmanager
def _text(answerer: Answerer) -> Iterator[Show]:
    about = answerer.about
    print("\n".join(map(printable, (NOT_A_DEVICE, about.model, *about.notes))))
    yield lambda each: print(f"\n{block(each.shown.answer)}", end="", flush=True)


@contextmanager
def _json() -> Iterator[Show]:
    """Print a list, an item a line."""
    print("[", end="")
    before = "\n"

    def show(each: Answered) -> None:
        nonlocal before
        print(before, json.dumps(values(each.shown.answer)), sep="", end="", flush=True)
        before = ",\n"

    yield show
    print("\n]")


@contextmanager
def _csv(task: Task) -> Iterator[Show]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns(task))

    def show(each: Answered) -> None:
        writer.writerow(row(each.shown.answer, task))
        sys.stdout.flush()

    yield show


@contextmanager
def _html(answerer: Answerer, out: Path) -> Iterator[Show]:
    """Write a page; what cannot be read is a line on standard error, too."""
    with Page(out, answerer.about) as page:

        def show(each: Answered) -> None:
            page.add(each)
            if isinstance(each.shown.answer, Unreadable):
                print(block(each.shown.answer), end="", file=sys.stderr)

        yield show
    print(printable(f"page: {out}"))


def _form(
    answerer: Answerer, as_json: bool, as_csv: bool, html: Path | None
) -> AbstractContextManager[Show]:
    if html is not None:
        return _html(answerer, html)
    if as_json:
        return _json()
    return _csv(answerer.about.task) if as_csv else _text(answerer)
