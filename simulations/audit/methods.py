"""The attacks on a run of each method, beside one another."""

from dataclasses import replace

import numpy as np

from common.config.run import RunConfig
from common.models.linear import LinearModel
from common.privacy.linear import group_means
from common.svm.feature_map import powers_of, raised
from server.run.folder import MODEL_FILE
from simulations.audit import canaries, membership, reconstruction
from simulations.audit.audited_run import AuditedRun
from simulations.audit.epsilon_bound import OneRun
from simulations.audit.recorded_training import AllSites
from simulations.audit.results import AttackResults
from simulations.audit.shadows import private_fit, svm_fit

HEAD_STAND_IN = (
    "Membership and reconstruction are of the head alone: linear classifiers under this run's "
    "noise, on the features of the network that the run ended with, which has seen all lesions."
)
STAND_IN = (
    "Fine-tuning itself is not attacked: in its place stands a linear classifier, trained by "
    "sums without noise on the features of the network that the run fine-tuned."
)
SAMPLED = (
    "The auditor does not know which canaries were in the sample of a step, and so sees less than "
    "the claim allows."
)


def private(run: AuditedRun) -> AttackResults:
    """Attack a private linear classifier."""
    config = run.config
    trained = "classifiers of this run's settings on half of the records"
    units = run.private_units()
    return _noisy_sums(config, units, trained, _canaries(config, units))


def private_finetune(run: AuditedRun) -> AttackResults:
    """Attack a privately trained network; membership and reconstruction are of its head alone."""
    from simulations.audit.network_canaries import audit_network  # torch takes long to import

    config = stand_in(run.config)
    lesions = run.network_lesions(config.components)
    trained = "heads of this run's noise on half of the lesions"
    results = _noisy_sums(config, lesions, trained, audit_network(run.config, lesions.sites))
    return replace(results, notes=[HEAD_STAND_IN, *results.notes])


def finetune(run: AuditedRun) -> AttackResults:
    """Attack a linear classifier on a fine-tuned network's features, in the network's place."""
    config = stand_in(run.config)
    lesions = run.network_lesions(config.components)
    trained = "linear classifiers on half of the lesions"
    results = _noisy_sums(config, lesions, trained, _canaries(config, lesions))
    return replace(results, notes=[STAND_IN, *results.notes])


def stand_in(config: RunConfig) -> RunConfig:
    """Return the settings of classifiers on a network's features, in the network's place."""
    changes = {"imbalance": "logits", "imbalance_strength": 1.0, "metadata": ()}
    return config.model_copy(update={"method": "private", "head": "softmax", **changes})


def _canaries(config: RunConfig, units: AllSites) -> OneRun:
    return canaries.audit_sums(config, units.X.shape[1], units.sites)


def _noisy_sums(config: RunConfig, units: AllSites, trained: str, one_run: OneRun) -> AttackResults:
    return AttackResults(
        one_run,
        membership.attack(private_fit(config, units), units.y, trained, config.seed),
        reconstruction.from_noisy_sums(config, units),
        units.sites,
        [SAMPLED] if config.rate < 1 else [],
    )


def svm(run: AuditedRun) -> AttackResults:
    """Attack the moments that an SVM starts from, and heads trained with its feature map."""
    config, records = run.config, run.site_records()
    first = np.unique(records.lesion, return_index=True)[1]
    sent = raised(records.X, powers_of(config, records.X.shape[1]))
    lesions = run.units([(group_means(sent, records.lesion), records.y[first])])
    c = run.metrics["training"]["chosen"]["c"] if config.head == "svm" else 0.0
    model = LinearModel.load(run.folder / MODEL_FILE, config.weights)
    fit = svm_fit(config, model, records, c)
    trained = f"{config.head} heads on half of the lesions, with this run's feature map and C"
    sites = len(run.sites)
    return AttackResults(
        canaries.audit_moments(
            lesions.X.shape[1], sites, config.task.n_classes, config.seed, config.delta
        ),
        membership.attack(fit, lesions.y, trained, config.seed),
        [reconstruction.from_moments(lesions, config.seed)],
        sites,
        [],
    )
