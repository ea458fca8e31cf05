"""External validation over a federation: a finished model is judged, nothing is trained."""

import hashlib
import logging
from functools import partial

from common.answers.basis import AnswerBasis
from common.answers.counts import AnswerCounts
from common.answers.group_counts import GroupCounts
from common.answers.group_metrics import group_metrics
from common.arrays import Floats
from common.config.run import RunConfig, flat
from common.data.counted_groups import SITE, CountedGroups
from common.errors import ConfigError
from common.features.extract import check_network
from common.features.pretrained import weights_digest
from common.json_types import Json, JsonObject
from common.models.file import Model, load_model
from common.models.linear import LinearModel
from common.statistics.calibration import even, uncalibrated
from common.statistics.metrics import Evaluation
from common.statistics.sums import Nothing, S
from common.storage.reading import read_bytes
from server.federation.federation import Federation, SitesLostError
from server.federation.plausibility import check_groups
from server.federation.question import Answers, LossPolicy, Question
from server.run.folder import RunFolder, model_file
from server.run.training_result import TrainingResult

_SEEN = ("backbone", "size", "levels", "predictions", "resolution", "colour")
"""Settings that decide how a model sees an image."""

_log = logging.getLogger(__name__)


def check(config: RunConfig) -> None:
    """Refuse a model that cannot be judged, or settings by which sites would see other images.

    Raises
    ------
    ConfigError
        If there is no model, it is of a kind that sites do not know, or was trained with other
        settings.
    DataError
        If its file cannot be read.
    """
    if config.secure and SITE in config.by:
        raise ConfigError(
            "'by' is site, but secure sums are known over all sites only; leave site out, or set "
            "secure=false"
        )
    if _model(config).trained is None:
        check_network(config.feature_spec)


def train(federation: Federation, config: RunConfig, folder: RunFolder) -> TrainingResult:
    """Judge the model over the sites; where some fail, again over those that are left."""
    model = _model(config)
    while True:
        try:
            return _validate(federation, config, model)
        except SitesLostError as lost:
            _log.warning("%s; starting again over %s", lost, ", ".join(federation.sites))


def model_name(config: RunConfig) -> str:
    """Return what the model card calls the model."""
    return f"external validation of the model {config.model}, no training"


def training_facts(config: RunConfig, training: JsonObject) -> dict[str, object]:
    """Return what the model card says of the validation."""
    lesions = "all lesions of the sites" if config.lesions == "all" else "those the sites held out"
    return {
        "training": f"none; the model is that of method {training['trained_by']}",
        "SHA-256 of the model": training["sha256"],
        "judged on": lesions,
        **_metadata_facts(config),
        "not checked": "whether the model was trained on lesions of these sites",
    }


def _metadata_facts(config: RunConfig) -> dict[str, str]:
    """Return what the model card says of metadata; nothing where the model takes none."""
    columns = ", ".join(config.metadata)
    if config.without_metadata:
        columns = f"as if {columns} were not known"
    return {"metadata": columns} if columns else {}


def _validate(federation: Federation, config: RunConfig, model: Model) -> TrainingResult:
    task, basis = model.task, model.basis
    plain, rates = uncalibrated(task.n_classes), even(task.n_classes)

    def ask(name: str, zero: S, calibration: Floats, base_rates: Floats) -> Answers[S]:
        rule = {"calibration": calibration, "base_rates": base_rates}
        return federation.answers(Question(name, zero, rule), LossPolicy.RESTART)

    federation.answers(_sent(model), LossPolicy.RESTART)
    zero = Evaluation.zero(task.n_classes)
    assert config.model is not None  # as checked
    return TrainingResult(
        model,
        ask("evaluate", zero, basis.calibration, basis.base_rates),
        ask("evaluate", zero, plain, rates),
        {
            "trained_by": model.config.method,
            "sha256": hashlib.sha256(read_bytes(model_file(config.model))).hexdigest(),
            "lesions": config.lesions,
        },
        ask("answers", AnswerCounts.zero(task), basis.calibration, rates),
        groups=_by_group(federation, config.counted_groups, basis),
    )


def _by_group(
    federation: Federation, groups: CountedGroups, basis: AnswerBasis
) -> dict[str, Json] | None:
    """Return how groups of lesions are served; None where a run counts none."""
    if not groups.dimensions:
        return None
    rule = {"calibration": basis.calibration, "base_rates": basis.base_rates}
    zero = GroupCounts.zero(basis.task, groups.size)
    question = Question("groups", zero, rule, check_answer=partial(check_groups, groups))
    found = federation.answers(question, LossPolicy.RESTART)
    return group_metrics(basis, groups, found.total, found.by_site)


def _sent(model: Model) -> Question[Nothing]:
    """Return the question by which sites score their lesions; no answer tells anything of them."""
    if model.trained is not None:
        return Question("network", Nothing(), model.trained)
    assert isinstance(model, LinearModel)  # as checked
    return Question("linear", Nothing(), model.to_record())


def _model(config: RunConfig) -> Model:
    """Return the model that a run judges."""
    if config.model is None:
        raise ConfigError("no model to judge; set model=RUN, a finished run or its model file")
    model = load_model(model_file(config.model), config.weights)
    if model.trained is None and not isinstance(model, LinearModel):
        raise ConfigError(
            f"{config.model} is neither a network nor a linear model on frozen features; method "
            f"{config.method} knows no other: use `fedderm evaluate DIR RUN --all` at each site"
        )
    if config.without_metadata and not model.config.metadata:
        raise ConfigError(
            f"'without_metadata' is true, but {config.model} takes no metadata; leave it out"
        )
    if other := _other_settings(config, model):
        raise ConfigError(f"{config.model} was trained with other settings; set {' '.join(other)}")
    return model


def _other_settings(config: RunConfig, model: Model) -> list[str]:
    """Return the settings by which sites would not see images, patients or diagnoses as it does."""
    trained = model.config
    # A network that was trained itself pools its last map only.
    names = [name for name in _SEEN if model.trained is None or name != "levels"]
    names += ["metadata", *(["fusion"] if model.trained and trained.metadata else [])]
    its = {name: getattr(trained, name) for name in names}
    other = [f"{n}={flat(value)}" for n, value in its.items() if value != getattr(config, n)]
    ours, theirs = (weights_digest(trained.backbone, c.weights) for c in (config, trained))
    if not other and ours != theirs:
        other = ["weights=FILE to those of the model"]
    if config.task != trained.task:
        other.append(f"diagnoses={','.join(trained.task.codes)} and what else its card says")
    return other
