"""What an attacking coordinator tries: usual questions of each method, changed and out of order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from common.answers.appearance import SIZE
from common.answers.paired import OF_INCUMBENT, DecisionRules
from common.config.run import RunConfig
from common.data.metadata import width
from common.finetune.half_precision import to_wire
from common.finetune.plan import NONNEGATIVE
from common.svm.feature_map import FeatureMap, FourierMap
from common.task import HAM10000
from tests.adversary import RUN, USUAL, Asks, Attack, K, Values, used_by
from tests.sites import N_FEATURES

_FACTORS = st.sampled_from([0.0, -1.0, 1e-9, 1e4, 1e9, 1e16, 1e160, 1e308, np.nan, np.inf])
_DTYPES = st.sampled_from(["<f4", "<f8", "<i8", "|u1", ">f8", "<c16", "|b1"])
_ODD_VALUES = st.one_of(
    st.integers(-3, 130),
    st.just(2**62),
    st.floats(allow_nan=True),
    st.sampled_from(["", "0a", "../x", "x" * 300, "test", "train", b"\0", b"x" * 32]),
    st.booleans(),
    st.lists(st.integers(-1, 10**12), max_size=8),
)


@st.composite
def mutated(draw: Any, asks: Asks, sizes: st.SearchStrategy[int]) -> Asks:
    """Change arrays and values of a question."""
    arrays, values = dict(asks.arrays), dict(asks.values)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(arrays))) if arrays else ""
        match draw(st.integers(0, 8)):
            case 0 if arrays:
                with np.errstate(all="ignore"):
                    arrays[name] = arrays[name] * draw(_FACTORS)
            case 1 if arrays and arrays[name].size:
                flat = arrays[name].astype(np.float64).ravel().copy()
                flat[draw(st.integers(0, flat.size - 1))] = draw(_FACTORS)
                arrays[name] = flat.reshape(arrays[name].shape)
            case 2 if arrays:
                arrays[name] = np.broadcast_to(
                    arrays[name], (draw(sizes), *arrays[name].shape)
                ).copy()
            case 3 if arrays and arrays[name].ndim:
                axis = draw(st.integers(0, arrays[name].ndim - 1))
                arrays[name] = np.take(arrays[name], range(arrays[name].shape[axis] - 1), axis)
            case 4 if arrays:
                with np.errstate(all="ignore"):
                    arrays[name] = arrays[name].astype(draw(_DTYPES))
            case 5 if arrays:
                del arrays[name]
            case 6:
                arrays[draw(st.sampled_from(["more", "weights", "mean"]))] = np.ones(draw(sizes))
            case 7 if values:
                values[draw(st.sampled_from(sorted(values)))] = draw(_ODD_VALUES)
            case _:
                values[draw(st.sampled_from(["more", "step", "map"]))] = draw(_ODD_VALUES)
    return Asks(asks.question, arrays, values, draw(st.integers(1, 2)))


_SHARE = st.sampled_from([0.0, 0.5, 2.0])
_WEIGHTS = st.sampled_from([0.0, 1e-3, 1.0, -2.0, 1e3, 1e9])


@st.composite
def weights(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Draw weights: nothing, noise, huge ones, or such that single records stand out."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = draw(_WEIGHTS) * rng.standard_normal(shape)
    found[..., -1] += draw(_WEIGHTS)
    return found


@st.composite
def of_svm(draw: Any, settings: Values) -> list[Asks]:
    """Ask an SVM's site for sums under maps of the attacker's."""
    columns, fourier = min(int(settings["components"]), N_FEATURES), None
    if settings["kernel"] == "rbf":
        width = draw(st.sampled_from([0.5, 1e6, 1e-9]))
        fourier = FourierMap(int(settings["fourier"]), width, int(settings["seed"]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    matrix = draw(st.sampled_from([0.0, 1.0, 1e9])) * rng.standard_normal((N_FEATURES, columns))
    feature_map = FeatureMap(np.zeros(N_FEATURES), matrix, fourier)
    class_weights = np.array([draw(st.sampled_from([0.0, 1.0, 1e9])) for _ in range(K)])
    named = {"map": feature_map.digest}
    prepare = Asks("prepare", {**feature_map.to_record(), "class_weights": class_weights}, named)
    asks = [Asks("join"), Asks("moments"), *draw(of_appearance()), prepare]
    for _ in range(draw(st.integers(1, 4))):
        fits = draw(st.sampled_from([1, int(settings["folds"]), 3]))
        arrays = {"weights": draw(weights((fits, K, feature_map.n_outputs + 1)))}
        judged = ["calibrate", "evaluate", "answers"]
        question = draw(st.sampled_from(["hinge", "hinge", *judged, "other"]))
        if question in judged:
            arrays |= {"calibration": draw(weights((2, K))), "base_rates": np.full(K, 1 / K)}
        asks.append(Asks(question, arrays, named))
    if fourier:
        asks.insert(asks.index(prepare) + 1, Asks("mapped_moments", {}, named))
    if settings["gate"]:
        asks += draw(of_gate(feature_map, named))
    return asks


@st.composite
def of_gate(draw: Any, feature_map: FeatureMap, named: Values) -> list[Asks]:
    """Ask how two models of the attacker's do on the same lesions."""
    shape = (K, feature_map.n_outputs + 1)
    old = {**feature_map.to_record(), "weights": draw(weights(shape))}
    rules = DecisionRules(
        draw(weights((2, K))), np.full(K, 1 / K), np.full(K, 0.2), np.array(draw(_SHARE))
    )
    both = {**rules.to_record(OF_INCUMBENT), **rules.to_record()}
    asked = {"weights": draw(weights((1, *shape))), **both}
    return [Asks("incumbent", old), *(Asks(n, asked, named) for n in ("paired", "paired_groups"))]


