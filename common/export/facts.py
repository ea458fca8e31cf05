"""What an exported file says of itself, as JSON in its metadata, under :data:`KEY`.

It is what an application needs beside the probabilities: names, thresholds, and where the model is
from. docs/export.md lists the keys.
"""

import json
from dataclasses import replace
from importlib.metadata import version

import numpy as np
from onnx import ModelProto

from common.answers.answering import Answering, AnswerOptions
from common.answers.operating import target_members, targets_of
from common.answers.referral import refer_least_sure
from common.export.graph import opset_of
from common.features.pretrained import DEFAULT_BACKBONE, weights_digest
from common.json_types import Json, plain
from common.models.file import Model

KEY = "fedderm"
"""Of the metadata property."""

VERSION = 1
"""Of the JSON; raise it with every change."""

_USE = (
    "Research software, not a medical device: not tested on patients, not approved by any "
    "authority, not to be used for a diagnosis or to put one off."
)
LEFT_OUT = (
    "what is known of the patient, and screening thresholds by it",
    "distance from the training lesions: images of other things are not recognised",
    "evidence maps",
)
"""What `fedderm predict` does and an exported file does not."""


def facts_of(model: Model, form: str, digest: str) -> dict[str, Json]:
    """Return what the exported file of a model says of itself.

    Parameters
    ----------
    form : "onnx" or "onnx-int8".
    digest : SHA-256 of the model's own file, in hexadecimal.
    """
    config, basis, task = model.config, model.basis, model.task
    return {
        "version": VERSION,
        "format": form,
        "use": _USE,
        "task": {
            "codes": list(task.codes),
            "names": list(task.names),
            "malignant": list(task.malignant),
        },
        "input": {
            "resolution": config.resolution,
            "colour": config.colour,
            "size": config.size,
            "views": config.predictions,
        },
        "base_rates": basis.base_rates.tolist(),
        **_thresholds(model),
        "left_out": list(LEFT_OUT),
        "lineage": {
            "program": f"fedderm {version('fedderm')}",
            "method": config.method,
            "model_sha256": digest,
            "backbone": config.backbone,
            "backbone_sha256": weights_digest(config.backbone, config.weights),
            "sites": list(basis.by_site),
            "metadata": list(config.metadata),
        },
        "licence": {
            "program": "Apache-2.0",
            "backbone": "Apache-2.0" if config.backbone == DEFAULT_BACKBONE else "that of its file",
            "weights": "as the licences of the images that the sites trained on allow",
        },
    }


def _thresholds(model: Model) -> dict[str, Json]:
    """Return the rules that follow from calibration lesions; None for what cannot be had."""
    basis, task = model.basis, model.task
    answering = Answering(replace(basis, by_group=None), AnswerOptions())
    members = target_members(task)
    screening: dict[str, Json] = {
        point.target: {
            "members": np.flatnonzero(members[:, targets_of(task).index(point.target)]).tolist(),
            "threshold": point.threshold,
            "wanted": point.wanted,
            "sensitivity": point.sensitivity,
            "sensitivity_interval": list(point.sensitivity_interval),
            "specificity": point.specificity,
            "specificity_interval": list(point.specificity_interval),
        }
        for point in answering.points
    }
    chosen = answering.thresholds()
    lesions = int(basis.lesions.lesions.sum())
    refer = None
    if lesions:
        refer = refer_least_sure(basis.lesions.confidence, AnswerOptions.refer, task.n_classes)
    return {
        "screening": screening,
        "prediction_set": None
        if chosen is None
        else {
            "thresholds": chosen.values.tolist(),
            "coverage": chosen.coverage,
            "without_guarantee": chosen.without_guarantee.tolist(),
            "lesions": lesions,
        },
        "refer_below": None if refer is None else refer.threshold,
        "notes": list(answering.warnings),
    }


def add_facts(graph: ModelProto, facts: dict[str, Json]) -> None:
    """Write what a file says of itself into its metadata, in place."""
    said = plain({**facts, "opset": opset_of(graph)})
    graph.metadata_props.add(key=KEY, value=json.dumps(said))
