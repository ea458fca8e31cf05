"""The sums that a classifier on frozen features begins with: all sites', or a parent's changed."""

import logging
from functools import partial

from common.config.run import RunConfig
from common.errors import ConfigError
from common.statistics.moments import Moments
from server.federation.federation import Federation
from server.federation.plausibility import check_moments
from server.federation.question import LossPolicy, Question
from server.run.folder import RunFolder
from server.run.kept_moments import KeptMoments
from server.run.parent import CHANGED, SAME, Parent

_FEWEST_CHANGES = 2
"""Sites that must differ between two secure sums: of one alone the difference is its share."""

_log = logging.getLogger(__name__)


def check_parent(config: RunConfig) -> None:
    """Refuse a parent that a run cannot go on from; errors are those of :meth:`Parent.of`."""
    parent = Parent.of(config)
    if config.leaving and parent is None:
        raise ConfigError(
            f"'leaving' is {','.join(config.leaving)}, but only the sums of a finished run can be "
            "made smaller; set parent=RUN"
        )
    if parent and config.head != "svm" and not config.secure:
        KeptMoments.load(parent.folder, parent.model.task).check(config.leaving)


def begin(
    federation: Federation, config: RunConfig, folder: RunFolder
) -> tuple[Moments, RunConfig]:
    """Return the moments of the features, and the configuration with what a parent has chosen.

    Raises
    ------
    ConfigError
        If a site takes part that is to leave, or too few sites differ under secure sums.
    """
    parent = Parent.of(config)
    if parent:
        _check_sites(federation, config, parent)
        config = _as_chosen(config, parent)
    zero = Moments.zero(config.task.n_classes, next(iter(federation.sites.values())).n_features)
    question = Question("moments", zero, check_answer=partial(check_moments, config.task))
    if config.head == "svm" or config.secure:
        return federation.total(question, LossPolicy.RESTART), config
    fresh = federation.answers(question, LossPolicy.RESTART).by_site
    kept = KeptMoments(fresh, config.task)
    if parent:
        former = KeptMoments.load(parent.folder, parent.model.task)
        kept = former.updated(fresh, config.leaving, config.task)
    kept.save(folder.path)
    return kept.total(), config


def _check_sites(federation: Federation, config: RunConfig, parent: Parent) -> None:
    if there := [name for name in config.leaving if name in federation.sites]:
        raise ConfigError(
            f"'leaving' is {there[0]}, which takes part in this run; take its folder away, or "
            "leave it out of 'leaving'"
        )
    since = {
        name: site["since"]
        for name, site in parent.lineage(config, federation.sites)["sites"].items()
    }
    if changed := [name for name, what in since.items() if what == CHANGED]:
        _log.warning(
            "other data than in 'parent', which replace the former: %s", ", ".join(changed)
        )
    differ = [name for name, what in since.items() if what != SAME]
    if config.secure and 0 < len(differ) < _FEWEST_CHANGES:
        raise ConfigError(
            f"between this run and 'parent' only {differ[0]} differs, and the difference of their "
            "secure sums would be its share: let two sites or more join, leave or change at once"
        )


def _as_chosen(config: RunConfig, parent: Parent) -> RunConfig:
    """Return the configuration with the C that the parent has chosen, if the user chose none."""
    chosen = parent.metrics["training"].get("chosen")
    if chosen is None or config.c != type(config).model_fields["c"].default:
        return config
    update: dict[str, object] = {"c": (chosen["c"],)}
    if chosen.get("metadata_scale") is not None:
        update["metadata_scale"] = (chosen["metadata_scale"],)
    return config.model_copy(update=update)
