"""What a site says of itself in a private run, and what the operator's rules refuse in one."""

from client.site import Site
from common.errors import Reason, RefusalError
from common.wire.messages import Value


def describe(site: Site, n_features: int) -> dict[str, Value]:
    """Describe a private site, and nothing of its lesions, which would spend its budget.

    Raises
    ------
    RefusalError
        If the run is one that only a simulation may do.
    """
    refuse_what_only_simulations_may(site, "join")
    site.known_metadata()  # for the site's own log: nothing of it leaves
    return {
        "n_features": n_features,
        "features": site.config.feature_spec.key,
        "images": "",
        "lesions": "",
        "test_counts": _gives_test_counts(site),
        "fingerprint": site.data_name,
    }


def refuse_what_only_simulations_may(site: Site, question: str) -> None:
    """Refuse what would tell more of a hospital's lesions than its budget allows.

    Raises
    ------
    RefusalError
        If the run or the question would.
    """
    if not site.deployed:
        return
    if not site.config.epsilon:
        raise RefusalError(
            Reason.EPSILON, "'epsilon' is 0, which is for simulations; set what may be spent"
        )
    if not site.rules.epsilon:
        raise RefusalError(Reason.EPSILON, "the operator's rules allow no 'epsilon' to be spent")
    if site.config.trust == "distributed" and not site.config.secure:
        raise RefusalError(Reason.SECURE, "trust=distributed needs a secure sum; set secure=true")
    if site.config.unit != site.rules.unit or site.config.delta > site.rules.delta:
        raise RefusalError(
            Reason.UNIT,
            f"'unit' is {site.config.unit} and 'delta' {site.config.delta:g}; the operator's rules "
            f"have {site.rules.unit}, and at most {site.rules.delta:g}",
        )
    if question == "evaluate" and not _gives_test_counts(site):
        raise RefusalError(
            Reason.TEST_COUNTS, "the operator's rules let no exact counts of test lesions leave"
        )


def _gives_test_counts(site: Site) -> bool:
    """Tell whether exact counts of test lesions leave; those of a simulation are public."""
    return not site.deployed or site.rules.test_counts
