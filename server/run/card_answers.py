"""What a model card says of a model's answers."""

from common.formats import estimate, markdown_table, rounded
from common.json_types import JsonObject

_RULES = """\
The tables above are by the rule `balanced`: the diagnosis whose probability is largest beside its
base rate. `fedderm predict` names the likeliest diagnosis (rule `likeliest`), beside it what stands
out by `balanced`, and flags images by the rule `screening`."""


def card_answers(found: JsonObject | None) -> list[str]:
    """Return the paragraphs about prediction sets, screening and referral on test lesions.

    Parameters
    ----------
    found : of :func:`common.answers.performance.performance`; None where no counts were released.
    """
    if found is None:
        return [
            _RULES,
            "No counts of answers were released: there are no prediction sets, no screening flags "
            "and no referral by confidence.",
        ]
    return [
        _RULES,
        *found["warnings"],
        *_sets(found["sets"]),
        *_screening(found),
        *_by_group(found.get("thresholds_by_group")),
        _referral(found),
    ]


def _sets(sets: JsonObject | None) -> list[str]:
    if sets is None:
        return []
    groups = {"all lesions": sets["overall"], **sets["by_class"], **sets["by_site"]}
    rows = [
        (
            name + ("" if each.get("guaranteed", True) else " (too few for a promise)"),
            each["lesions"],
            estimate(each["coverage"], each["coverage_interval"]),
            rounded(each.get("mean_size"), missing=""),
        )
        for name, each in groups.items()
    ]
    text = (
        f"Prediction sets that are to hold the diagnosis of {100 * sets['wanted']:g} % of new "
        "lesions, on test lesions with 95 % intervals; each site by its own threshold:"
    )
    return [text, markdown_table(("lesions", "number", "coverage", "mean size"), rows)]


def _screening(found: JsonObject) -> list[str]:
    rows = [
        (
            target,
            f"{point['threshold']:.4f}",
            f"{point['wanted']:g}",
            estimate(point["sensitivity"], point["sensitivity_interval"]),
            estimate(point["specificity"], point["specificity_interval"]),
        )
        for target, point in found["screening"].items()
    ]
    if not rows:
        return []
    names = ("screening for", "threshold", "sensitivity wanted", "sensitivity", "specificity")
    text = "Screening rules, whose thresholds are from calibration lesions, on test lesions:"
    return [text, markdown_table(names, rows)]


def _by_group(found: JsonObject | None) -> list[str]:
    if found is None:
        return []
    rows = [
        (group, target, each["lesions"], *_at(each["common"]), *_at(each["own"]))
        for group, targets in found.items()
        for target, each in targets.items()
    ]
    names = ("threshold", "sensitivity", "specificity")
    header = ("group", "screening for", "such lesions", *names, *(f"own {n}" for n in names))
    text = (
        "Thresholds by group, on the calibration lesions from which they are chosen: the common "
        "one, then the group's own, where it has lesions enough. The tables above are by the "
        "common one:"
    )
    return [text, markdown_table(header, rows)]


def _at(found: JsonObject | None) -> tuple[str, str, str]:
    if found is None:
        return "", "", ""
    sensitivity, specificity = (
        estimate(found[name], found[f"{name}_interval"]) for name in ("sensitivity", "specificity")
    )
    return f"{found['threshold']:.4f}", sensitivity, specificity


def _referral(found: JsonObject) -> str:
    values = found["referral"]
    return (
        f"The likeliest diagnosis is wrong in {rounded(values['risk_of_all'])} of "
        f"the test lesions; in {rounded(values['risk_at_90'])} and "
        f"{rounded(values['risk_at_80'])} of those that are left where the least "
        f"sure 10 and 20 % are referred (AUGRC {rounded(values['augrc'])})."
    )
