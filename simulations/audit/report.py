"""An audit as a Markdown table that a newcomer can read."""

from collections.abc import Iterator

from common.formats import estimate, markdown_table
from common.synthetic_note import synthetic_note
from simulations.audit.epsilon_bound import LEVEL
from simulations.audit.membership import AtRate, Membership
from simulations.audit.results import Audit

_COLUMNS = ("attack", "on", "found", "to compare with")


def audit_report(audit: Audit) -> str:
    """Return the attacks' results beside those of chance or of the claim."""
    lines = [
        *synthetic_note(audit.synthetic),
        _claim(audit),
        "",
        markdown_table(_COLUMNS, _rows(audit)),
        "",
        *audit.found.notes,
        "Of the membership inference the intervals are 95 %, bootstrapped over lesions.",
    ]
    if audit.epsilon is not None:
        lines += ["Noise comes from the operating system, as at a site: it differs between audits."]
    if audit.refuted:
        lines += ["", f"NOT AS PRIVATE AS CLAIMED: epsilon {audit.epsilon:g} is refuted."]
    return "\n".join(lines)


def _claim(audit: Audit) -> str:
    what = f"method={audit.method}, {audit.found.sites} sites"
    if audit.epsilon is None:
        return f"{what}: no privacy is promised."
    return (
        f"{what}: epsilon {audit.epsilon:g} at delta {audit.delta:g} is promised for each "
        f"{audit.unit}, trust={audit.trust}."
    )


def _rows(audit: Audit) -> Iterator[tuple[str, str, str, str]]:
    one_run = audit.found.one_run
    best = max(one_run.guesses, key=lambda guesses: guesses.bound)
    claim = "nothing promised" if audit.epsilon is None else f"epsilon {audit.epsilon:g} promised"
    yield (
        f"one-run audit, {one_run.canaries} canaries",
        one_run.attack,
        f"epsilon is at least {one_run.bound:.2f} ({1 - LEVEL:.0%} confidence; "
        f"{best.right} of {best.made} guesses right)",
        f"{claim}; more than {one_run.largest:.2f} cannot be seen",
    )
    yield from _membership(audit.found.membership)
    for each in audit.found.reconstruction:
        yield (
            f"reconstruction of {each.lesions} records",
            each.seen,
            f"cosine {_unsigned(each.median)} (95th percentile {_unsigned(each.high)})",
            f"with another one {_unsigned(each.chance)} ({_unsigned(each.high_chance)})",
        )


def _membership(membership: Membership) -> Iterator[tuple[str, str, str, str]]:
    on = f"{membership.classifiers} {membership.trained}, {membership.lesions} in all"
    yield (
        "membership inference, AUC",
        on,
        estimate(membership.auc, membership.interval),
        "chance 0.5",
    )
    for at in membership.rates:
        yield (
            f"true positives at {at.rate:.1%} false ones",
            f"{at.allowed} of the others taken for members",
            _power(at),
            f"chance {at.rate:.1%}",
        )


def _power(at: AtRate) -> str:
    if at.found is None or at.interval is None:
        return "not measurable: there are too few"
    return estimate(at.found, at.interval, ".2%")


def _unsigned(value: float) -> str:
    """Round, without the sign of a negative zero."""
    return f"{round(value, 3) + 0.0:.3f}"
