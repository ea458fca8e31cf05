"""A site's answers while an SVM is trained: sums over its records, and what it refuses."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.counts import lesion_appearance
from client.counts.group_weights import count_groups, group_weights
from client.counts.judged_scores import judge
from client.counts.linear_scores import linear_scores
from client.counts.paired_counts import count_pairs, keep_incumbent
from client.egress.activity_gate import Gate, Gated
from client.egress.dependent_questions import Lines
from client.egress.questions import Question
from client.site import Site
from client.state import kept_array
from common.answers.paired import INCUMBENT, PAIRED, PAIRED_GROUPS
from common.arrays import Floats, Ints
from common.config.run import RunConfig
from common.data.balance import GROUP_COUNTS
from common.data.dataset import Dataset
from common.data.splits import fold_numbers
from common.errors import Reason, RefusalError
from common.features.extract import content_keys, extract
from common.models.linear import average_views, decision_values
from common.networks.appearance_rows import appearances
from common.statistics.moments import Moments
from common.statistics.sums import Nothing, Sums
from common.storage.verified import write_array
from common.svm.feature_map import FeatureMap, powers_of, raised
from common.svm.objective import HingeSums, hinge_sums, with_intercept
from common.wire.messages import Value

_LEAST_WIDTH = 1e-6


@dataclass(frozen=True)
class Prepared:
    """A site's mapped records, kept on disk between messages.

    Attributes
    ----------
    X1 : (n, n_outputs + 1) mapped training views with a column of ones.
    y, fold, lesion : (n,) of the training views.
    view_weight : (n,) one over the number of views.
    sample_weight : (n,) class weight times view weight, and times the weight of its group.
    Z : (m, n_outputs) mapped prediction views of all images, averaged over the views.
    image_fold : (m,) of the images; fold -1 is the test set, -2 are pseudo-labels.
    """

    X1: Floats
    y: Ints
    fold: Ints
    lesion: Ints
    view_weight: Floats
    sample_weight: Floats
    Z: Floats
    image_fold: Ints

    def save(self, folder: Path) -> None:
        """Write one file for each array."""
        for name, array in vars(self).items():
            write_array(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the files into memory; only what is used is read, once it was checked.

        Raises
        ------
        RefusalError
            If a file is missing.
        DataError
            If one is not what was written.
        """
        missing = "this feature map was not sent in this run; send it first"
        names = (field.name for field in fields(cls))
        return cls(**{name: kept_array(folder / f"{name}.npy", missing) for name in names})


def describe(site: Site) -> dict[str, Value]:
    """Describe this site's features; compute those that are not on disk."""
    return {"n_features": site.n_features, "features": site.config.feature_spec.key}


def prepare(dataset: Dataset, config: RunConfig, cache: Path) -> None:
    """Compute the frozen features of images, and how they look."""
    contents = content_keys(dataset)
    extract(dataset, config.feature_spec, cache, progress=True, contents=contents)
    appearances(dataset, config.feature_spec, cache, contents)


