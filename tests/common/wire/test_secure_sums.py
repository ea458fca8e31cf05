"""Fixed point loses what it says and no more; masks are the published primitives."""

import hashlib
import hmac
from fractions import Fraction

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ReplyError
from common.finetune.update import Update
from common.privacy.linear import NoisySum
from common.wire.fixed_point import FRACTION_BITS, decode, encode, length, schema
from common.wire.messages import pack
from common.wire.secure_sums import (
    SumRound,
    add_mask,
    combine,
    context,
    derive,
    question_digest,
    split,
    threshold,
)
from tests.secure import Pair

MOST = (2**63 - 1) // 4 * 2.0**-FRACTION_BITS


def summed(parts: list[np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.sum(parts, axis=0, dtype=np.uint64)


@given(
    st.lists(
        st.tuples(
            st.floats(-MOST * 0.999, MOST * 0.999),
            st.integers(-((2**63 - 1) // 4), (2**63 - 1) // 4),
        ),
        min_size=4,
        max_size=4,
    )
)
def test_a_sum_is_that_of_the_nearest_steps_whatever_the_sites_add(rows):
    shares = [Pair(np.array([real]), np.array([whole])) for real, whole in rows]
    total = decode(summed([encode(share, 4) for share in shares]), Pair.zero(1), 4)
    steps = sum(round(Fraction(real) * 2**FRACTION_BITS) for real, _ in rows)
    assert total.real[0] == float(Fraction(steps)) * 2.0**-FRACTION_BITS
    assert total.whole[0] == sum(whole for _, whole in rows)
    exact = sum(Fraction(real) for real, _ in rows)
    # Half a step for each site, and what a double can hold.
    assert abs(Fraction(total.real[0]) - exact) <= 2 * Fraction(1, 2**FRACTION_BITS) + abs(
        exact
    ) * Fraction(1, 2**52)


@pytest.mark.parametrize(
    ("real", "whole"),
    [
        (MOST * 1.001, 0),
        (-1e290, 0),
        (1e300, 0),
        (np.nan, 0),
        (np.inf, 0),
        (0.0, 2**61),
        (0.0, -(2**63)),
    ],
)
def test_what_does_not_fit_shows_in_the_sum_alone(real, whole):
    """A site that refused would be known by what its records are."""
    large = encode(Pair(np.array([real]), np.array([whole])), 4)
    small = encode(Pair(np.array([1.0]), np.array([1])), 4)
    assert large.shape == small.shape
    with pytest.raises(ReplyError, match="2 sites have larger values"):
        decode(summed([large, small, small, large]), Pair.zero(1), 4)
    assert decode(summed([small, small]), Pair.zero(1), 4).whole == 2


def test_noisy_sums_pass_as_they_are():
    values = np.array([[-3, 2**40], [7, 0]])
    shares = [encode(NoisySum(values), 3) for _ in range(3)]
    np.testing.assert_array_equal(decode(summed(shares), NoisySum.zero(2, 2), 3).values, 3 * values)


NARROW = {"head.weight": (2, 3), "exp_avg_sq/head.weight": (2, 3), "step/head.weight": ()}


@given(
    st.integers(0, 2**32),
    st.lists(st.floats(1e-3, 300), min_size=3, max_size=9),
    st.sampled_from([1e-6, 1e-2, 15.9]),
)
def test_changes_go_two_to_a_value_in_steps_that_the_round_decides(seed, weights, size):
    """However they are signed, neither of a value's two sums becomes a part of the other."""
    rng, sites, most = np.random.default_rng(seed), len(weights), sum(weights)
    # Mean squares are far smaller, as are their steps.
    sizes = {n: size * (0.01 if n.startswith("exp_avg_sq/") else 1) for n in NARROW}
    changes = [
        {n: np.asarray(sizes[n] * rng.uniform(-1, 1, s), np.float32) for n, s in NARROW.items()}
        for _ in weights
    ]
    updates = [Update.of(w, 1.0, c, most) for w, c in zip(weights, changes, strict=True)]
    zero = Update.zero(NARROW, most)
    vectors = [encode(update, sites) for update in updates]
    # Six narrow numbers make three values; squares, weight, loss and steps have one each, and
    # the sites that cut off.
    assert {len(vector) for vector in vectors} == {3 + 6 + 3 + 1} == {length(zero)}
    found = decode(summed(vectors), zero, sites)
    assert found.weight == pytest.approx(most)
    # Half a step for each site, a step being a 2^30th of 16 times the weights and a little more.
    off = sites / 2 * 16 * (most + 2 * sites) * 2.0**-29
    for name in NARROW:
        exact = sum(update.tensors[name].astype(float) for update in updates)
        np.testing.assert_allclose(found.tensors[name], exact, rtol=1e-6, atol=off)
    assert {schema(update, sites) for update in updates} == {schema(zero, sites)}


def test_mean_squares_are_finer_than_adamws_smallest_divisor():
    zero = Update.zero(NARROW, 400.0)
    tiny = Update.of(40.0, 1.0, {n: np.full(s, 1e-15, np.float32) for n, s in NARROW.items()}, 400)
    found = decode(summed([encode(tiny, 10) for _ in range(10)]), zero, 10).mean()
    error = np.abs(found["exp_avg_sq/head.weight"] - np.float32(1e-15)).max()
    assert np.sqrt(error) < 1e-8


@pytest.mark.parametrize("large", [16.01, -1e30, np.nan])
def test_a_change_that_does_not_fit_shows_in_the_sum_alone(large):
    tensors = {n: np.ones(s, np.float32) for n, s in NARROW.items()}
    fits = Update.of(40.0, 1.0, tensors, 120.0)
    spoiled = {**tensors, "head.weight": np.full((2, 3), large, np.float32)}
    odd = Update.of(40.0, 1.0, spoiled, 120.0)
    with pytest.raises(ReplyError, match="1 sites have larger values"):
        decode(summed([encode(u, 3) for u in (fits, odd, fits)]), Update.zero(NARROW, 120.0), 3)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(ReplyError, match="the sum has 4 values, expected 5"):
        decode(np.zeros(4, np.uint64), Pair.zero(2), 3)


@pytest.mark.parametrize("size", [0, 1, 5, 65_536, 65_537, 200_001])
def test_masks_are_aes_in_counter_mode(size):
    """Against another library."""
    key, start = bytes(range(32)), np.arange(size, dtype=np.uint64)
    vector = start.copy()
    add_mask(vector, key, 1)
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(8 * size))
    np.testing.assert_array_equal(vector - start, np.frombuffer(stream, "<u8"))
    add_mask(vector, key, -1)
    np.testing.assert_array_equal(vector, start)


def test_keys_are_derived_by_hkdf():
    """RFC 5869, sections 2.2 and 2.3, by hand."""
    info = b"mask\0context"
    extracted = hmac.digest(bytes(32), b"secret", "sha256")
    expected = hmac.digest(extracted, info + b"\x01", "sha256")
    assert derive(b"secret", "mask", b"context") == expected


def test_masks_are_bound_to_run_round_members_keys_question_and_schema():
    asked, keys, question = (
        SumRound("aa", 1, ["a", "b"]),
        [b"1", b"2"],
        hashlib.sha256(b"q").digest(),
    )
    plain = schema(Pair.zero(2), 2)
    contexts = {
        context(asked, keys, question, plain),
        context(asked._replace(run="ab"), keys, question, plain),
        context(asked._replace(number=2), keys, question, plain),
        context(asked._replace(members=["a", "c"]), keys, question, plain),
        context(asked, [b"1", b"3"], question, plain),
        context(asked, keys, hashlib.sha256(b"r").digest(), plain),
        context(asked, keys, question, schema(Pair.zero(3), 2)),
    }
    assert len(contexts) == 7


def test_a_question_is_told_from_others_but_not_by_its_round():
    content = pack({"w": np.zeros(3)}, {"question": "hinge", "map": "m"})
    first = question_digest(content)
    assert question_digest(SumRound("aa", 5, ["a"]).put_into(content)) == first
    others = [
        pack({"w": np.ones(3)}, {"question": "hinge", "map": "m"}),
        pack({"w": np.zeros((3, 1))}, {"question": "hinge", "map": "m"}),
        pack({"w": np.zeros(3)}, {"question": "hinge", "map": "n"}),
    ]
    assert first not in map(question_digest, others)


def field_product(a: int, b: int) -> int:
    """Multiply in GF(2^128) modulo x^128 + x^7 + x^2 + x + 1, bit by bit."""
    product = 0
    for bit in range(128):
        product ^= (a << bit) if b >> bit & 1 else 0
    for bit in range(255, 127, -1):
        if product >> bit & 1:
            product ^= (1 << 128 | 0b10000111) << bit - 128
    return product


def field_inverse(a: int) -> int:
    """Raise to 2^128 - 2."""
    result = 1
    for _ in range(127):
        a = field_product(a, a)
        result = field_product(result, a)
    return result


def test_seeds_are_found_again_as_slow_interpolation_finds_them():
    seed = bytes(range(16))
    parts = dict(enumerate(split(seed, 3, 5)))
    chosen = {place: parts[place] for place in (0, 2, 4)}
    value = 0
    for i, part in chosen.items():
        term = int.from_bytes(part)
        for j in chosen.keys() - {i}:
            ratio = field_product(j + 1, field_inverse((i + 1) ^ (j + 1)))
            term = field_product(term, ratio)
        value ^= term
    assert value.to_bytes(16) == combine(chosen) == combine(parts) == seed
    assert combine({place: parts[place] for place in (0, 2)}) != seed


def test_thresholds_are_above_two_thirds_and_three():
    assert [threshold(n) for n in (3, 4, 5, 6, 9, 10, 100)] == [3, 3, 4, 5, 7, 7, 67]
