"""Keyed tokens find what the perceptual hash finds, and without the secret they are noise."""

import numpy as np
import pytest

from common.data.duplicates import MOST_DIFFERENT, Hashes
from common.data.picture_tokens import DRAWS, PictureTokens, order, padded, shared, tokens
from common.errors import ReplyError

KEY, ROWS = b"k" * 32, 1_024


def hashes(n: int, seed: int) -> Hashes:
    """Draw hashes (n, 4)."""
    draw = np.random.default_rng(seed).integers(0, 2**64, (n, 4), dtype=np.uint64, endpoint=False)
    return np.asarray(draw)


def changed(pictures: Hashes, bits: int, seed: int = 5) -> Hashes:
    """Flip so many bits of each hash (n, 4)."""
    rng = np.random.default_rng(seed)
    flips = np.zeros((len(pictures), 256), dtype=np.uint8)
    for row in flips:
        row[rng.permutation(256)[:bits]] = 1
    return pictures ^ np.packbits(flips, axis=1).view(np.uint64)


@pytest.mark.parametrize("bits", [0, 8, 16])
def test_copies_are_found_in_their_rows_and_others_are_not(bits):
    one, other = hashes(200, 1), hashes(150, 2)
    other[30:80] = changed(one[100:150], bits)
    sent = padded(one, KEY, b"one", ROWS), padded(other, KEY, b"other", ROWS)
    rows = shared(*(each.tokens for each in sent))
    first, second = (order(own, ROWS)[rows[:, i]] for i, own in enumerate((b"one", b"other")))
    np.testing.assert_array_equal(np.sort(first), np.arange(100, 150))
    np.testing.assert_array_equal(first - 100, second - 30)
    assert bits <= MOST_DIFFERENT


def test_tokens_agree_as_often_as_drawn_bits_do():
    """The share of equal tokens is that of draws of 32 bits that miss the changed ones."""
    one, bits = hashes(200, 3), 12
    equal = (tokens(one, KEY) == tokens(changed(one, bits), KEY)).mean()
    missed = np.prod([(256 - bits - i) / (256 - i) for i in range(32)])
    assert equal == pytest.approx(missed, abs=0.02)


def test_an_answer_looks_the_same_whatever_the_pictures_are():
    """Many near-duplicates or none, one picture or many: no token occurs twice."""
    few = hashes(1, 1)
    near = changed(np.repeat(few, 300, axis=0), 2)
    for pictures in (few[:0], few, near, hashes(ROWS, 4)):
        found = padded(pictures, KEY, b"own", ROWS)
        assert found.tokens.shape == (ROWS, DRAWS)
        assert len(np.unique(found.tokens)) == ROWS * DRAWS
        # Each bit of a random number is set half of the time: 131,072 coins, six deviations.
        set_bits = np.unpackbits(found.tokens.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(set_bits - 0.5).max() < 6 * 0.5 / np.sqrt(ROWS * DRAWS)


def test_asking_again_tells_nothing_more_and_another_key_links_nothing():
    pictures = hashes(100, 1)
    first, again = (padded(pictures, KEY, b"own", ROWS) for _ in range(2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    other = padded(pictures, b"l" * 32, b"owm", ROWS)
    assert not np.isin(first.tokens, other.tokens).any()
    assert first.marks != other.marks


def test_added_tokens_are_those_of_both_sites_and_foreign_forms_are_refused():
    one, other = (padded(hashes(9, i), KEY, bytes([i]), ROWS) for i in (1, 2))
    total = PictureTokens.zero() + one + other
    np.testing.assert_array_equal(total.tokens, np.vstack([one.tokens, other.tokens]))
    assert len(total.marks) == 2
    zero = PictureTokens.zero()
    np.testing.assert_array_equal(zero.from_record(one.to_record()).tokens, one.tokens)
    good = one.to_record()
    for bad in (
        {**good, "tokens": one.tokens[:, :-1]},
        {**good, "tokens": np.array(3)},
        {**good, "tokens": one.tokens.astype(np.float64)},
        {**good, "marks": total.marks},
        {"marks": one.marks},
    ):
        with pytest.raises(ReplyError):
            zero.from_record(bad)