@st.composite
def of_appearance(draw: Any) -> list[Asks]:
    """Ask how lesions look, and for distances from what the attacker likes."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scale = draw(st.sampled_from([0.0, 1.0, 1e9]))
    whitening = scale * rng.uniform(-1, 1, (SIZE, SIZE))
    mean = draw(st.sampled_from([0.0, 1.0, 1e9])) * rng.uniform(-1, 1, SIZE)
    return [Asks("appearance"), Asks("distances", {"mean": mean, "whitening": whitening})]


@st.composite
def of_private(draw: Any, settings: Values) -> list[Asks]:
    """Ask a private site for noisy sums at points of the attacker's."""
    columns = [column for column in settings["metadata"].split(",") if column]
    dimensions = min(int(settings["components"]), N_FEATURES) + width(columns)
    asks = [Asks("join"), Asks("overview", {}, {"run": RUN, "step": 0})]
    for step in range(1, draw(st.integers(2, 5))):
        arrays = {
            "mean": draw(weights((dimensions,))),
            "scale": np.array(draw(st.sampled_from([0.0, 1.0, 1e6]))),
            "offset": draw(weights((K,))),
            "class_weight": np.array([draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in range(K)]),
            "weights": draw(weights((K, dimensions + 1))),
        }
        question = draw(st.sampled_from(["gradient", "gradient", "moments", "evaluate", "other"]))
        if question == "moments":
            arrays = {name: arrays[name] for name in ("mean", "scale")}
        if question == "evaluate":
            arrays = {
                "weights": arrays["weights"],
                "calibration": draw(weights((2, K))),
                "base_rates": np.full(K, 1 / K),
            }
        values = {} if question == "evaluate" else {"run": RUN, "step": step}
        asks.append(Asks(question, arrays, values))
    return asks


