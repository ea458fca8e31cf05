"""The model card of a run: what was trained, on what, how well it does, what it is not for.

After Mitchell et al., "Model cards for model reporting", FAT* (2019).
"""

from collections.abc import Mapping
from typing import Any

from common.config.run import RunConfig
from common.formats import markdown, markdown_table, rounded

_NAMES = {
    "akiec": "actinic keratosis or Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
_HEADS = {
    "svm": "one-vs-rest squared-hinge SVM, solved exactly from sums over the sites",
    "ridge": "ridge classifier, solved from the sites' added moments",
    "lda": "linear discriminant analysis, solved from the sites' added moments",
}
_SYNTHETIC = (
    "**SYNTHETIC: trained and tested on generated images. The figures show that the software "
    "works, nothing about skin lesions.**"
)
_USE = """\
For research on federated learning with dermoscopic images. Not a medical device: not tested on
patients, not approved by any authority, not to be used for a diagnosis or to put one off.

It knows seven diagnoses and gives one of them to every image, of another disease, of healthy skin
or of no skin too. It was tested on lesions of the sites above only; other cameras, skin tones and
rarer lesions may be served worse, and the rows of the sites show how much these differ.
Probabilities are calibrated for the class frequencies of these sites."""


def model_card(config: RunConfig, metrics: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    config : of the run.
    metrics : as written into the run folder: ``data``, ``training``, ``overall``, ``sites``.
    """
    data = metrics["data"]
    parts = [
        *([_SYNTHETIC] if data["synthetic"] else []),
        "# Skin-lesion classifier of a federation",
        f"A {_kind(config)} ({config.size} x {config.size} pixels). Trained by FedDerm: no image "
        "left its site.",
        "## Data",
        markdown_table(
            ("site", "images", "lesions"),
            [(name, *_told(site)) for name, site in data["sites"].items()],
        ),
        *[
            f"- Left out: {markdown(f'{name} {reason}')}"
            for name, reason in sorted(data["left_out"].items())
        ],
        "## Training",
        _training(config, metrics["training"]),
        "## Test",
        "On lesions that were held out, from counts added over the sites; n/a where there is none."
        + (" Of each site alone nothing is known." if config.secure else ""),
        _scores({"all sites": metrics["overall"], **metrics["sites"]}),
        _per_class(metrics["overall"]),
        "## Use and limits",
        _USE,
    ]
    return "\n\n".join(parts) + "\n"


def _told(site: Mapping[str, Any]) -> list[object]:
    return [site[key] or "not told" for key in ("images", "lesions")]


def _kind(config: RunConfig) -> str:
    if config.method == "finetune":
        return f"{config.backbone} with a linear head, fine-tuned stage by stage"
    if config.method == "private_finetune":
        return f"{config.backbone} with a linear head, trained from {config.opens} on"
    if config.method == "private":
        return f"linear classifier on frozen features of {config.backbone}"
    return f"{_HEADS[config.head]}, on frozen features of {config.backbone}"


def _training(config: RunConfig, training: Mapping[str, Any]) -> str:
    facts: dict[str, object] = {"seed": config.seed}
    if not config.method.startswith("private"):
        facts["privacy"] = (
            "none is promised: exact sums left the sites, which may tell of single lesions whoever "
            "crafts questions; only a private method's noise hides them"
        )
    if config.secure:
        facts["sums"] = "secure: the coordinator learned those over all sites, no site's share"
    if config.method == "finetune":
        keys = ("bytes_sent", "bytes_of_whole_networks")
        sent, whole = (f"{training[key] / 1e6:.0f} MB" for key in keys)
        facts |= {
            "stages": ", ".join(config.stages),
            "aggregation": config.strategy,
            "rare classes": f"{config.imbalance}, by {config.priors} class frequencies",
            "rounds": training["rounds"],
            "best round on the validation lesions": training["best_round"] + 1,
            "sent to the sites and back": f"{sent}; whole networks would be {whole}",
        }
        return _list(facts)
    if config.method.startswith("private"):
        return _list(facts | _privacy(config, training["noise"]))
    facts["class weights"] = "balanced"
    if config.head == "svm":
        chosen = training["chosen"]
        facts |= {
            "kernel": config.kernel,
            "C": f"{chosen['c']:g}, chosen by cross-validation over whole lesions",
            "rounds of the final fit": training["rounds"],
            "gradient norm reached": f"{training['gradient_norm']:.1e}",
        }
    return _list(facts)


def _privacy(config: RunConfig, noise: float) -> dict[str, object]:
    promise = f"epsilon {config.epsilon:g}, delta {config.delta:g}, for each `{config.unit}`"
    whose = {
        "site": "each site's own noise, whoever reads its messages",
        "distributed": f"the noise of {config.honest} sites together, whoever reads only the sum",
    }
    return {
        "differential privacy": promise if config.epsilon else "none is promised",
        "by": whose[config.trust],
        "noise over the clipping norm": f"{noise:.3g}",
        "steps": config.steps,
        "test lesions": "not private",
    }


def _list(facts: Mapping[str, object]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _scores(groups: Mapping[str, Mapping[str, Any]]) -> str:
    names = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "macro_auc",
        "expected_calibration_error",
    )
    rows = [
        (group, values["n"], *(rounded(values[name], missing="n/a") for name in names))
        for group, values in groups.items()
    ]
    return markdown_table(
        ("tested on", "images", *(name.replace("_", " ") for name in names)), rows
    )


def _per_class(overall: Mapping[str, Any]) -> str:
    names = ("sensitivity", "specificity", "f1", "auc")
    rows = [
        (f"{dx}, {_NAMES[dx]}", *(rounded(values[name], missing="n/a") for name in names))
        for dx, values in overall["per_class"].items()
    ]
    return markdown_table(("diagnosis", *names), rows)
