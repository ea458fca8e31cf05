"""Sites that differ vouch for each other, not for those whose labels are false."""

from collections.abc import Mapping

import numpy as np
import pytest

from common.errors import ReplyError
from common.finetune.crosscheck import PairCounts
from server.strategies.crosscheck import check_counts, judge

K, SITES, HOSTILE = 7, 9, 2
NAMES = [f"site_{i}" for i in range(SITES)]


def claims(seed: int = 0) -> dict[str, np.ndarray]:
    """Return training images by class of sites that are not alike."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([0.7] * SITES, K)
    return {name: np.rint(400 * shares[:, i]).astype(int) for i, name in enumerate(NAMES)}


def counted(liars: tuple[str, ...] = (), seed: int = 0) -> dict[str, PairCounts]:
    """Let each site score changes that know their own classes, those of ``liars`` upside down."""
    rng, own = np.random.default_rng(seed), claims()
    found = {}
    for name in NAMES:
        labels = np.repeat(np.arange(K), np.minimum(own[name], 50))
        each = []
        for other in NAMES:
            called = K - 1 - labels if other in liars else labels
            signal = np.eye(K)[called] * (own[other] >= 3)
            each.append(signal + 0.7 * rng.standard_normal(signal.shape))
        found[name] = PairCounts.measure(each, labels)
    return found


def judged(counts: Mapping[str, PairCounts], own: Mapping[str, np.ndarray] | None = None):
    return judge(NAMES, own or claims(), counts, HOSTILE)


def test_honest_sites_that_differ_vouch_for_each_other():
    verdict = judged(counted())
    assert not verdict.suspects
    assert not verdict.unjudged


@pytest.mark.parametrize("liars", [("site_0",), ("site_2", "site_5")])
def test_sites_whose_labels_are_false_are_found(liars):
    assert judged(counted(liars)).suspects == list(liars)


def test_what_liars_count_themselves_clears_and_condemns_nobody():
    liars = ("site_2", "site_5")
    counts = counted(liars)
    for name in liars:
        lie = counts[name].right.copy()
        images = np.diagonal(lie, axis1=1, axis2=2)[:, :, None]
        for i, other in enumerate(NAMES):
            lie[i] = images[i] if other in liars else np.where(np.eye(K), lie[i], 0)
        counts[name] = PairCounts(lie)
    assert judged(counts).suspects == list(liars)


def test_nobody_judges_itself():
    counts = counted(("site_2",))
    own = counts["site_2"].right.copy()
    own[2] = np.diagonal(own[2])[:, None]
    assert judged(counts) == judged({**counts, "site_2": PairCounts(own)})


def test_a_site_that_claims_one_class_is_not_heard_nor_out():
    one = claims() | {"site_3": np.array([0, 0, 0, 0, 0, 300, 0])}
    verdict = judged(counted(), one)
    assert verdict.unjudged == ["site_3"]
    assert not verdict.suspects


def test_too_few_that_count_judge_nobody():
    counts = dict(list(counted(("site_2",)).items())[: 2 * HOSTILE])
    verdict = judged(counts)
    assert not verdict.suspects
    assert not verdict.unjudged


def test_changes_that_tell_nothing_apart_yet_are_all_heard():
    nothing = {
        name: PairCounts.measure([np.zeros((70, K))] * SITES, np.arange(70) % K) for name in NAMES
    }
    verdict = judged(nothing)
    assert not verdict.suspects
    assert not verdict.unjudged


def test_counts_that_no_site_has_are_refused():
    good = counted()["site_0"]
    images = int(np.diagonal(good.right[0]).sum())
    check_counts(good, images)
    with pytest.raises(ReplyError, match="same images"):
        check_counts(good, images - 1)
    more, other = good.right.copy(), good.right.copy()
    present = int(np.argmax(np.diagonal(good.right[0])))
    more[0, present] += 1 + more[0, present, present]
    other[1, present, present] += 1
    for wrong in (more, other):
        with pytest.raises(ReplyError):
            check_counts(PairCounts(wrong), 10**6)
