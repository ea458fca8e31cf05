"""Whatever goes wrong, a run ends with the exact model of the sites that were in it, or says why.

Plans of faults are drawn, run, and judged by plain loops over the sites: for an SVM by a run over
the sites that are left alone, else by the very rounds of the run, computed again without a grid.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings

import client.methods.finetune
import client.methods.private
import server.methods.finetune
import server.methods.private
from client.egress import questions
from client.open_site import site_folders
from client.privacy.ledger import SEAL_FOLDER, Ledger
from client.privacy.paid_step import PaidStep
from client.site import Site
from common.config.run import RunConfig
from common.networks.network import HEAD
from common.privacy.linear import plan as privacy_plan
from common.statistics.sums import Sums
from common.wire.fixed_point import decode, encode
from server.federation.federation import Federation
from server.federation.question import Answers, LossPolicy, Question
from server.federation.site_info import SiteInfo
from server.run.checkpoint import Checkpoint
from server.run.folder import METRICS_FILE, MODEL_FILE, RunFolder
from server.run.journal import Journal
from simulations.runtimes.experiment import rounds, simulate
from tests.examples import examples
from tests.faults import Fault, Plan, World, plans, world_of
from tests.finetuning import dealt, quick, small_dataset, spread
from tests.sites import make_quick_sites, with_changes

# A plan is small as it is: what failed is said, not made smaller. The plans that are written down
# hold every kind of fault for each property.
SOME = settings(examples(1), phases=[Phase.explicit, Phase.reuse, Phase.generate])

REASONS = {
    "crash": "failed: power cut",
    "gone": "is no longer connected",
    "late": "gave no answer within 1 s",
    "damaged": "damaged on the way, or is to another question",
    "stale": "damaged on the way, or is to another question",
}

Arrays = dict[str, np.ndarray]
Ask = Callable[[Site, str, Arrays, dict[str, Any]], Sums]


@dataclass
class Asked:
    """A question that was put to the sites, and who is in its sum."""

    question: str
    number: Any
    sites: list[str]
    before: dict[str, SiteInfo]
    after: dict[str, SiteInfo]


@dataclass
class Diary:
    """The questions of a run whose answers it kept, over all its lives.

    Attributes
    ----------
    kept : how many of them are on disk.
    """

    asked: list[Asked] = field(default_factory=list)
    kept: int = 0

    def forget(self) -> None:
        """Forget what the coordinator forgot as it was killed."""
        del self.asked[self.kept :]

    @classmethod
    @contextmanager
    def written(cls) -> Iterator["Diary"]:
        diary = cls()
        ask = Federation._ask

        def wrapped(self: Federation, question: Question[Any], *args: Any, **keep: bool) -> Any:
            before = dict(self.sites)
            found = ask(self, question, *args, **keep)
            after = dict(self.sites)
            diary.asked.append(
                Asked(question.name, number_of(question), found.sites, before, after)
            )
            return found

        def keeping(function: Callable[..., None]) -> Callable[..., None]:
            def keep(*args: Any) -> None:
                function(*args)
                diary.kept = len(diary.asked)

            return keep

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Federation, "_ask", wrapped)
            for owner, name in ((Journal, "keep"), (Checkpoint, "save"), (RunFolder, "finish")):
                patch.setattr(owner, name, keeping(getattr(owner, name)))
            yield diary


def number_of(question: Question[Any]) -> Any:
    return question.values.get("round", question.values.get("step"))


class Again:
    """In a federation's place: asks the sites of a diary in its order, in a plain loop."""

    def __init__(self, diary: Diary, config: RunConfig, ask: Ask) -> None:
        self._left, self._config, self._ask = iter(diary.asked), config, ask
        self.sites = diary.asked[0].before
        self._sites = {f.name: Site(f, config) for f in site_folders(config.sites)}

    def take_back(self) -> bool:
        return False

    def total(self, question: Question[Any], on_loss: LossPolicy) -> Any:
        return self.answers(question, on_loss).total

    def added(self, question: Question[Any], on_loss: LossPolicy) -> Answers[Any]:
        return self.answers(question, on_loss)

    def answers(self, question: Question[Any], on_loss: LossPolicy) -> Answers[Any]:
        asked, zero = next(self._left), question.zero
        assert (asked.question, asked.number) == (question.name, number_of(question))
        self.sites = asked.after
        answers = {
            name: self._ask(
                self._sites[name], question.name, dict(question.arrays), dict(question.values)
            )
            for name in sorted(asked.sites)
        }
        if self._config.secure:
            vectors = [encode(answer, len(answers)) for answer in answers.values()]
            total = decode(np.sum(vectors, axis=0, dtype=np.uint64), zero, len(vectors))
        else:
            answers = {n: zero.from_record(a.to_record()) for n, a in answers.items()}
            total = zero
            for answer in answers.values():
                total = total + answer
        return Answers(total, asked.sites, {} if self._config.secure else answers)