@st.composite
def of_finetune(draw: Any, settings: Values) -> list[Asks]:
    """Ask a site that trains a network for its steps from weights of the attacker's."""
    from common.finetune.plan import plan, shapes
    from common.networks.network import open_stage, shared_network

    config = RunConfig.read(settings)
    network = shared_network(config.backbone, config.weights, HAM10000.n_classes)
    asks = [Asks("join"), Asks("counts"), *draw(of_appearance())]
    for _ in range(draw(st.integers(1, 2))):
        number = draw(st.integers(0, len(plan(config)) - 1))
        this = plan(config)[number]
        needed = shapes(open_stage(network, this.stage), config, this.begins)
        scale = draw(st.sampled_from([0.0, 1.0, 200.0, 1e6]))
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        tensors = {}
        for name, shape in needed.items():
            tensor = np.asarray(scale * rng.uniform(-1, 1, shape), np.float32)
            tensors[name] = abs(tensor) if name.startswith(NONNEGATIVE) else tensor
        counts = draw(st.lists(st.sampled_from([0, 1, 50, 2000]), min_size=K, max_size=K))
        asks.append(
            Asks(
                "train",
                to_wire(tensors),
                {"run": RUN, "round": number, "counts": counts, "images": 99},
            )
        )
        weights_ = {n: a for n, a in tensors.items() if "/" not in n}
        rule = {"calibration": draw(weights((2, K))), "base_rates": np.full(K, 1 / K)}
        about = {"scores": f"{number:064x}", "subset": "test", "views": 1, "personal": False}
        question = draw(st.sampled_from(["evaluate", "calibrate", "answers"]))
        asks += [Asks(question, {**weights_, **rule}, about), Asks(question, rule, about)]
    return asks


@st.composite
def of_private_finetune(draw: Any, settings: Values) -> list[Asks]:
    """Ask a private site for noisy gradients of a network at weights of the attacker's."""
    from common.privacy.network import run_part

    size = run_part(RunConfig.read(settings)).pretrained.size
    asks = [Asks("join"), Asks("overview", {}, {"run": RUN, "step": 0})]
    for step in range(1, draw(st.integers(2, 4))):
        scale = draw(st.sampled_from([0.0, 1.0, 1e3, 1e6]))
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        arrays = {
            "weights": scale * rng.standard_normal(size).clip(-1, 1),
            "offset": draw(weights((K,))).clip(-1e6, 1e6),
            "class_weight": np.array([draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in range(K)]),
        }
        asks.append(Asks("gradient", arrays, {"run": RUN, "step": step}))
    rule = {"calibration": draw(weights((2, K))).clip(-1e6, 1e6), "base_rates": np.full(K, 1 / K)}
    return [*asks, Asks("evaluate", {"weights": arrays["weights"], **rule})]


@st.composite
def of_validate(draw: Any, settings: Values) -> list[Asks]:
    """Ask a site to judge what the attacker calls a model, more often than a model needs."""
    from common.networks.network import shared_network

    config = RunConfig.read(settings)
    network = shared_network(config.backbone, config.weights, HAM10000.n_classes)
    rule = {"calibration": draw(weights((2, K))), "base_rates": np.full(K, 1 / K)}
    asks = [Asks("join"), Asks(draw(st.sampled_from(["evaluate", "answers"])), rule)]
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            feature_map = FeatureMap(draw(weights((N_FEATURES,))), draw(weights((N_FEATURES, 9))))
            model = {**feature_map.to_record(), "weights": draw(weights((K, 10)))}
            asks.append(Asks("linear", model))
        else:
            scale = draw(st.sampled_from([0.0, 1.0, 1e3, 1e6, 1e7, np.nan]))
            named = draw(st.sampled_from([["head.weight", "head.bias"], ["head.bias"], []]))
            shapes = {name: tuple(network.pretrained[name].shape) for name in named}
            tensors = {name: np.full(shape, scale, np.float32) for name, shape in shapes.items()}
            asks.append(Asks("network", tensors))
        asks += [Asks(name, rule) for name in ("evaluate", "answers", "groups", "calibrate")]
    return asks


_SIZED = ("components", "fourier", "components")
"""Settings that may be as many as a hospital has images or lesions; so may one over ``delta``."""

