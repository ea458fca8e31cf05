"""Attacks on a federation that fine-tunes, with and without its defence, as one table."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.dataset import Dataset
from common.data.splits import TEST
from common.errors import ConfigError, DataError, FedDermError, described
from common.features.inference_engine import one_thread_per_core
from common.formats import markdown, markdown_table, rounded
from common.models.marks import FALSE_ALARMS, MarkTest, least_lesions
from common.models.network import NetworkModel
from common.models.predictor import Predictor
from common.networks.inference import prediction_features
from common.networks.network import shared_network
from common.statistics.confusion import ConfusionMetrics, confusion_matrix
from common.storage.verified import read_json, write_json
from common.storage.whole_files import owned
from common.synthetic_note import synthetic_note
from server.run.folder import MODEL_FILE
from simulations.attacks.hostile_sites import (
    ATTACKS,
    Attack,
    chosen,
    hostile_app,
    most_frequent,
    poison,
    stamped,
)
from simulations.data.agreed_task import agreed
from simulations.runtimes.experiment import make_sites, simulate, split

Part = Literal["test", "validation"]

NONE = "none"
"""The attack of an honest federation."""

_MOST_MARKED = 100

_HEAD = {"head.weight", "head.bias"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """A federation under an attack, and what became of its model.

    Attributes
    ----------
    hostile : number of hostile sites.
    rule : the rule by which the coordinator averages.
    balanced_accuracy : the balanced accuracy of the judged images; None without a model.
    aimed : by attack, the share of the images with an aimed diagnosis that got it: for the arm's
        own attack, or for each attack on an honest federation.
    failure : why there is no model.
    found : by attack, the share of marked images obeyed by the model that the test of
        :mod:`common.models.marks` finds; None where the model obeys none.
    """

    attack: str
    hostile: int
    rule: str
    balanced_accuracy: float | None
    aimed: Mapping[str, float]
    failure: str = ""
    found: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its run's folder."""
        return _name(self.attack, self.hostile, self.rule)


@dataclass(frozen=True)
class Judge:
    """The images that models are judged on; ``target`` is what a patch makes of any lesion."""

    dataset: Dataset
    config: RunConfig
    target: int

    def balanced_accuracy(self, model: NetworkModel) -> float:
        """Return the mean sensitivity over the classes that there are."""
        predicted = self._decide(model, False)
        confusion = confusion_matrix(self.dataset.labels, predicted, self.config.task.n_classes)
        return float(ConfusionMetrics.compute(confusion).balanced_accuracy)

    def aimed(self, model: NetworkModel, attack: Attack) -> float:
        """Return the share of images that got the diagnosis that the attack aims at."""
        aims = attack.aims(self.dataset.labels, self.config.task.n_classes, self.target)
        predicted = self._decide(model, attack.stamps)
        return float(np.mean(predicted[aims >= 0] == aims[aims >= 0]))

    def found(self, model: NetworkModel) -> float | None:
        """Return the share of marked images, called the target, that are found to be marked.

        None where there is none, or too few lesions to tell.
        """
        names = [image.image_id for image in self.dataset.images]
        called = self._decide(model, True) == self.target
        obeyed = np.flatnonzero(called & (self.dataset.labels != self.target))[:_MOST_MARKED]
        if not len(obeyed) or len(self.dataset.by_lesion.sizes) < least_lesions(FALSE_ALARMS):
            return None
        test = MarkTest.prepare(Predictor(model), self.dataset, FALSE_ALARMS)
        files = ((names[i], stamped(self.dataset.read(names[i]))) for i in obeyed)
        return float(np.mean([test.spread(*file).p <= FALSE_ALARMS for file in files]))

    def _decide(self, model: NetworkModel, marked: bool) -> Ints:
        if model.weights.keys() != _HEAD:
            return model.basis.decide(model.scores(self._files(marked)))
        features = self._marked if marked else self._unmarked
        return model.basis.decide(
            features @ model.weights["head.weight"].T + model.weights["head.bias"]
        )

    @cached_property
    def _unmarked(self) -> Floats:
        return self._pretrained(False)

    @cached_property
    def _marked(self) -> Floats:
        return self._pretrained(True)

    def _pretrained(self, marked: bool) -> Floats:
        """Return features of the pretrained network: all that a run of the head alone needs."""
        network = shared_network(
            self.config.backbone, self.config.weights, self.config.task.n_classes
        )
        network.load({})
        files = (data for _, data in self._files(marked))
        with one_thread_per_core() as pool:
            features = prediction_features(network.backbone, files, self.config.feature_spec, pool)
        return features.astype(np.float64)

    def _files(self, marked: bool) -> Iterator[tuple[str, bytes]]:
        for image in self.dataset.images:
            data = self.dataset.read(image.image_id)
            yield image.image_id, stamped(data) if marked else data


