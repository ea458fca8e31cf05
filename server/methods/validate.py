"""External validation over a federation: a finished linear model is judged, nothing is trained."""

import hashlib
import logging
from dataclasses import fields, replace

from common.answers.counts import AnswerCounts
from common.arrays import Floats
from common.config.run import RunConfig
from common.errors import ConfigError, DataError
from common.features.extract import FeatureSpec, check_network
from common.json_types import JsonObject
from common.models.file import load_model
from common.models.linear import LinearModel
from common.reading import read_bytes
from common.statistics.calibration import even, uncalibrated
from common.statistics.metrics import Evaluation
from common.statistics.sums import S
from server.federation.federation import Federation, SitesLostError
from server.federation.question import Answers, LossPolicy, Question
from server.run.folder import RunFolder, model_file
from server.run.training_result import TrainingResult

_log = logging.getLogger(__name__)


def check(config: RunConfig) -> None:
    """Refuse a model that cannot be judged, or settings by which sites would see other images.

    Raises
    ------
    ConfigError
        If there is no model, it is no linear one, or was trained with other settings.
    DataError
        If its file cannot be read.
    """
    _model(config)
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
        "not checked": "whether the model was trained on lesions of these sites",
    }


def _validate(federation: Federation, config: RunConfig, model: LinearModel) -> TrainingResult:
    n_features = next(iter(federation.sites.values())).n_features
    if len(model.feature_map.mean) != n_features:
        raise DataError(
            f"{config.model} maps {len(model.feature_map.mean)} features, the sites have "
            f"{n_features}; it does not fit its own settings"
        )
    task, basis = model.task, model.basis
    plain, rates = uncalibrated(task.n_classes), even(task.n_classes)

    def ask(name: str, zero: S, calibration: Floats, base_rates: Floats) -> Answers[S]:
        rule = {"calibration": calibration, "base_rates": base_rates}
        arrays = {**model.feature_map.to_record(), "weights": model.weights, **rule}
        return federation.answers(Question(name, zero, arrays), LossPolicy.RESTART)

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
    )


def _model(config: RunConfig) -> LinearModel:
    """Return the model that a run judges."""
    if config.model is None:
        raise ConfigError("no model to judge; set model=RUN, a finished run or its model file")
    model = load_model(model_file(config.model), config.weights)
    if not isinstance(model, LinearModel):
        raise ConfigError(
            f"{config.model} is a network that was trained itself; method {config.method} judges "
            "classifiers on frozen features: use `fedderm evaluate DIR RUN --all` at each site"
        )
    if other := _other_settings(config, model.config):
        raise ConfigError(f"{config.model} was trained with other settings; set {' '.join(other)}")
    return model


def _other_settings(config: RunConfig, trained: RunConfig) -> list[str]:
    """Return the settings by which sites would not see images, or diagnoses, as the model does."""
    ours, its = (_seen(each.feature_spec) for each in (config, trained))
    names = [field.name for field in fields(FeatureSpec) if field.name != "weights"]
    other = [f"{n}={getattr(its, n)}" for n in names if getattr(ours, n) != getattr(its, n)]
    if not other and ours.key != its.key:
        other = ["weights=FILE to those of the model"]
    if config.task != trained.task:
        other.append(f"diagnoses={','.join(trained.task.codes)} and what else its card says")
    return other


def _seen(spec: FeatureSpec) -> FeatureSpec:
    """Return what prediction views depend on; augmented views are for training alone."""
    return replace(spec, views=0, seed=0)
