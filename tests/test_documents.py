"""The documents name commands, options, settings, rules, files and headings that exist."""

import re
import shlex
import subprocess
from dataclasses import fields

import click
import pytest
import typer

from client.egress.allowlist import (
    duplicates,
    finetune,
    private,
    private_finetune,
    statistics,
    svm,
    validate,
)
from client.egress.records import VALUES
from client.operator.site_rules import Operator, Rules
from client.predict.values import columns
from common.answers.answer import Answer, Metadata, PredictionSet, Screening
from common.config.run import RunConfig, complete_class
from common.errors import ConfigError
from common.methods import METHODS
from common.operation.status import Level
from common.task import HAM10000, KNOWN, TASKS
from simulations.attacks.hostile_sites import ATTACKS
from simulations.cli.main import app
from tests import documents
from tests.documents import PAGES, ROOT, spans

FEDDERM = typer.main.get_command(app)
SETTINGS = complete_class().model_fields

TOY = "nearest_mean"
"""The method of docs/extending.md: tests/simulations/test_extending.py types its commands."""

PLACEHOLDER = re.compile(r"[A-Z]+|\.\.\.")
"""What stands for a value that the reader has."""

PAIR = re.compile(r"([a-z_]+)=(\S+)")

WITH_A_RULE = {"optimizer": "sgd", "momentum": "0", "local_epochs": "1", "hostile": "1"}
"""Settings that a rule against hostile sites needs."""

OTHER_NAMES = {
    *("fedderm", "make"),
    "dataset",  # a column of the table of images
    "all",  # a stage of fine-tuning
    "bound",  # what an answer is bound to, in each
    *("overall", "training"),  # in metrics.json
    # What an answer holds: tests/client/predict/test_document.py compares the names.
    *(
        field.name
        for kind in (Answer, Metadata, PredictionSet, Screening)
        for field in fields(kind)
    ),
    *columns(HAM10000),
    *("true", "false", "everywhere", "pooled", "class", "site", "prevalence"),
}


def words_in(*modules):
    """Return the words in modules, by their paths or patterns of these."""
    files = (file for module in modules for file in ROOT.glob(module))
    return {word for file in files for word in re.findall(r"[a-z_]+", file.read_text())}


IN_TABLES = words_in("common/data/tables/*.py")
"""What the readers of tables know: columns, words in cells, keys of data.toml."""

IN_STATUS = words_in(
    "common/logs.py", "common/operation/status.py", "*/*/status.py", "server/run/observed.py"
)
"""Keys and codes of a status and a log; tests/simulations/cli/test_status.py compares them."""

NODE_STATES = {"online", "offline", "registered"}
"""What Flower calls them."""

IN_PAGE = {
    "data.md": IN_TABLES,
    "fairness.md": IN_TABLES,
    "deployment.md": IN_STATUS | NODE_STATES | {level.name.lower() for level in Level},
}