_PRIVACY: Mapping[str, st.SearchStrategy[Any]] = {
    "epsilon": st.sampled_from([0.0, 1e-6, 0.5, 2.0, 1e9]),
    "delta": st.sampled_from([1e-5, 1e-300]),
    "unit": st.sampled_from(["lesion_id", "image_id", "patient_id"]),
    "clip_norm": st.sampled_from([1e-9, 1.0, 1e6, 1e300]),
    "rate": st.sampled_from([1e-6, 0.5, 1.0]),
    "steps": st.sampled_from([1, 3, 100]),
}
_SETTINGS: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "common": {
        "folds": st.integers(2, 9),
        "test_fraction": st.sampled_from([0.0, 0.2, 0.5, 0.99]),
    },
    "svm": {
        "components": st.sampled_from([1, 8, 40, 96, 512]),
        "kernel": st.sampled_from(["linear", "linear", "rbf"]),
        "fourier": st.just(50),
        "clip_features": st.sampled_from([0.0, 1.0]),
        "min_active": st.integers(1, 40),
        "gate": st.just(True),
        "gate_by": st.sampled_from(["sex", "sex*age"]),
    },
    "private": {
        **_PRIVACY,
        "components": st.integers(1, 130),
        "head": st.sampled_from(["softmax", "hinge", "lda"]),
        "metadata": st.sampled_from(["age,sex,localization", "localization"]),
        "metadata_scale": st.sampled_from([0.3, 1e3, 1e300]),
        "metadata_dropped": st.sampled_from([0.0, 0.9]),
    },
    # What is drawn below is opened by these settings, and has to fit them.
    "finetune": {
        "imbalance": st.sampled_from(["weights", "oversample", "focal", "logits"]),
        "priors": st.sampled_from(["global", "local"]),
        "seed": st.integers(0, 2),
    },
    "private_finetune": _PRIVACY,
    "validate": {
        "lesions": st.sampled_from(["all", "test"]),
        "by": st.sampled_from(["", "sex", "age,site", "sex*localization", "age:40"]),
    },
}
_DEFAULTS: Mapping[str, Values] = {
    "svm": {"components": 40, "min_active": 20, "folds": 2},
    "private": {"components": 12, "epsilon": 2.0, "steps": 3, "folds": 2},
    "finetune": {},
    "private_finetune": {"epsilon": 2.0, "steps": 3, "opens": "layer4", "metadata": "age,sex"},
    "validate": {"folds": 2, "by": "sex,sex*age"},
}
_RULES = {
    "least_count": st.sampled_from([0, 0, 5]),
    "least_lesions": st.sampled_from([0, 0, 20]),
    "min_active": st.sampled_from([1, 1, 20]),
    "test_counts": st.booleans(),
    "epsilon": st.sampled_from([3.0, 3.0, 3.0, 0.0]),
    "questions": st.sampled_from([0, 0, 0, 3]),
}
_ASKS = {
    "svm": of_svm,
    "private": of_private,
    "finetune": of_finetune,
    "private_finetune": of_private_finetune,
    "validate": of_validate,
}


@st.composite
def attacks(draw: Any, method: str, fixed: Values, counts: Sequence[int]) -> Attack:
    """Draw an attack on a method: some settings, some rules, and at most two odd questions.

    Parameters
    ----------
    fixed : settings that fit the hospitals' data, and places on this machine.
    counts : how many images, lesions and the like the hospitals have.
    """
    sizes = st.one_of(st.sampled_from(counts), st.integers(0, 130))
    known = {**_SETTINGS["common"], **_SETTINGS[method]}
    settings = {**used_by(method, fixed), "method": method, **_DEFAULTS[method]}
    asks = draw(_ASKS[method](RunConfig.read(settings).flat()))
    settings["secure"] = draw(st.booleans())
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=2, unique=True)):
        settings[name] = draw(known[name])
        if name in _SIZED and draw(st.booleans()):
            settings[name] = max(1, draw(sizes))
        if name == "delta" and draw(st.booleans()):
            settings[name] = 1 / (draw(sizes) + 0.5)
    if method in ("svm", "private"):  # their questions fit whatever the settings are
        asks = draw(_ASKS[method]({**USUAL, **settings}))
    rules = {name: draw(_RULES[name]) for name in sorted(_RULES)}
    rules["least_sites"] = draw(st.sampled_from([0, 3] if settings["secure"] else [0, 0, 0, 3]))
    for odd in draw(st.lists(st.integers(0, len(asks) - 1), max_size=2, unique=True)):
        asks[odd] = draw(mutated(asks[odd], sizes))
    return Attack(settings, rules, asks)