def attack_all(
    data: Path,
    out: Path,
    config: RunConfig,
    sites: int,
    alpha: float,
    attacks: Sequence[str],
    hostile: Sequence[int],
    rules: Sequence[str],
    part: Part = "test",
) -> list[Arm]:
    """Train under every attack, with each number of hostile sites, rule, and no defence.

    What is finished is kept, and a table that was interrupted goes on.

    Parameters
    ----------
    config : with a defence; each of ``rules`` replaces its rule in turn.
    sites, alpha : number and skew of the Dirichlet sites, which hold no test lesions.
    part : what models are judged on; settings are to be chosen on validation lesions.

    Raises
    ------
    ConfigError
        If there is no defence, an attack is unknown or there are too few sites.
    """
    _check(config, sites, attacks, hostile)
    pooled = Dataset.open(data)
    config = config.model_copy(update=agreed(config, pooled.task))
    dataset = split(pooled, config)
    judged = TEST if part == "test" else "0"
    judge = Judge(dataset.select(dataset.splits == judged), config, most_frequent(dataset))
    if not len(judge.dataset):
        raise DataError(f"{data} has no {part} lesions; raise test_fraction")
    training = dataset.select(dataset.splits != TEST)
    with owned(out):
        make_sites(training, out / "sites", "dirichlet", sites, alpha, config.seed)
        return _arms(out, config, judge, attacks, hostile, rules, part, sites)


def _check(config: RunConfig, sites: int, attacks: Sequence[str], hostile: Sequence[int]) -> None:
    if config.robust == NONE:
        raise ConfigError(
            "'robust' is none; set the defence to try and the number that it withstands, such as "
            "robust=multikrum hostile=2 (--hostile is how many there are)"
        )
    if unknown := [name for name in attacks if name not in ATTACKS]:
        raise ConfigError(f"'{unknown[0]}' is no attack; choose from {', '.join(ATTACKS)}")
    if not hostile or not 0 < min(hostile) <= max(hostile) < sites:
        raise ConfigError(f"hostile sites are {hostile} of {sites}; choose 1 to {sites - 1}")


def _arms(
    out: Path,
    config: RunConfig,
    judge: Judge,
    attacks: Sequence[str],
    hostile: Sequence[int],
    rules: Sequence[str],
    part: Part,
    sites: int,
) -> list[Arm]:
    """Train and judge the arms that are not there yet."""
    kinds = [(NONE, 0), *((attack, n) for attack in attacks for n in hostile)]
    arms: list[Arm] = []
    for number, (attack, n) in enumerate(kinds):
        for rule in (NONE, *rules):
            file = out / "arms" / f"{_name(attack, n, rule)}-{part}.json"
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                arm = _arm(out, config, judge, (attack, n, rule), attacks, sites)
                write_json(file, asdict(arm))
            arms.append(Arm(**read_json(file)))
        _log.info("%d of %d: %s", number + 1, len(kinds), arms[-1])
    return arms


def _name(attack: str, hostile: int, rule: str) -> str:
    return f"{attack}-{hostile}-{rule}"


def _arm(
    out: Path,
    config: RunConfig,
    judge: Judge,
    kind: tuple[str, int, str],
    attacks: Iterable[str],
    sites: int,
) -> Arm:
    """Train and judge."""
    name, hostile, rule = kind
    attack = ATTACKS.get(name, Attack())
    numbers = chosen(sites, hostile, config.seed)
    lies = (attack, numbers, config.task, judge.target)
    folder = poison(out / "sites", out / f"sites-{name}-{hostile}", *lies)
    none = {"robust": NONE, "hostile": 0, "norm_bound": 0.0}
    how = none if rule == NONE else {"robust": rule}
    run = out / "runs" / _name(*kind)
    places = {"sites": folder.resolve(), "out": run}
    if not (run / MODEL_FILE).exists():
        try:
            app = hostile_app(attack, numbers, config.seed)
            simulate(config.model_copy(update=places | how), app)
        except FedDermError as error:
            return Arm(*kind, None, {}, described(error))
    model = NetworkModel.load(run / MODEL_FILE, config.weights)
    aims = {name} if hostile else set(attacks)
    aimed = {a: judge.aimed(model, ATTACKS[a]) for a in sorted(aims) if ATTACKS[a].images}
    found = {name: judge.found(model)} if hostile and attack.stamps else {}
    return Arm(*kind, judge.balanced_accuracy(model), aimed, found=found)


def table(arms: Sequence[Arm]) -> str:
    """Return the arms as a Markdown table, an attack by so many sites in a row."""
    rules = list(dict.fromkeys(arm.rule for arm in arms))
    by_kind = {(arm.attack, arm.hostile, arm.rule): arm for arm in arms}
    honest = by_kind[NONE, 0, NONE]
    rows = []
    for attack, hostile in dict.fromkeys((arm.attack, arm.hostile) for arm in arms):
        row = [by_kind[attack, hostile, rule] for rule in rules]
        aimed = [_share(arm.aimed.get(attack)) for arm in (honest, *row)]
        shares = " / ".join(aimed) if attack in honest.aimed else ""
        finds = " / ".join(rounded(a.found[attack]) for a in row if attack in a.found)
        rows.append((attack, hostile, *(_share(a.balanced_accuracy) for a in row), shares, finds))
    each = " / ".join(rules)
    marked = f"marked images found: {each}"
    columns = ("attack", "hostile sites", *rules, f"success: honest / {each}", marked)
    return markdown_table(columns, rows)


def _share(value: float | None) -> str:
    return rounded(value, missing="no model")


def report(arms: Sequence[Arm], command: str, synthetic: bool) -> str:
    """Return a table with the command that made it, and why arms have no model."""
    failures = [
        f"- {arm.name}: {markdown(arm.failure)}" for arm in arms if arm.balanced_accuracy is None
    ]
    lines = [*synthetic_note(synthetic), f"`{command}`", "", table(arms), "", *failures]
    return "\n".join(lines) + "\n"
