"""Each site's answer comes back as it was, and counts take little memory meanwhile."""

import tracemalloc

import numpy as np

from common.answers.counts import AnswerCounts
from common.finetune.update import Update
from common.statistics.metrics import Evaluation
from common.task import HAM10000
from server.federation.kept_answers import KeptAnswers

SITES = [f"site_{number:02}" for number in range(20)]


def of_site(site: str) -> AnswerCounts:
    rng = np.random.default_rng(SITES.index(site))
    probabilities = rng.dirichlet(np.ones(HAM10000.n_classes), 200)
    return AnswerCounts.measure(HAM10000, rng.integers(0, HAM10000.n_classes, 200), probabilities)


def kept() -> KeptAnswers[AnswerCounts]:
    answers = KeptAnswers(AnswerCounts.zero(HAM10000))
    for site in reversed(SITES):
        answers.keep(site, of_site(site))
    return answers


def test_every_sites_counts_come_back():
    answers = kept()
    assert list(answers) == SITES[::-1]
    for site, answer in answers.items():
        for name, array in of_site(site).to_record().items():
            back = answer.to_record()[name]
            assert back.dtype == array.dtype
            assert np.array_equal(back, array), (site, name)


def test_counts_of_many_sites_take_a_tenth_of_their_bytes():
    bare = sum(array.nbytes for array in of_site(SITES[0]).to_record().values())
    kept()  # what is imported and cached on the way
    tracemalloc.start()
    answers = kept()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < len(answers) * bare / 10


def test_numbers_beside_counts_come_back_to_the_last_bit():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(7), 30)
    labels, predicted = rng.integers(0, 7, (2, 30))
    evaluation = Evaluation.measure(labels, predicted, probabilities)
    answers = KeptAnswers(Evaluation.zero(7))
    answers.keep("a", evaluation)
    for name, array in evaluation.to_record().items():
        assert answers["a"].to_record()[name].tobytes() == array.tobytes(), name


def test_what_is_no_count_is_kept_as_it_is():
    update = Update.of(5.0, 0.1, {"w": np.ones((2, 3), dtype=np.float32)})
    answers = KeptAnswers(Update.zero({"w": (2, 3)}))
    answers.keep("a", update)
    assert answers["a"] is update