def assert_computed_again(train: Any, diary: Diary, config: RunConfig, ask: Ask) -> None:
    """Check that a run's rounds, asked again in a plain loop, give its model bit for bit."""
    again = config.model_copy(update={"out": config.out.with_name("again")})
    result = train(Again(diary, again, ask), again, RunFolder(again))
    result.model.save(again.out / MODEL_FILE)
    assert (again.out / MODEL_FILE).read_bytes() == (config.out / MODEL_FILE).read_bytes()


def blamed(run: RunConfig) -> dict[str, str]:
    """Return which sites a run says failed, and why, first of all."""
    found: dict[str, str] = {}
    for entry in rounds(run.out):
        for who, reason in entry["faults"].items():
            name = who.removeprefix("node ")
            found.setdefault(f"site_{int(name) - 1:02}" if name.isdigit() else who, reason)
    return found


def end(world: World, between: Callable[[], None], spare: int, healed: int) -> bool:
    """Run a plan to its end, and again without faults if it failed; tell if there is a model.

    Parameters
    ----------
    spare : how many sites may fail without the run failing.
    healed : how many may fail without it failing for good.
    """
    failure = world.run(between)
    if failure is not None:
        assert "\n" not in failure
        assert not (world.config.out / MODEL_FILE).exists()
        assert len(world.harmed) > spare, failure
        between()
        world.heal()
        failure = world.run(between)
        assert failure is None or len(world.harmed) > healed, failure
    for name, reason in blamed(world.config).items():
        # A sum that was opened over all is not opened over fewer, and whoever says so is right.
        if "summed over other sites before" not in reason:
            kinds = [kind.split()[0] for kind in world.harmed[name]]
            assert any(REASONS[kind] in reason for kind in kinds), reason
    return failure is None


@pytest.fixture(scope="module")
def hospitals(synthetic_folder, tmp_path_factory) -> Callable[[int], RunConfig]:
    """Return sites with cached features, as many as asked for."""

    @cache
    def make(sites: int) -> RunConfig:
        folder = tmp_path_factory.mktemp(f"sites{sites}")
        config = make_quick_sites(synthetic_folder, folder, sites)
        changes = {"c": (1e-4,), "tolerance": 1e-6, "timeout": 1.0, "quorum": 2}
        return config.model_copy(update=changes)

    return make


@pytest.fixture(scope="module")
def alone(hospitals, tmp_path_factory) -> Callable[[bool, Collection[str]], bytes]:
    """Return the model of a run over some of the sites, in which nothing goes wrong."""

    @cache
    def train(secure: bool, names: frozenset[str]) -> bytes:
        config, folder = hospitals(4 if secure else 3), tmp_path_factory.mktemp("alone")
        (folder / "sites").mkdir()
        for site in site_folders(config.sites):
            if site.name in names:
                (folder / "sites" / site.name).symlink_to(site)
        changes = {"sites": folder / "sites", "out": folder / "run", "secure": secure}
        simulate(config.model_copy(update=changes))
        return (folder / "run" / MODEL_FILE).read_bytes()

    return lambda secure, names: train(secure, frozenset(names))


@pytest.fixture(scope="module")
def check_svm(hospitals, alone, tmp_path_factory) -> Callable[[Plan, bool], None]:
    """Return what trains an SVM under a plan, and compares it."""

    def check(plan: Plan, secure: bool) -> None:
        out = tmp_path_factory.mktemp("svm") / "run"
        config = hospitals(4 if secure else 3).model_copy(update={"out": out, "secure": secure})
        with world_of(config, plan) as world:
            # An exact SVM whose sums were opened waits for a site that is gone.
            finished = end(world, lambda: None, spare=0 if secure else 1, healed=1 if secure else 3)
        if finished:
            names = json.loads((out / METRICS_FILE).read_text())["data"]["sites"]
            assert (out / MODEL_FILE).read_bytes() == alone(secure, names)

    return check


