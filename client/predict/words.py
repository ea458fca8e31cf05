"""The sentences that say an answer: a terminal and a page show the same.

Every word for a diagnosis comes with the rule that chose it: ``likeliest``, ``balanced`` or
``screening``.
"""

from collections.abc import Iterable
from itertools import islice

from common.answers.answer import Answer, PredictionSet, Screening, Target
from common.formats import between
from common.task import Task

NOT_A_DEVICE = "Research software, not a medical device: it does not replace a diagnosis."

RULES = {
    "likeliest": "the diagnosis with the largest probability",
    "balanced": "the diagnosis whose probability is largest beside its base rate, that is, how "
    "frequent it is. It finds rare diagnoses, and is the best rule for balanced accuracy; it does "
    "not say what is likely",
    "screening": "flags an image where the probability of melanoma, or of all malignant diagnoses "
    "together, is at least a threshold. The threshold was chosen on calibration lesions, so that "
    "few malignant ones are missed; many flags are false alarms",
}
"""What each rule means, by its name."""

LEAST, MOST = 0.0005, 0.9995
"""Shares below the first, and from the second on, are not told in numbers."""

_TARGETS: dict[Target, str] = {"mel": "melanoma", "malignant": "malignant diagnoses"}
_PROMISES = {
    "pooled": "of all sites together",
    "class": "of each diagnosis",
    "site": "of this site",
    "everywhere": "of each diagnosis and of all together",
    "prevalence": "of a place with the given frequencies",
}
_STEP = 0.05


def percent(share: float) -> str:
    """Return a share in [0, 1] in per cent; nothing is called certain."""
    if share < LEAST:
        return "under 0.1 %"
    return "over 99.9 %" if share >= MOST else f"{100 * share:.1f} %"


def named(code: str, task: Task) -> str:
    """Return a diagnosis' full name with its code."""
    return f"{task.name(code)} ({code})"


def capital(text: str) -> str:
    """Return a text with its first letter as a capital, the others as they are."""
    return text[:1].upper() + text[1:]


def malignancy(answer: Answer) -> str:
    """Return whether the likeliest diagnosis is malignant."""
    return "malignant" if answer.malignant else "not malignant"


def malignant_share(answer: Answer) -> float:
    """Return the probability of all malignant diagnoses together, in [0, 1]."""
    return sum(answer.probabilities.get(code, 0.0) for code in answer.task.malignant)


def likeliest(answer: Answer) -> str:
    """Say the likeliest diagnosis."""
    name = f"{answer.name} ({answer.diagnosis})"
    return f"{name}, {percent(answer.probability)}, {malignancy(answer)}"


def stands_out(answer: Answer) -> str | None:
    """Say what is likely for how rare it is; None where it is the likeliest diagnosis."""
    code = answer.stands_out
    if code == answer.diagnosis:
        return None
    times = f"{answer.times_base_rate:.1f} times its base rate"
    return f"{named(code, answer.task)}, {percent(answer.probabilities[code])}: {times}"


def following(answer: Answer) -> list[str]:
    """Say the two next diagnoses and how far they are from the likeliest."""
    listed = islice(answer.probabilities.items(), 1, 3)
    return [
        f"{named(code, answer.task)}, {percent(share)}: "
        f"{100 * (answer.probability - share):.1f} points behind"
        for code, share in listed
    ]


def target(rule: Screening) -> str:
    """Return what a screening rule looks for."""
    return _TARGETS[rule.target]


def flag(rule: Screening) -> str:
    """Say whether a screening rule flags an image, and by which threshold."""
    is_flagged = "flagged" if rule.flagged else "not flagged"
    side = "is at least" if rule.flagged else "is under"
    said = (
        f"{target(rule)} {is_flagged}: {percent(rule.probability)} {side} the threshold of "
        f"{percent(rule.threshold)}"
    )
    return said if rule.group is None else f"{said} for patients of {rule.group}"


def common_threshold(rule: Screening) -> str | None:
    """Say what the common threshold would do, where that of a group of patients was used."""
    if rule.common_threshold is None:
        return None
    flagged = rule.probability >= rule.common_threshold
    return (
        f"by the common threshold of {percent(rule.common_threshold)} it would "
        f"{'' if flagged else 'not '}be flagged"
    )


def operating_point(rule: Screening) -> str:
    """Say a screening rule's sensitivity and specificity, with 95 % intervals."""
    return (
        f"sensitivity {_share(rule.sensitivity, rule.sensitivity_interval, '95 % interval ')}, "
        f"specificity {_share(rule.specificity, rule.specificity_interval)}, on calibration lesions"
        f"{'' if rule.group is None else f' of {rule.group}'}"
    )


def promise(found: PredictionSet) -> str:
    """Say what a prediction set promises, and for which diagnoses it promises nothing."""
    text = (
        f"the diagnosis is in such a set for {100 * found.coverage:g} % of new lesions "
        f"{_PROMISES[found.threshold]}, if they are like the {found.lesions} calibration lesions"
    )
    if not found.without_guarantee:
        return text
    few = ", ".join(found.without_guarantee)
    return f"{text}; nothing is promised for {few}, of which there are too few"


def diagnoses(codes: Iterable[str], task: Task) -> str:
    """Return full names with codes, in a list."""
    return ", ".join(named(code, task) for code in codes)


def distance(answer: Answer) -> str | None:
    """Say how far the image is from the training images; None where it is not known."""
    if answer.distance is None:
        return None
    return f"{answer.distance:.2f} from the training images; about 1 is usual"


def patient(answer: Answer) -> str | None:
    """Say what is known of the patient and was used; None where nothing was."""
    if answer.metadata is None:
        return None
    words = {"age": "{:g} years", "sex": "{}", "localization": "place {}"}
    return ", ".join(words[column].format(v) for column, v in answer.metadata.used.items())


def without(answer: Answer) -> list[str]:
    """Say where the image alone has another likeliest diagnosis, or other flags."""
    metadata = answer.metadata
    if metadata is None:
        return []
    code, said = metadata.diagnosis_without, []
    if code != answer.diagnosis:
        share = percent(metadata.probabilities_without[code])
        said.append(f"from the image alone the likeliest is {named(code, answer.task)}, {share}")
    for rule in answer.screening:
        if rule.flagged != (flagged := rule.target in metadata.flagged_without):
            said.append(f"the image alone is {'' if flagged else 'not '}flagged for {target(rule)}")
    return said


def changed(answer: Answer) -> str | None:
    """Say by how much what is known of the patient changed the probabilities; None without it."""
    if answer.metadata is None:
        return None
    alone = answer.metadata.probabilities_without
    steps = {code: 100 * (share - alone[code]) for code, share in answer.probabilities.items()}
    largest = sorted(steps, key=lambda code: -abs(steps[code]))[:3]
    said = [
        f"{code} from {percent(alone[code])} to {percent(answer.probabilities[code])}"
        for code in largest
        if abs(steps[code]) >= _STEP
    ]
    return f"it changed {', '.join(said)}" if said else "it changed next to nothing"


def _share(value: float, interval: tuple[float, float], of: str = "") -> str:
    bounds = between([100 * bound for bound in interval], ".1f")
    return f"{100 * value:.1f} % ({of}{bounds})"
