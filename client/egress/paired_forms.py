"""What comes with the questions of a run that judges whether its model may replace its parent's."""

from collections.abc import Callable

from client.egress.questions import LARGEST_MAP, Form, Forms, Values
from client.site import Site
from common.answers.paired import NEVER, OF_INCUMBENT
from common.errors import Reason, RefusalError


def gated(forms: Callable[[Site, Values], Forms]) -> Callable[[Site, Values], Forms]:
    """Return forms of arrays that no other run has any use for."""

    def checked(site: Site, values: Values) -> Forms:
        if not site.config.gate:
            raise RefusalError(
                Reason.FORM, "this run compares no models; its setting 'gate' is off"
            )
        return forms(site, values)

    return checked


def paired_forms(site: Site, _: Values) -> Forms:
    """Return the forms of what both models decide by."""
    n_classes = site.config.task.n_classes
    rules = {
        "calibration": Form((2, n_classes), -LARGEST_MAP, LARGEST_MAP),
        "base_rates": Form((n_classes,), 0),
        "sets": Form((n_classes,), 0, NEVER),
        "melanoma": Form((), 0, NEVER),
    }
    return {f"{model}{name}": form for model in (OF_INCUMBENT, "") for name, form in rules.items()}


def grouped_forms(site: Site, values: Values) -> Forms:
    """Return the same where a run judges groups of lesions.

    Raises
    ------
    RefusalError
        If it judges none.
    """
    if not site.config.gate_groups.size:
        raise RefusalError(Reason.FORM, "this run judges no groups; its setting 'gate_by' is empty")
    return paired_forms(site, values)