CODE = [page for page in PAGES if documents.blocks(page, "python")]
"""Pages about code, whose names are not a user's; their own tests run it."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_page_but_code = pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in CODE], ids=lambda page: page.name
)


def commands(page):
    """Return the words of each command of a page, of its blocks and of its sentences."""
    found = []
    inline = [span for span in spans(page) if re.match(r"(fedderm|flwr|make|pytest) ", span)]
    for line in [*documents.lines(page), *inline]:
        words = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):  # of the environment
                words.pop(0)
            if words and TOY not in line:
                found.append(words)
            words = []
    return found


def check_command(words):
    match words[0]:
        case "fedderm":
            check_fedderm(words[1:])
        case "flwr" if "--run-config" in words:
            check_settings(shlex.split(words[words.index("--run-config") + 1]))
        case "make":
            check_make(words[1:])
        case "pytest":
            assert all((ROOT / word).exists() for word in words[1:])


def check_fedderm(words):
    """Refuse a command, option, value or setting that does not exist."""
    command, words = FEDDERM, list(words)
    while isinstance(command, click.Group) and words:
        command = command.commands[words.pop(0)]
    if isinstance(command, click.Group):
        return
    context = click.Context(command)
    values, left, _ = command.make_parser(context).parse_args(words)
    assert not left, f"too many words: {left}"
    for parameter in command.params:
        given = values.get(parameter.name)
        if isinstance(given, str) and not PLACEHOLDER.fullmatch(given):
            parameter.type.convert(given, parameter, context)
    if command.name == "settings" and isinstance(values["method"], str):
        assert values["method"] in METHODS
    elif isinstance(values.get("settings"), tuple | list):
        check_settings(values["settings"])


def check_settings(pairs):
    """Refuse settings that do not exist, or that no run has together."""
    read = dict(pair.split("=", 1) for pair in pairs)
    check_names(read)
    RunConfig.read(known(read))


def check_names(read):
    assert read.keys() <= SETTINGS.keys(), f"no settings: {sorted(read.keys() - SETTINGS.keys())}"


def known(read):
    """Return settings but for those whose value the reader fills in."""
    return {key: value for key, value in read.items() if not PLACEHOLDER.fullmatch(value)}


def check_make(words):
    make = ["make", "--dry-run", *words]
    ended = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def taken_by_some_method(read):
    for method in METHODS:
        for beside in ({}, WITH_A_RULE):
            try:
                RunConfig.read({"method": method, **beside, **known(read)})
            except ConfigError:
                continue
            return True
    return False


def names():
    """Return all names that a user, a message or a rule of a hospital has."""
    choices = {
        word for field in SETTINGS.values() for word in getattr(field.annotation, "__args__", ())
    }
    allowed = (svm, finetune, private, private_finetune, statistics, validate, duplicates)
    return {
        *SETTINGS,
        *choices,
        *METHODS,
        *KNOWN,
        *TASKS,
        *ATTACKS,
        *Rules.__dataclass_fields__,
        *Operator.model_fields,
        *FEDDERM.commands,
        *VALUES,
        *(name for values in VALUES.values() for name in values),
        *(name for each in allowed for name in each.QUESTIONS),
        *(name for each in allowed for arrays in each.SUMS.values() for name in arrays),
    }


@each_page
def test_commands_options_and_settings_exist(page):
    for words in commands(page):
        try:
            check_command(words)
        except (AssertionError, KeyError, ConfigError, click.ClickException) as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error!r}", pytrace=False)


@each_page_but_code
def test_settings_in_sentences_exist(page):
    for span in spans(page):
        pairs = [PAIR.fullmatch(word) for word in span.split()]
        if all(pairs):
            read = dict(pair.groups() for pair in pairs)
            check_names(read)
            assert taken_by_some_method(read), span


@each_page_but_code
def test_single_words_in_backticks_are_names_that_exist(page):
    """So a renamed setting does not stay in a sentence."""
    words = {span for span in spans(page) if re.fullmatch(r"[a-z_]+", span)}
    assert words <= names() | OTHER_NAMES | IN_PAGE.get(page.name, set())


@pytest.mark.parametrize(
    "words",
    [
        "simulate DIR --out RUN head=ridge alpha=1",
        "simulate DIR --out RUN classifier=lda",
        "simulate DIR --out RUN method=private projection=64 epsilon=1",
        "simulate DIR --out RUN head=softmax",
        "simulate DIR --out RUN --sigma 3",
        "simulate DIR --out RUN --scheme naturally",
        "centralized DIR --out RUN --scheme iid",
        "data dump DIR",
        "settings fine_tuning",
        "privacy plan --epsilon much --steps 1",
    ],
)
def test_a_stale_command_is_found(words):
    with pytest.raises((AssertionError, KeyError, ConfigError, click.ClickException)):
        check_fedderm(words.split())


def test_stale_names_in_sentences_are_found():
    assert not {"classifier", "projection"} & (names() | OTHER_NAMES)
    assert not taken_by_some_method({"head": "softmax", "kernel": "rbf"})
    assert taken_by_some_method({"robust": "median"})


@each_page
def test_links_lead_somewhere(page):
    for link in documents.links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in documents.anchors(target), link


@each_page
def test_files_of_this_repository_that_it_names_exist(page):
    rooms = ("client/", "common/", "docs/", "server/", "simulations/", "tests/")
    for span in spans(page):
        if span.startswith(rooms) and " " not in span:
            assert (ROOT / span).exists(), span


@each_page
def test_commands_stand_below_how_to_have_them(page):
    """On each page that shows some, and nothing else stands for the program."""
    text = page.read_text(encoding="utf-8")
    first = text.find("\nfedderm ")
    assert first == -1 or documents.ACTIVATE in text[:first]


def test_every_page_is_reached_from_the_readme():
    folder = documents.README.parent
    links = documents.links(documents.README)
    linked = {(folder / link.partition("#")[0]).resolve() for link in links}
    assert set(PAGES) - {documents.README} <= linked


def test_the_diagnoses_are_explained():
    rows = next(documents.tables(ROOT / "docs" / "glossary.md"))[1:]
    assert {row[0].strip("`"): row[1] for row in rows} == dict(
        zip(HAM10000.codes, HAM10000.names, strict=True)
    )


def test_the_keys_of_a_hospitals_file_are_explained():
    listed = [
        {key for row in table[1:] for key in re.findall(r"`(\w+)`", row[0])}
        for table in documents.tables(ROOT / "docs" / "deployment.md")
        if table[0][0] == "key"
    ]
    assert listed == [set(Operator.model_fields) - {"rules"}, set(Rules.__dataclass_fields__)]


def test_settings_are_explained_under_their_names():
    for page in PAGES:
        for table in documents.tables(page):
            if table[0][0] == "setting":
                named = {word for row in table[1:] for word in re.findall(r"`(\w+)[`=]", row[0])}
                assert named <= SETTINGS.keys(), page.name


def test_the_picture_says_what_it_shows():
    svg = (ROOT / "docs" / "system.svg").read_text(encoding="utf-8")
    assert "<title" in svg
    assert "<desc" in svg
    assert min(map(float, re.findall(r'font-size="([\d.]+)"', svg))) >= 12
