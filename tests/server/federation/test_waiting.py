"""Answers that wait beyond what memory is for come back from disk as they were."""

import errno
import io

import numpy as np
import pytest

import client.app
from common.errors import DataError
from common.wire.messages import digest, pack, size
from server.federation import waiting
from server.federation.waiting import Waiting
from server.run.folder import MODEL_FILE
from tests.server.federation.test_federation import BackwardsGrid, train
from tests.sites import make_quick_sites


def content(number: int):
    rng = np.random.default_rng(number)
    arrays = {"x": rng.standard_normal((7, 5)), "n": rng.integers(0, 9, number), "none": np.ones(0)}
    return pack(arrays, {"site": f"s{number}"})


def test_what_waits_comes_back_and_no_more_than_the_bound_is_in_memory(monkeypatch):
    before = [digest(content(number)) for number in range(6)]
    monkeypatch.setattr(waiting, "MOST", 2 * size(content(6)))
    file = io.BytesIO()
    answers = Waiting(file)
    contents = [content(number) for number in range(6)]
    for number, each in enumerate(contents):
        answers.put(str(number), each)
    assert sum(map(size, contents)) < 3 * size(content(6))
    assert [digest(answers.take(str(number))) for number in reversed(range(6))] == before[::-1]
    assert "0" not in answers
    written = len(file.getvalue())
    answers.put("again", content(6))  # there is room in memory again
    assert len(file.getvalue()) == written > 0


def test_a_full_disk_is_one_line(monkeypatch):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(waiting, "MOST", 0)
    with pytest.raises(DataError, match="No space left on device"):
        Waiting(Full()).put("a", content(1))


def test_a_run_whose_answers_wait_on_disk_gives_the_same_model(
    synthetic_folder, tmp_path, monkeypatch
):
    config = make_quick_sites(synthetic_folder, tmp_path / "sites", 3)
    models = []
    for most in (waiting.MOST, 0):
        monkeypatch.setattr(waiting, "MOST", most)
        run = config.model_copy(update={"out": tmp_path / str(most)})
        train(run, client.app.app, BackwardsGrid)
        models.append((run.out / MODEL_FILE).read_bytes())
        assert not [file for file in run.out.iterdir() if file.name.startswith("tmp")]
    assert models[0] == models[1]