@SOME
@example(Plan((Fault(0, 1, "damaged answer", 4), Fault(1, 4, "twice"))))
@example(Plan((Fault(2, 5, "stale", 1), Fault(1, 3, "late")), kills=(9,)))
@example(Plan((Fault(0, 2, "gone"), Fault(1, 6, "damaged question", 5)), kills=(20,)))
@example(Plan((Fault(2, 4, "crash during", 1), Fault(0, 9, "crash after"))))
@given(plan=plans(3, 28))
def test_an_svm_is_that_of_the_sites_that_are_left(check_svm, plan):
    check_svm(plan, secure=False)


@SOME
@example(Plan((Fault(1, 3, "crash after"),)))
@example(Plan((Fault(1, 12, "crash during", 2),), kills=(40,)))
@example(Plan((Fault(0, 5, "twice"), Fault(2, 9, "damaged answer", 2))))
@example(Plan((Fault(3, 8, "late"), Fault(1, 20, "stale", 1))))
@example(Plan((Fault(2, 2, "crash before"), Fault(0, 30, "damaged question", 4))))
@given(plan=plans(4, 56))
def test_so_is_a_secure_one_which_waits_for_a_site_rather_than_tell_its_share(check_svm, plan):
    check_svm(plan, secure=True)


def private_config(hospitals: Any, out: Path, secure: bool) -> RunConfig:
    base = hospitals(4 if secure else 3)
    for folder in site_folders(base.sites):
        shutil.rmtree(folder / "ledger", ignore_errors=True)
    how = {"secure": True, "trust": "distributed", "honest": 3} if secure else {}
    changes = {"method": "private", "epsilon": 4.0, "steps": 4, "components": 16}
    return with_changes(base, {**changes, **how, "out": out})


@contextmanager
def answers_made() -> Iterator[dict[tuple[str, int], Any]]:
    """Collect what sites answered to paid questions; a second answer must be the very first."""
    made: dict[tuple[str, int], Any] = {}
    paid = PaidStep.answer

    def collecting(self: PaidStep, site: Site, compute: Any) -> Any:
        answer = paid(self, site, compute)
        first = made.setdefault((site.name, self.number), answer)
        np.testing.assert_array_equal(answer.values, first.values)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PaidStep, "answer", collecting)
        yield made


def assert_paid_once(config: RunConfig, made: Collection[tuple[str, int]], finished: bool) -> None:
    """Check that a site whose answers were made has spent the run's budget, once."""
    for folder in site_folders(config.sites):
        steps = {number for name, number in made if name == folder.name}
        if not (folder / "ledger").exists():
            assert not steps
            continue
        account = Ledger(folder / "ledger", folder / "ledger" / SEAL_FOLDER).account()
        costs = list(privacy_plan(config))
        assert account.history == costs[: len(account.entries)]
        if steps:
            assert account.history == costs
            assert account.spent == pytest.approx(config.epsilon, abs=0.01)
        if finished and steps == set(range(config.steps + 1)):
            assert account.settled == {entry.number for entry in account.entries}


@pytest.fixture(scope="module")
def check_private(hospitals, tmp_path_factory) -> Callable[[Plan, bool], None]:
    """Return what trains privately under a plan, and compares model and ledgers."""

    def check(plan: Plan, secure: bool) -> None:
        folder = tmp_path_factory.mktemp("private")
        config = private_config(hospitals, folder / "run", secure)
        with Diary.written() as diary, answers_made() as made, world_of(config, plan) as world:
            finished = end(world, diary.forget, spare=0 if secure else 1, healed=1)
        assert_paid_once(config, made, finished)

        def ask(site: Site, question: str, arrays: Arrays, values: dict[str, Any]) -> Sums:
            if question == "evaluate":
                return client.methods.private.answer(
                    site, questions.Question(2, "", question, arrays, values)
                )
            return made[site.name, values["step"]]

        if finished:
            assert_computed_again(server.methods.private.train, diary, config, ask)

    return check


@SOME
@example(Plan((Fault(1, 3, "crash during", 3),), kills=(14, 15)))
@example(Plan((Fault(0, 2, "damaged question"), Fault(2, 4, "twice", 1))))
@example(Plan((Fault(1, 1, "late"), Fault(0, 5, "stale"))))
@example(Plan((Fault(2, 3, "damaged answer"), Fault(1, 5, "crash before"))))
@example(Plan((Fault(0, 4, "crash after"),), kills=(6,)))
@given(plan=plans(3, 8))
def test_a_private_run_adds_what_was_paid_for_once(check_private, plan):
    check_private(plan, secure=False)


