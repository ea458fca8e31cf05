"""What the words of a report mean."""

from collections.abc import Iterator

from common.methods import METHODS
from simulations.study.definition import ALONE, NATURAL, POOLED
from simulations.study.findings import Findings
from simulations.study.judging.paired_tests import points
from simulations.study.names import unlabelled

Entry = tuple[str, str]


def glossary(findings: Findings) -> list[tuple[str, list[Entry]]]:
    """Return terms with their meanings, under titles."""
    return [
        ("Routes", list(_routes(findings))),
        ("How the training data lie", list(_ways(findings))),
        ("Diagnoses", list(zip(findings.task.codes, findings.task.names, strict=True))),
        ("Measures", list(_measures(findings))),
        *([("How sure", list(_SURE))] if any("augrc" in r.metrics for r in findings.known) else []),
        ("Other words", list(_OTHERS)),
    ]


def _routes(findings: Findings) -> Iterator[Entry]:
    for route, name in findings.names.routes.items():
        config = findings.study.config(route)
        text = f'{METHODS[config.method].description}; "{route}" in the study file'
        if config.epsilon > 0:
            text += (
                f"; ε = {config.epsilon:g} and δ = {config.delta:g}, the smaller the more private"
            )
        yield name, f"{text}."


def _ways(findings: Findings) -> Iterator[Entry]:
    meanings = {
        POOLED: "all training images in one place, as without federation",
        NATURAL: "federated over the sources of the images, each a site",
        ALONE: "one site trains on its own images, without the others",
    }
    for spread, name in findings.names.spreads.items():
        values = findings.study.spreads[spread]
        text = meanings.get(values.scheme, "")
        if values.scheme not in meanings:
            text = (
                f"federated over {values.sites} sites whose shares of the diagnoses were drawn "
                f"unevenly, by a Dirichlet distribution with alpha = {values.alpha:g}"
            )
        yield name, f'{text}{unlabelled(values)}; "{spread}" in the study file.'


def _measures(findings: Findings) -> Iterator[Entry]:
    yield "point", "A hundredth of the whole: a sensitivity of 50 points finds every second image."
    yield "balanced accuracy", "Mean over the diagnoses of the share that is recognised."
    yield "sensitivity", "Of the images of a diagnosis, the share called so."
    yield "specificity", "Of the images of other diagnoses, the share not called so."
    yield (
        "AUC",
        "Chance that an image of the diagnosis is ranked above one of another; 50 is a coin.",
    )
    yield "calibration error", "Mean distance between a probability and how often it is right."
    yield "Brier score", "Mean squared error of the probabilities, from 0 to 200 points."
    yield "95 % interval", "Where the figure lies for other lesions, by a bootstrap over lesions."
    yield (
        "verdict",
        "Of the paired difference: better or worse if other lesions would not turn it around "
        f"(p below 5 %), equal if it is within {points(findings.study.margin)} (both one-sided "
        "tests below 5 %), identical if the models say the same, else undecided.",
    )
    yield "p, Holm", "Chance of such a difference by luck, corrected for the number of tests."


_SURE = (
    ("prediction set", "The diagnoses that the model cannot exclude for an image."),
    ("coverage", "Of the lesions, the share whose prediction set holds their diagnosis."),
    (
        "calibration lesion",
        "A lesion of the training data, scored by a model that has not seen it.",
    ),
    ("referral", "The lesions that the model is least sure of are left to a person."),
    (
        "AUGRC",
        "How often wrong answers are sure ones, 0 to 50: the chance that of two lesions the first "
        "is wrong and at least as sure as the second.",
    ),
    (
        "screening",
        "A rule that flags an image if melanoma, or any malignant diagnosis, is likely enough that "
        "95 of 100 such lesions are flagged.",
    ),
)

_OTHERS = (
    ("arm", "A route with one way in which the training data lie."),
    ("federated", "Sites train one model together; no image leaves its site."),
    ("fold", "A part of the lesions, tested by a model that was trained on the others."),
    ("frozen features", "What a pretrained network says of an image, itself unchanged."),
    ("site", "A hospital that holds its images itself."),
)
