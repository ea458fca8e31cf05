"""Fine-tuning over a federation: stages, rounds, and what is kept of them."""

import hashlib
import itertools
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from common.answers.basis import AnswerBasis
from common.answers.paired import INCUMBENT
from common.arrays import Floats, Floats32
from common.config.finetune import FAIRLY, FORMER, TRAIN
from common.config.robust import CROSSCHECK
from common.config.run import RunConfig
from common.data.balance import GROUP_COUNTS
from common.errors import ConfigError, DataError
from common.features.tuned import refuse_tuned
from common.finetune.half_precision import dtype_of, to_site, wide_sums
from common.finetune.imbalance import ClassCounts, as_trained
from common.finetune.plan import CONTROL, SQUARES, Round, plan, shapes
from common.finetune.qfedavg import FairUpdate
from common.finetune.update import Update
from common.json_types import JsonObject
from common.models.network import NetworkModel
from common.networks.network import ALL, Network, Stage, open_stage, run_network
from common.statistics import calibration
from common.statistics.calibration import even, uncalibrated
from common.statistics.metrics import Metrics
from common.statistics.sums import Nothing, S
from common.wire.messages import Arrays, Value
from server.federation.federation import Federation
from server.federation.question import Answers, LossPolicy, Question
from server.group_balance import balance_facts, group_question, warn_of_groups
from server.lesion_appearance import learn_appearance
from server.replacement import check_gate, judge
from server.run.checkpoint import Checkpoint, Tensors
from server.run.folder import CHECKPOINT_FILE, RunFolder
from server.run.parent import Parent, widened
from server.run.progress import Progress
from server.run.training_result import TrainingResult
from server.scored_sites import NetworkScores, ScoredSites
from server.strategies.aggregation import Aggregation
from server.strategies.robust import Defence
from server.vouching import cross_check, kept, leave_out

_ROUNDING = 1e-9


