"""The journal gives back what was kept for the very same question, and nothing else."""

import itertools

import numpy as np
import pytest

from common.statistics.calibration import CalibrationSums
from common.statistics.sums import Nothing
from common.svm.objective import HingeSums
from server.run.journal import Journal, question_key

ARRAYS = {"weights": np.arange(6.0).reshape(1, 2, 3)}
QUESTION = ("hinge", {"a": "1", "b": "2"}, ARRAYS, {"map": "m"})


def test_a_key_tells_every_part_of_a_question():
    others = [
        ("moments", *QUESTION[1:]),
        ("hinge", {"a": "1"}, *QUESTION[2:]),
        ("hinge", {"a": "1", "b": "3"}, *QUESTION[2:]),
        (*QUESTION[:2], {"weights": ARRAYS["weights"] * (1 + 1e-15)}, {"map": "m"}),
        (*QUESTION[:2], {"weights": ARRAYS["weights"].reshape(1, 3, 2)}, {"map": "m"}),
        (*QUESTION[:2], {"other": ARRAYS["weights"]}, {"map": "m"}),
        (*QUESTION[:3], {"map": "n"}),
    ]
    keys = [question_key(*question) for question in (QUESTION, *others)]
    assert all(a != b for a, b in itertools.combinations(keys, 2))
    assert question_key(*QUESTION) == keys[0]


@pytest.fixture
def sums() -> HingeSums:
    rng = np.random.default_rng(0)
    return HingeSums(rng.random((1, 7)), rng.standard_normal((1, 7, 4)))


def test_sums_come_back_bit_for_bit_and_only_as_they_should_look(tmp_path, sums):
    journal = Journal(tmp_path / "journal")
    zero = HingeSums.zero((1, 7, 4))
    assert journal.recall("hinge-1", zero) is None
    journal.keep("hinge-1", sums)
    found = Journal(tmp_path / "journal").recall("hinge-1", zero)
    for name, array in sums.to_record().items():
        np.testing.assert_array_equal(found.to_record()[name], array)
    assert journal.recall("hinge-1", HingeSums.zero((1, 7, 5))) is None
    # Also a number, which has no shape.
    counts = CalibrationSums.zero(7) + CalibrationSums.zero(7)
    journal.keep("calibrate-1", counts)
    assert journal.recall("calibrate-1", counts) is not None
    journal.clear()
    assert not any(tmp_path.iterdir())


def test_a_damaged_file_is_as_good_as_none(tmp_path, sums):
    journal = Journal(tmp_path)
    journal.keep("hinge-1", sums)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert journal.recall("hinge-1", HingeSums.zero((1, 7, 4))) is None


def test_a_command_is_not_kept(tmp_path):
    Journal(tmp_path).keep("prepare-1", Nothing())
    assert not any(tmp_path.iterdir())
    assert Journal(tmp_path).recall("prepare-1", Nothing()) is None
