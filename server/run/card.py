"""The model card of a run: what was trained, on what, how well it does, what it is not for.

After Mitchell et al., "Model cards for model reporting", FAT* (2019).
"""

from collections.abc import Mapping

from common.config.run import RunConfig
from common.formats import markdown, markdown_table, rounded
from common.json_types import JsonObject
from common.methods import METHODS
from common.task import Task
from server.method import ServerMethod
from server.run.card_answers import card_answers
from server.run.card_gate import card_gate
from server.run.card_groups import card_groups
from server.run.folder import GATE

_SYNTHETIC = (
    "**SYNTHETIC: trained and tested on generated images. The figures show that the software "
    "works, nothing about skin lesions.**"
)
_LIMITS = """\
For research on federated learning with dermoscopic images. Not a medical device: not tested on
patients, not approved by any authority, not to be used for a diagnosis or to put one off.

It knows {n_classes} diagnoses and gives one of them to every image, of another disease or of
healthy skin too. What looks unlike the training lesions it refers to a person, as far as it can
tell. It was tested on lesions of the sites above only; other cameras, skin tones and rarer lesions
may be served worse, and the rows of the sites show how much these differ.
Probabilities are calibrated for the class frequencies of these sites."""

_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


def model_card(config: RunConfig, method: ServerMethod, metrics: JsonObject) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    config : the configuration of the run.
    method : says what its model is, and how it was trained.
    metrics : as written into the run folder: ``data``, ``training``, ``overall``, ``sites``.
    """
    data, trains = metrics["data"], METHODS[config.method].trains
    parts = [
        *([_SYNTHETIC] if data["synthetic"] else []),
        *_title(config, method),
        "## Diagnoses",
        _diagnoses(config.task),
        "## Data",
        markdown_table(
            ("site", "images", "lesions"),
            [(name, *_sizes(site)) for name, site in data["sites"].items()],
        ),
        *[f"- {markdown(line)}" for line in data.get("differing", [])],
        *[
            f"- Left out: {markdown(f'{name} {reason}')}"
            for name, reason in sorted(data["left_out"].items())
        ],
        *[
            f"- Smaller than {config.resolution} pixels on the short side: images of "
            f"{markdown(name)}, all or some"
            for name, site in sorted(data["sites"].items())
            if site.get("smaller_images")
        ],
        *[
            f"- Lesions of {markdown(name)} are not all named by its table: patients or single "
            "images stand for them, copies of a picture joined"
            for name, site in sorted(data["sites"].items())
            if site.get("unknown_lesions")
        ],
        *_lineage(metrics.get("lineage")),
        "## Training" if trains else "## Validation",
        _training(config, method, metrics["training"]),
        "## Test",
        f"On lesions that {'were held out' if trains else 'the model was judged on'}, from counts "
        "added over the sites; n/a where there is none."
        + (" Of each site alone nothing is known." if config.secure else ""),
        _scores({"all sites": metrics["overall"], **metrics["sites"]}),
        _per_class(config.task, metrics["overall"]),
        "## Answers",
        *card_answers(metrics.get("answers")),
        *card_groups(metrics.get("groups")),
        *card_gate(metrics.get(GATE)),
        "## Use and limits",
        _LIMITS.format(n_classes=_NUMBERS.get(config.task.n_classes, config.task.n_classes)),
    ]
    return "\n\n".join(parts) + "\n"


def _title(config: RunConfig, method: ServerMethod) -> list[str]:
    """Say what was done: a model was trained, or one was judged."""
    what = f"{method.model_name(config)} ({config.size} x {config.size} pixels)"
    if not METHODS[config.method].trains:
        return [
            "# External validation of a skin-lesion classifier over a federation",
            f"This is an {markdown(what)}. By FedDerm: no image left its site.",
        ]
    return [
        "# Skin-lesion classifier of a federation",
        f"A {what}. Trained by FedDerm: no image left its site.",
    ]


def _diagnoses(task: Task) -> str:
    """Name what the model tells apart, and what counts as what."""
    rows = [
        (code, name, "yes" if code in task.malignant else "no", ", ".join(_merged(task, code)))
        for code, name in zip(task.codes, task.names, strict=True)
    ]
    columns = ("diagnosis", "name", "malignant", *(["counted as it"] if task.mapping else []))
    return markdown_table(columns, [row[: len(columns)] for row in rows])


def _merged(task: Task, code: str) -> list[str]:
    return [source for source, target in task.mapping if target == code]


def _sizes(site: JsonObject) -> list[object]:
    return [site[key] or "not disclosed" for key in ("images", "lesions")]


def _lineage(lineage: JsonObject | None) -> list[str]:
    """Say which run a model goes on from, and what became of each site since."""
    if lineage is None:
        return []
    rows = [(name, site["since"], *_sizes(site)) for name, site in lineage["sites"].items()]
    parent, *older = lineage["ancestors"]
    before = f", which goes on from {', '.join(digest[:16] for digest in older)}" if older else ""
    return [
        "## Lineage",
        f"Goes on from the model {parent[:16]} (SHA-256){before}. Sites since then; of an absent "
        "one the model keeps what it learnt before:",
        markdown_table(("site", "since", "images", "lesions"), rows),
    ]


def _training(config: RunConfig, method: ServerMethod, training: JsonObject) -> str:
    facts: dict[str, object] = {"seed": config.seed, "images": _images(config)}
    if not METHODS[config.method].private:
        facts["privacy"] = (
            "none is promised: exact sums left the sites, which may show single lesions to a "
            "coordinator that crafts questions; only a private method's noise hides them"
        )
    if config.secure:
        facts["sums"] = "secure: the coordinator learned those over all sites, no site's share"
    facts |= method.training_facts(config, training)
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _images(config: RunConfig) -> str:
    light = "" if config.colour == "none" else f"; light taken out by {config.colour}"
    return f"larger ones reduced to {config.resolution} pixels on the short side{light}"


def _scores(groups: Mapping[str, JsonObject]) -> str:
    names = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "macro_auc",
        "expected_calibration_error",
    )
    rows = [
        (group, values["n"], *(rounded(values[name], missing="n/a") for name in names))
        for group, values in groups.items()
    ]
    return markdown_table(
        ("tested on", "images", *(name.replace("_", " ") for name in names)), rows
    )


def _per_class(task: Task, overall: JsonObject) -> str:
    names = ("sensitivity", "specificity", "f1", "auc")
    rows = [
        (f"{dx}, {task.name(dx)}", *(rounded(values[name], missing="n/a") for name in names))
        for dx, values in overall["per_class"].items()
    ]
    return markdown_table(("diagnosis", *names), rows)