@SOME
@example(Plan((Fault(1, 5, "crash before"),), kills=(60,)))
@example(Plan((Fault(1, 0, "late"),), kills=(93, 87)))
@example(Plan((Fault(0, 4, "damaged question", 1), Fault(2, 7, "twice"))))
@example(Plan((Fault(3, 6, "crash during", 2), Fault(1, 9, "stale", 3))))
@example(Plan((Fault(2, 8, "crash after"), Fault(0, 11, "damaged answer", 5))))
@given(plan=plans(4, 16))
def test_so_does_one_whose_noise_is_shared(check_private, plan):
    check_private(plan, secure=True)


@pytest.fixture(scope="module")
def clinics(synthetic_folder, network_file, tmp_path_factory) -> Callable[[int], RunConfig]:
    """Return sites that fine-tune a small network's head, as many as asked for."""

    @cache
    def make(sites: int) -> RunConfig:
        folder = tmp_path_factory.mktemp(f"tuning{sites}")
        spread(small_dataset(synthetic_folder), folder, dealt(sites))
        settings = {"stages": HEAD, "rounds": 3, "moments_every": 1}
        return quick(folder, network_file, **settings, timeout=1.0, quorum=2)

    return make


@pytest.fixture(scope="module")
def check_finetune(clinics, tmp_path_factory) -> Callable[[Plan, bool], None]:
    """Return what fine-tunes under a plan, and compares the model."""

    def check(plan: Plan, secure: bool) -> None:
        out = tmp_path_factory.mktemp("finetune") / "run"
        config = clinics(4 if secure else 3).model_copy(update={"out": out, "secure": secure})
        with Diary.written() as diary, world_of(config, plan) as world:
            spare, healed = (0, 1) if secure else (1, 3)
            finished = end(world, diary.forget, spare, healed)
        sent: dict[Any, Arrays] = {}

        def ask(site: Site, question: str, arrays: Arrays, values: dict[str, Any]) -> Sums:
            if "scores" in values:  # weights go with the first question about them only
                arrays = sent.setdefault(values["scores"], arrays) | arrays
            return client.methods.finetune.answer(
                site, questions.Question(2, "", question, arrays, values)
            )

        if finished:
            assert_computed_again(server.methods.finetune.train, diary, config, ask)

    return check


@SOME
@example(Plan((Fault(0, 3, "twice", 1), Fault(1, 2, "damaged question", 3))))
@example(Plan((Fault(2, 3, "late"), Fault(0, 4, "stale", 5)), kills=(17,)))
@example(Plan((Fault(1, 3, "crash before"), Fault(0, 5, "damaged answer", 2))))
@example(Plan((Fault(2, 2, "crash during", 1), Fault(1, 6, "crash after")), kills=(11,)))
@given(plan=plans(3, 9))
def test_fine_tuning_averages_those_who_answered(check_finetune, plan):
    check_finetune(plan, secure=False)


@pytest.mark.parametrize(
    ("kind", "every"), [("crash during", 1), ("gone", 1), ("late", 1), ("gone", 2)]
)
def test_a_site_that_was_away_is_let_in_where_moments_are_averaged(clinics, tmp_path, kind, every):
    config = clinics(3).model_copy(update={"out": tmp_path / "run", "moments_every": every})
    fault = Fault(1, 2, kind)  # the first round of training
    with world_of(config, Plan((fault,))) as world:
        assert world.run() is None
    assert world.struck == [fault]
    names = [folder.name for folder in world.folders]
    trained = [entry["answered"] for entry in rounds(config.out) if entry["question"] == "train"]
    left = [names[0], names[2]]
    assert trained == [*[left] * every, *[names] * (3 - every)]
    assert json.loads((config.out / METRICS_FILE).read_text())["data"]["left_out"] == {}


@SOME
@example(Plan((Fault(2, 6, "crash after"),), kills=(49,)))
@example(Plan((Fault(3, 1, "damaged question", 96),), kills=(66,)))
@example(Plan((Fault(2, 4, "damaged answer"),), kills=(22,)))
@example(Plan((Fault(3, 0, "damaged question"), Fault(0, 1, "crash during"))))
@example(Plan((Fault(0, 4, "crash before"), Fault(2, 7, "twice", 1))))
@example(Plan((Fault(1, 5, "late"), Fault(3, 9, "stale", 2))))
@given(plan=plans(4, 16))
def test_so_does_a_secure_one(check_finetune, plan):
    check_finetune(plan, secure=True)
