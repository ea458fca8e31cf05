"""The cross-check of a round: sites judge each other's changes, and some are out from then on."""

from collections.abc import Collection, Mapping

import numpy as np

from common.config.robust import CROSSCHECK
from common.finetune.crosscheck import PairCounts
from common.finetune.update import Update
from common.statistics.sums import S
from server.federation.federation import Federation
from server.federation.question import Answers, LossPolicy, Question
from server.strategies.crosscheck import LEAST_SKILL, Verdict, check_counts, judge
from server.strategies.robust import Defence, Tensors

MEMBERS = f"{CROSSCHECK}.members"
"""Round in which sites are left out."""

REASON = (
    f"sent a change that tells diagnoses apart at other sites less than {LEAST_SKILL:g} times as "
    "well as the median site's"
)


def cross_check(
    federation: Federation,
    defence: Defence,
    number: int,
    updates: Answers[Update],
    weights: Tensors,
    claims: Mapping[str, list[int]],
) -> Verdict:
    """Ask all sites about the weights that each site would have after a round.

    Parameters
    ----------
    number : of the round.
    updates : with weight, of the sites that trained.
    weights : those that the round began with, by name, of their shapes.
    claims : each site's training images of each class, by its own word.
    """
    defence.check(len(federation.sites))
    own = {site: np.array(counts, dtype=np.int64) for site, counts in claims.items()}
    n_classes = len(next(iter(own.values())))
    question = Question(
        CROSSCHECK,
        PairCounts.zero(len(updates.by_site), n_classes),
        defence.candidates(updates, weights),
        {"round": number, "candidates": len(updates.by_site)},
        check_answer=check_counts,
    )
    counts = federation.answers(question, LossPolicy.CONTINUE).by_site
    return judge(list(updates.by_site), own, counts, defence.hostile)


def leave_out(federation: Federation, suspects: Collection[str]) -> None:
    """Go on without sites that the others did not vouch for.

    Raises
    ------
    QuorumError
        If too few sites are left.
    """
    if present := set(suspects) & federation.sites.keys():
        federation.leave_out(present, MEMBERS, REASON)


def kept(answers: Answers[S], zero: S, sites: Collection[str]) -> Answers[S]:
    """Return the answers of ``sites`` alone."""
    by_site = {site: answer for site, answer in answers.by_site.items() if site in sites}
    return Answers(sum(by_site.values(), start=zero), list(by_site), by_site)