def train(federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
    """Train stage by stage; a site that fails is left out from then on.

    After each round everything is on disk, so that a run that was killed goes on from there.

    Raises
    ------
    QuorumError
        If too few sites are left.
    DataError
        If there are no training images, or the state of the run cannot be kept.
    """
    return _Training(federation, config, folder).run()


class _Training:
    def __init__(self, federation: Federation, config: RunConfig, folder: RunFolder) -> None:
        self._federation, self._config = federation, config
        self._task, self._n_classes = config.task, config.task.n_classes
        self._raw = uncalibrated(self._n_classes), even(self._n_classes)
        self._file = folder.path / CHECKPOINT_FILE
        self._rounds = plan(config)
        # In one process with the sites it is theirs; only shapes and pretrained weights are read.
        self._network = run_network(config)
        self._stages = _open_stages(self._network, config.stages)
        self._everything = open_stage(self._network, ALL)
        self._defence = Defence(config)
        self._aggregation = Aggregation(config.strategy, config.server_lr, config.server_momentum)
        self._sites, self._remembered = ScoredSites(federation, config.task), False
        self._parent = Parent.of(config)
        self._former = self._of_parent(self._parent)
        self._folder = folder
        self._settings = hashlib.sha256(config.model_dump_json().encode()).hexdigest()

    def run(self) -> TrainingResult:
        state = self._begin()
        shown = (len(self._rounds), self._config.tensorboard, state.next_round)
        with Progress(self._folder, *shown) as progress:
            while state.next_round < len(self._rounds):
                this = self._rounds[state.next_round]
                facts = {"loss": self._train(state, this), **self._validate(state, this)}
                progress.round(this.number, this.stage, facts)
                state.next_round, state.trained = self._next(state, this), state.trained + 1
                state.aggregation = self._aggregation.state()
                state.save(self._file)
        return self._result(state)

    def _of_parent(self, parent: Parent | None) -> Tensors:
        """Return a parent's weights, by name and of this network's shapes, to begin from.

        Raises
        ------
        ConfigError
            If they do not fit this network.
        """
        if parent is None:
            return {}
        weights = widened(parent.model.trained or {}, parent.model.task, self._task)
        wanted = {name: tensor.shape for name, tensor in self._network.pretrained.items()}
        if odd := [name for name, array in weights.items() if array.shape != wanted.get(name)]:
            raise ConfigError(
                f"{self._config.parent} has other weights at '{odd[0]}' than this run's network: "
                "diagnoses can be added to a network without metadata only; train it anew"
            )
        return weights

    def _begin(self) -> Checkpoint:
        """Go on from the checkpoint, or count the classes and begin."""
        if self._file.exists():
            state = Checkpoint.load(self._file, self._settings)
            self._aggregation.restore(state.aggregation)
            self._leave_out(state)
            return state
        answers = self._answers(Question("counts", ClassCounts.zero(self._n_classes)))
        counts = self._defence.counts(answers)
        if not counts.sum():
            raise DataError(
                "no site has a training image with a diagnosis that is no pseudo-label; lower "
                "test_fraction, or add some"
            )
        state = Checkpoint(
            secrets.token_hex(8),
            self._settings,
            counts=counts.tolist(),
            groups=self._groups(),
            claims={site: answer.images.tolist() for site, answer in answers.by_site.items()}
            if self._config.robust == CROSSCHECK
            else {},
            weights=dict(self._former),
        )
        state.save(self._file)
        return state

    def _groups(self) -> list[list[int]]:
        """Count the training images of each class and group, where groups are balanced."""
        if (groups := self._config.balanced_groups) is None:
            return []
        answers = self._answers(group_question(groups, self._n_classes))
        counts = self._defence.counts(answers)
        warn_of_groups(groups, counts)
        found: list[list[int]] = counts.tolist()
        return found

    def _train(self, state: Checkpoint, this: Round) -> float | None:
        """Average one round of the sites' training; return its loss."""
        stage = self._stages[this.stage]
        # Until a cycle ends its rounds build on moments that the sites kept.
        if this.begins and self._federation.take_back():
            self._sites.forget()  # these do not have what was sent before
            self._remembered = False
        pretrained = self._network.pretrained_arrays
        known = pretrained | state.weights | state.moments
        self._remember()
        down, up = (shapes(stage, self._config, moments) for moments in (this.begins, this.ends))
        arrays = {n: known.get(n, np.zeros(s, np.float32)) for n, s in (down | up).items()}
        # Some are trained on that are in no count: pseudo-labels, and images without a diagnosis.
        images = sum(site.images or 0 for site in self._federation.sites.values())
        values: dict[str, Value] = {"round": this.number, "run": state.run}
        values |= {"counts": state.counts, "images": images}
        sent: Arrays = to_site({name: arrays[name] for name in down}, pretrained)
        if state.groups:
            sent = {**sent, GROUP_COUNTS: np.array(state.groups, dtype=np.float64)}
        zero = self._zero(up, this.most(images))
        updates = self._ask_to_train(zero, sent, values, self._sample(this))
        n_sites = len(updates.sites)
        weights = {name: arrays[name] for name in stage.trainable}
        if self._config.robust == CROSSCHECK:
            updates = self._vouched(state, this, updates, weights)
        total, mean = updates.total, self._defence.mean(updates)
        state.weights |= self._aggregation.step(weights, mean)
        # Algorithm 1 of SCAFFOLD, line 17; moments are averaged as they are.
        share = np.float32(n_sites / len(self._federation.sites))
        state.moments |= {
            name: _moved(name, array, (share if name.startswith(CONTROL) else 1) * mean[name])
            for name, array in arrays.items()
            if name in up and name not in stage.trainable
        }
        state.bytes_sent += n_sites * self._bytes(stage, this)
        state.bytes_whole += n_sites * self._bytes(self._everything, this)
        return float(total.loss / total.weight) if total.weight else None

    def _vouched(
        self, state: Checkpoint, this: Round, updates: Answers[Update], weights: Tensors
    ) -> Answers[Update]:
        """Return the changes that other sites vouch for; leave out sites from which none can be."""
        zero = Update.zero({name: array.shape for name, array in weights.items()})
        trained = {site for site, update in updates.by_site.items() if update.weight > 0}
        updates = kept(updates, zero, trained)
        verdict = cross_check(
            self._federation, self._defence, this.number, updates, weights, state.claims
        )
        if verdict.suspects:
            state.suspects += verdict.suspects
            self._leave_out(state)
            self._recount(state)
        return kept(updates, zero, trained - {*verdict.suspects, *verdict.unjudged})

    def _leave_out(self, state: Checkpoint) -> None:
        """Go on without the sites that are suspected."""
        self._defence.found = len(state.suspects)
        leave_out(self._federation, state.suspects)

    def _recount(self, state: Checkpoint) -> None:
        """Count the classes without the sites that are suspected."""
        claims = {
            site: ClassCounts(np.array(images, dtype=np.int64))
            for site, images in state.claims.items()
        }
        zero = ClassCounts.zero(self._n_classes)
        of_all = Answers(zero, list(claims), claims)
        left = kept(of_all, zero, claims.keys() - set(state.suspects))
        state.counts = self._defence.counts(left).tolist()
        state.groups = self._groups()

    def _remember(self) -> None:
        """Let sites keep what the parent says of their images, to which training holds on."""
        if self._parent is None or not self._config.distillation or self._remembered:
            return
        known = [code in self._parent.model.task.codes for code in self._task.codes]
        self._answers(Question(FORMER, Nothing(), self._former, {"known": known}))
        self._remembered = True

    def _bytes(self, stage: Stage, this: Round) -> int:
        """Return the size of a stage's tensors to a site and back; secure sums double the bits."""
        down, up = (
            sum(np.dtype(dtype_of(name, wide)).itemsize * math.prod(shape) for name, shape in found)
            for wide, found in (
                ((), shapes(stage, self._config, this.begins).items()),
                (wide_sums(self._config), shapes(stage, self._config, this.ends).items()),
            )
        )
        return down + (2 if self._config.secure else 1) * up

    def _zero(self, needed: Mapping[str, tuple[int, ...]], most: float) -> Update:
        """Return the update of no sites; ``most`` is what the weights of all add up to."""
        return (FairUpdate if _fair(self._config) else Update).zero(needed, most)

    def _ask_to_train(
        self, zero: Update, arrays: Arrays, values: Mapping[str, Value], sites: Sequence[str]
    ) -> Answers[Update]:
        name = FAIRLY if _fair(self._config) else TRAIN
        question = Question(name, zero, arrays, values, sites=sites)
        if self._config.defended:
            return self._answers(question)
        return self._federation.added(question, LossPolicy.CONTINUE)

    def _sample(self, this: Round) -> list[str]:
        """Return the sites of a round: a share of all, drawn by seed and cycle alone."""
        sites = sorted(self._federation.sites)
        size = math.ceil(self._config.fraction * len(sites) - _ROUNDING)
        rng = np.random.default_rng([self._config.seed, this.cycle])
        return sorted(rng.choice(sites, size, replace=False).tolist())

    def _validate(self, state: Checkpoint, this: Round) -> dict[str, float]:
        """Score the weights now and then, and at a stage's end; keep the best."""
        follow = this.number + 1
        last = follow == len(self._rounds) or not self._same_stage(follow, this)
        if not last and follow % self._config.validate_every:
            return {}
        scores = NetworkScores(dict(state.weights), "validation", views=1)
        counts = self._sites.evaluate(scores, *self._raw)
        metrics = Metrics.compute(counts.total)
        # Not balanced accuracy: a handful of lesions of the rarest class decide it. Of equals the
        # later one, which has seen more; without validation images, the last. Where sites may be
        # hostile always the later one: what they say of these lesions decides nothing then.
        if self._config.hostile or not metrics.macro_auc < state.best_score:
            state.best, state.best_score = dict(state.weights), metrics.macro_auc
            state.best_round, state.waited = this.number, 0
        else:
            state.waited += 1
        return {"balanced_accuracy": metrics.balanced_accuracy, "macro_auc": metrics.macro_auc}

    def _same_stage(self, number: int, this: Round) -> bool:
        return self._rounds[number].stage_begin == this.stage_begin

    def _next(self, state: Checkpoint, this: Round) -> int:
        """Return the next round: where patience is at an end, the first of the next stage."""
        follow = this.number + 1
        if self._config.patience and state.waited >= self._config.patience:
            # All of them: the best tensors and those of later rounds do not fit together.
            state.weights = dict(state.best)
            while follow < len(self._rounds) and self._same_stage(follow, this):
                follow += 1
        if follow < len(self._rounds) and not self._same_stage(follow, this):
            state.waited = 0
        return follow

    def _result(self, state: Checkpoint) -> TrainingResult:
        weights, views = state.best or state.weights, self._config.predictions
        validation = NetworkScores(weights, "validation", views)
        test = NetworkScores(weights, "test", views)
        basis = self._basis(validation, np.array(state.counts) / sum(state.counts))
        rule = basis.calibration, basis.base_rates
        return TrainingResult(
            NetworkModel(weights, basis, self._config),
            self._sites.evaluate(test, *rule),
            self._sites.evaluate(test, *self._raw),
            {
                "rounds": state.trained,
                "best_round": state.best_round,
                "validation_macro_auc": state.best_score,
                "class_counts": dict(zip(self._task.codes, state.counts, strict=True)),
                "bytes_sent": state.bytes_sent,
                "bytes_of_whole_networks": state.bytes_whole,
            },
            self._sites.count_answers(test, basis.calibration),
            self._sites.evaluate(replace(test, personal=True), *rule)
            if self._config.personal
            else None,
            gate=self._gate(test, basis) if self._config.gate else None,
        )

    def _gate(self, scores: NetworkScores, basis: AnswerBasis) -> JsonObject:
        """Judge whether the model may replace that of the parent."""
        assert self._parent is not None  # as checked
        self._answers(Question(INCUMBENT, Nothing(), self._former))
        return judge(self._config, self._parent, basis, partial(self._sites.ask, scores))

    def _basis(self, validation: NetworkScores, base_rates: Floats) -> AnswerBasis:
        """Calibrate on validation lesions, but where hostile sites could lie about them."""
        if self._config.hostile:
            return AnswerBasis.of(self._task, as_trained(self._config, base_rates), base_rates)
        calibrate = partial(self._sites.calibrate, validation)
        parameters = calibration.fit(calibrate, self._n_classes)
        counts = self._sites.count_answers(validation, parameters)
        appearance = learn_appearance(self._federation, LossPolicy.CONTINUE)
        groups = self._config.patient_groups
        return AnswerBasis.of(
            self._task,
            parameters,
            base_rates,
            counts.total,
            counts.by_site,
            appearance,
            self._sites.count_groups(groups, validation, parameters) if groups else None,
        )

    def _answers(self, question: Question[S]) -> Answers[S]:
        return self._federation.answers(question, LossPolicy.CONTINUE)


def _open_stages(network: Network, names: Sequence[str]) -> dict[str, Stage]:
    """Open all stages of a run; none may freeze what an earlier one has trained."""
    stages = {name: open_stage(network, name) for name in names}
    for before, after in itertools.pairwise(names):
        if not stages[before].trainable.keys() <= stages[after].trainable.keys():
            raise ConfigError(
                f"configuration key 'stages' has '{after}' after '{before}', which opens more of "
                "the network; put it first"
            )
    return stages


def _moved(name: str, array: Floats32, change: Floats32) -> Floats32:
    moved = np.asarray(array + change, np.float32)
    # Steps divide by the root of mean squares, which rounding must not make negative.
    return np.maximum(moved, np.float32(0)) if name.startswith(f"{SQUARES}/") else moved


def _fair(config: RunConfig) -> bool:
    return config.strategy == "qfedavg"


def check(config: RunConfig) -> None:
    """Refuse a network that cannot be loaded or was trained before, or has no such stages."""
    refuse_tuned(config.weights, "fine-tuning starts from pretrained weights")
    _open_stages(run_network(config), config.stages)
    parent = Parent.of(config)
    check_gate(config, parent)
    if parent is None and config.distillation:
        raise ConfigError(
            f"'distillation' is {config.distillation:g}, but there is no model whose answers to "
            "keep; set parent=RUN"
        )


def model_name(config: RunConfig) -> str:
    """Return what the model card calls the model."""
    return f"{config.backbone} with a linear head, fine-tuned stage by stage"


def training_facts(config: RunConfig, training: JsonObject) -> dict[str, object]:
    """Return what the model card says of the training."""
    keys = ("bytes_sent", "bytes_of_whole_networks")
    sent, whole = (f"{training[key] / 1e6:.0f} MB" for key in keys)
    mixed = f"; images mixed in {config.mixup:.0%} of the steps" if config.mixup else ""
    return {
        "stages": ", ".join(config.stages),
        "views": f"{config.augmentation} augmentation{mixed}",
        "aggregation": f"qfedavg, q={config.q:g}" if _fair(config) else config.strategy,
        "rare classes": f"{config.imbalance}, by {config.priors} class frequencies",
        **balance_facts(config),
        "rounds": training["rounds"],
        "best round on the validation lesions": training["best_round"] + 1,
        "sent to the sites and back": f"{sent}; whole networks would be {whole}",
    }
