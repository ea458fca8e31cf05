"""A secure sum is the exact sum of those who remained, whoever drops out when, or none."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import QuorumError, ReplyError
from common.wire.fixed_point import FRACTION_BITS
from common.wire.secure_sums import threshold
from server.federation.question import LossPolicy, Question
from tests.examples import examples
from tests.secure import Crowd, Pair, names


def oracle(shares: Mapping[str, Pair], members: list[str]) -> Pair:
    """Add in rational numbers what each site rounds."""
    size = len(shares[members[0]].real)
    steps = [
        sum(round(Fraction(shares[m].real[i]) * 2**FRACTION_BITS) for m in members)
        for i in range(size)
    ]
    whole = [sum(int(shares[m].whole[i]) for m in members) for i in range(size)]
    return Pair(np.array(steps) * 2.0**-FRACTION_BITS, np.array(whole))


def ask(
    crowd: Crowd, sums, question: str = "x", on_loss=LossPolicy.CONTINUE
) -> tuple[Pair, list[str]]:
    size = len(next(iter(crowd.shares.values())).real)
    return sums.sum(Question(question, Pair.zero(size)), on_loss)


def random_shares(count: int, size: int, seed: int) -> dict[str, Pair]:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-12, 6)
    return {
        name: Pair(scale * rng.standard_normal(size), rng.integers(-(2**50), 2**50, size))
        for name in names(count)
    }


@examples(15)
@given(data=st.data(), count=st.integers(3, 9), seed=st.integers(0, 2**32 - 1))
def test_the_sum_is_exact_over_those_who_remain(tmp_path_factory, data, count, seed):
    """Up to the threshold, in either phase of any of three rounds."""
    crowd = Crowd.of(tmp_path_factory.mktemp("crowd"), random_shares(count, 3, seed))
    left, spare = names(count), count - threshold(count)
    sums, number = crowd.begun(), 0
    for _ in range(3):
        silent = set(data.draw(st.permutations(left))[: data.draw(st.integers(0, spare))])
        spare -= len(silent)
        remain = [name for name in left if name not in silent]
        late = set(data.draw(st.permutations(remain))[: data.draw(st.integers(0, spare))])
        spare -= len(late)
        crowd.silent[number + 1] = silent
        number += 2 if silent else 1
        crowd.late[number] = late
        crowd.shares = random_shares(count, 3, seed + number)
        total, members = ask(crowd, sums, f"question {number}")
        assert members == remain
        expected = oracle(crowd.shares, remain)
        np.testing.assert_array_equal(total.real, expected.real)
        np.testing.assert_array_equal(total.whole, expected.whole)
        left = [name for name in remain if name not in late]


@pytest.mark.parametrize("phase", ["silent", "late"])
def test_beyond_the_threshold_the_round_fails_and_says_why(tmp_path, phase):
    crowd = Crowd.of(tmp_path, random_shares(7, 2, 0))
    sums = crowd.begun()
    getattr(crowd, phase)[1] = set(names(3))
    with pytest.raises(QuorumError, match=r"^4 (sites are left|of 7 sites opened).*5 must"):
        ask(crowd, sums)


def test_two_sites_have_no_secure_sum(tmp_path):
    with pytest.raises(QuorumError, match="secure sums need 3 sites or more, and there are 2"):
        Crowd.of(tmp_path, random_shares(2, 2, 0)).begun()


def test_where_sums_must_be_exact_nobody_is_asked_again(tmp_path):
    crowd = Crowd.of(tmp_path, random_shares(4, 2, 0))
    sums = crowd.begun()
    crowd.silent[1] = {"site_02"}
    assert ask(crowd, sums, on_loss=LossPolicy.RESTART)[1] == []
    # It was away for a moment: the same run, started again, goes on with all.
    crowd.gone.clear()
    total, members = ask(crowd, crowd.begun(), on_loss=LossPolicy.RESTART)
    assert members == names(4)
    np.testing.assert_array_equal(total.whole, oracle(crowd.shares, members).whole)


def test_a_coordinator_that_is_started_again_goes_on_without_those_it_had_lost(tmp_path):
    crowd = Crowd.of(tmp_path, random_shares(4, 2, 0))
    crowd.silent[1] = {"site_00"}
    ask(crowd, crowd.begun())
    crowd.gone.clear()
    again = crowd.begun()
    assert again.opened
    assert again.members == names(4)[1:]
    assert ask(crowd, again, "another")[1] == names(4)[1:]


def test_a_wrong_part_is_noticed(tmp_path, monkeypatch):
    crowd = Crowd.of(tmp_path, random_shares(4, 2, 0))
    sums = crowd.begun()
    crowd.late[1] = {"site_03"}  # so that its seed is made of the others' parts
    real = crowd.sites["site_01"].unmask

    def lying(number: int, envelopes: list[bytes]) -> dict[str, object]:
        keys = real(number, envelopes)
        return {**keys, "parts": [bytes(16)] * len(keys["parts"])}

    monkeypatch.setattr(crowd.sites["site_01"], "unmask", lying)
    with pytest.raises(QuorumError, match="the mask of site_03 cannot be opened"):
        ask(crowd, sums)


def test_a_share_that_is_too_large_shows_in_the_sum_and_names_no_site(tmp_path):
    crowd = Crowd.of(tmp_path, random_shares(4, 2, 0))
    crowd.shares["site_01"] = Pair(np.array([1e9, 0.0]), np.zeros(2, np.int64))
    with pytest.raises(ReplyError, match="1 sites have larger values"):
        ask(crowd, crowd.begun())
    assert not crowd.reasons