def answer(site: Site, question: Question) -> Sums | Gated:
    """Answer one question of the coordinator.

    Raises
    ------
    RefusalError
        If this site does not answer it.
    """
    if question.name == "moments":
        return _moments(site)
    if question.name == GROUP_COUNTS:
        return count_groups(site, site.training_images)
    if question.name in lesion_appearance.QUESTIONS:
        return lesion_appearance.answer_appearance(site, question)
    if question.name == INCUMBENT:
        scores = linear_scores(site, np.flatnonzero(site.held_out), question)
        return keep_incumbent(site, question, scores)
    folder = site.state.scratch(question.run) / str(question.values["map"])
    if question.name == "prepare":
        _prepare(site, question).save(folder)
        return Nothing()
    prepared = Prepared.load(folder)
    if question.name == "mapped_moments":
        X = prepared.X1[:, :-1]
        return Moments.measure(X, prepared.y, prepared.view_weight, site.config.task.n_classes)
    weights = _weights(site.config, question, columns=prepared.Z.shape[1] + 1)
    if question.name == "hinge":
        # With as many rounds as features, Hessians could be solved for.
        site.state.rounds(question.run).add(limit=prepared.Z.shape[1] // 2)
        if site.deployed:
            Lines(folder / "questions").add(weights)
        if site.config.secure:  # where counts are added before they are compared
            return gated_hinge(prepared, weights, site.config.min_active, site.config.folds)
        return hinge(prepared, weights, site.config.min_active)
    return _judge(site, prepared, weights, question)


def _judge(site: Site, prepared: Prepared, weights: Floats, question: Question) -> Sums:
    """Judge scores of images that their fit has not seen.

    The calibration of a classifier that is solved once, without folds, has its training images.
    """
    if question.name == "calibrate" and len(weights) == 1:
        images = np.flatnonzero(prepared.image_fold >= 0)
        scores = decision_values(prepared.Z[images], weights[0])
    else:
        folds = 1 if site.config.judged == "first" else site.config.folds
        images, scores = _unseen_scores(prepared, weights, folds)
    if question.name in (PAIRED, PAIRED_GROUPS):
        return count_pairs(site, question, images, scores)
    return judge(site, question, images, scores)


def _weights(config: RunConfig, question: Question, columns: int) -> Floats:
    """Return the weights (n_fits, n_classes, columns) that came with a question.

    Raises
    ------
    RefusalError
        If they are those of another map, or of more fits than a round may have.
    """
    weights = np.asarray(question.arrays["weights"], dtype=np.float64)
    if len(weights) not in (1, config.folds) or weights.shape[2] != columns:
        raise RefusalError(
            Reason.FORM,
            f"weights are {list(weights.shape)}: 1 or {config.folds} fits are allowed in one "
            f"round, and the map has {columns} columns",
        )
    return weights


def hinge(prepared: Prepared, weights: Floats, min_active: int) -> HingeSums:
    """Return losses and gradients at ``weights`` (n_fits, n_classes, n_outputs + 1).

    One fit uses all training records; several leave out one fold each, in order.

    Raises
    ------
    RefusalError
        If fewer than ``min_active`` lesions are active in a problem, because their summed gradient
        would show single patients. Of each fold a third as many must be active, because fits with
        and without it can be subtracted.
    """
    folds = max(len(weights), int(prepared.fold.max(initial=0)) + 1)
    sums, gated = _hinge(prepared, weights, min_active, folds)
    if len(prepared.y):  # else there is nobody to hide
        gated.gate.check(gated.counts)
    return sums


def gated_hinge(prepared: Prepared, weights: Floats, min_active: int, folds: int) -> Gated:
    """Return losses and gradients with this site's counts, for a gate on those of all sites.

    Parameters
    ----------
    weights : (n_fits, n_classes, n_outputs + 1).
    folds : how many there are, at all sites together.
    """
    return _hinge(prepared, weights, min_active, folds)[1]


def _hinge(
    prepared: Prepared, weights: Floats, min_active: int, folds: int
) -> tuple[HingeSums, Gated]:
    n_fits = len(weights)
    kept = np.ones((n_fits, len(prepared.y)))
    if n_fits > 1:
        in_fold = np.flatnonzero(prepared.fold >= 0)
        kept[prepared.fold[in_fold], in_fold] = 0.0
    sums, active = hinge_sums(prepared.X1, prepared.y, prepared.sample_weight * kept, weights)
    in_fits, in_folds = _active_lesions(prepared, active, folds)
    gate = Gate(len(in_fits) + len(in_folds), len(in_fits), min_active)
    return sums, Gated(sums, gate, (*in_fits, *in_folds))


def _active_lesions(
    prepared: Prepared, active: NDArray[np.bool_], folds: int
) -> tuple[list[int], list[int]]:
    """Return the numbers of active lesions in each problem: of a fit, and of each fold in it."""
    lesions, first = np.unique(prepared.lesion, return_index=True)
    pulling = np.zeros((len(lesions), len(active), active.shape[2]), dtype=np.bool_)
    number = np.searchsorted(lesions, prepared.lesion)
    np.logical_or.at(pulling, number, active.transpose(1, 0, 2))
    fold = prepared.fold[first]
    in_folds = [
        np.delete(pulling[fold == f].sum(axis=0), f if len(active) > 1 else [], axis=0)
        for f in range(folds)
    ]
    return pulling.sum(axis=0).ravel().tolist(), np.stack(in_folds).ravel().tolist()


def _moments(site: Site) -> Moments:
    records, config = site.training_records(), site.config
    X = raised(records.X, powers_of(config, site.n_features))
    return Moments.measure(X, records.y, records.weight, config.task.n_classes)


def _refuse_other_map(config: RunConfig, feature_map: FeatureMap, digest: str) -> None:
    """Refuse a map that the run's settings do not allow."""
    if feature_map.digest != digest:
        raise RefusalError(Reason.FORM, "the feature map is not the one that its name says")
    fourier = feature_map.fourier
    if fourier and not (
        (fourier.size, fourier.seed) == (config.fourier, config.seed)
        and fourier.width >= _LEAST_WIDTH
    ):
        raise RefusalError(Reason.FORM, f"{fourier} is no Fourier map of this run's settings")


def _prepare(site: Site, question: Question) -> Prepared:
    """Map this site's features with the federation's map."""
    feature_map = FeatureMap.from_record(question.arrays)
    _refuse_other_map(site.config, feature_map, str(question.values["map"]))
    records = site.training_records()
    class_weights = np.asarray(question.arrays["class_weights"], dtype=np.float64)
    return Prepared(
        X1=with_intercept(feature_map.apply(records.X)),
        y=records.y,
        fold=records.fold,
        lesion=records.lesion,
        view_weight=records.weight,
        sample_weight=class_weights[records.y] * records.weight * _group_weights(site, question),
        Z=average_views(feature_map, site.prediction_views),
        image_fold=fold_numbers(site.dataset.splits),
    )


def _group_weights(site: Site, question: Question) -> Floats | float:
    """Return what the groups of the training records weigh, (n,); 1 without groups."""
    weights = group_weights(site, site.training_images, question.arrays)
    return 1.0 if weights is None else np.repeat(weights, site.features.train.shape[1])


def _unseen_scores(prepared: Prepared, weights: Floats, folds: int) -> tuple[Ints, Floats]:
    """Return the numbers of images that their fit has not seen, and their decision values.

    One fit scores the test images; of several, each of the first ``folds`` scores the images of its
    own fold.
    """
    if len(weights) == 1:
        test = np.flatnonzero(prepared.image_fold == -1)
        return test, decision_values(prepared.Z[test], weights[0])
    inside = (prepared.image_fold >= 0) & (prepared.image_fold < folds)
    train = np.flatnonzero(inside)
    fold = prepared.image_fold[train]
    values = decision_values(prepared.Z[train], weights.reshape(-1, weights.shape[-1]))
    own = values.reshape(len(train), *weights.shape[:2])[np.arange(len(train)), fold]
    return train, own
