"""A model file is hostile: whatever is in it, it is a model that gives numbers, or one line."""

import copy
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

import common.models.predictor
from common.answers.basis import AnswerBasis
from common.errors import ConfigError, DataError, FedDermError
from common.features.extract import FeatureSpec
from common.models.file import load_model
from common.models.linear import LinearModel
from common.models.network import NetworkModel
from common.models.predictor import Predictor
from common.networks.spatial_maps import map_network
from common.storage.verified import pack_arrays, read_arrays
from common.svm.feature_map import FourierMap
from common.task import HAM10000
from tests.common.models.test_linear import VIEWS, make_model
from tests.examples import examples
from tests.finetuning import quick

HOSTILE = examples(100, deeper=200)
DEEP = json.loads("[" * 200 + "]" * 200)
PASSWORDS = "/etc/passwd"

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 10**6, 10**12, 2**63, 10**400, 1e308, float("inf"), float("nan")]),
    st.sampled_from(["", "a\nb", "\x1b[2J", PASSWORDS, "../x", "svm", "finetune", "9" * 5000]),
    st.sampled_from([[], {}, [[]], {"a": {}}, DEEP, [1, "2", None]]),
)
COUNTS = st.sampled_from([0, -1, 10**9, 2**63 - 1])
NUMBERS = st.sampled_from([0.0, -1.0, 0.5, 1e12, 1e300, -1e300, np.inf, -np.inf, np.nan])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, network_file: Path) -> dict[str, bytes]:
    """Write one good model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    make_model(FourierMap(16, 1.7, 5)).save(folder / "rbf")
    make_model(None).save(folder / "linear")
    config = quick(folder, network_file)
    rng = np.random.default_rng(0)
    weights = {"head.weight": rng.random((7, 96), np.float32), "head.bias": np.zeros(7, "f4")}
    network = NetworkModel(weights, AnswerBasis.of(HAM10000, np.ones((2, 7)), np.ones(7)), config)
    network.save(folder / "network")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def image() -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (80, 70), "pink").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder for one file after the other."""
    return tmp_path_factory.mktemp("hostile")


class NoNetwork(NamedTuple):
    """Gives any image the same maps."""

    def each(self, images: Iterable[tuple[str, bytes]], of_maps: Callable[[Any], Any]) -> Any:
        maps = [VIEWS[0][:, :3, None, None], VIEWS[0][:, 3:, None, None]]
        return [of_maps(maps) for _ in images]


@pytest.fixture(scope="module", autouse=True)
def features() -> Iterator[None]:
    """Give the linear models features without a network."""

    def network(spec: FeatureSpec, folders: Sequence[Path], trained: Any = None) -> Any:
        return NoNetwork() if trained is None else map_network(spec, folders, trained)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.models.predictor, "map_network", network)
        yield


def refused(path: Path, content: bytes, weights: Path, image: bytes) -> str:
    """Return in what words a model is refused, loaded or used; "" for one that works."""
    path.write_bytes(content)
    words = ""
    try:
        found = Predictor(load_model(path, weights)).predict({"image": image})
    except FedDermError as error:
        words = str(error)
        assert words
    else:
        numbers = [found.probabilities, [] if found.distance is None else found.distance]
        assert all(np.isfinite(each).all() for each in numbers)
    assert words.isprintable()
    assert len(words) < 1000
    return words


def mutated(value: Any, data: st.DataObject) -> Any:
    """Change one thing somewhere in a tree of objects and lists."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 7)):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 4)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutated(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 3)):
        place = data.draw(st.integers(0, len(value) - 1))
        return [*value[:place], mutated(value[place], data), *value[place + 1 :]]
    if isinstance(value, dict) and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["out", "weights", "sites", "cache", "new", "a\nb"]))
        return value | {key: data.draw(ODD)}
    return data.draw(ODD)


def mutated_array(array: np.ndarray, data: st.DataObject) -> np.ndarray:
    """Change the type, the shape or a value."""
    how = data.draw(st.sampled_from(["value", "type", "shape", "empty", "all"]))
    numbers = COUNTS if array.dtype.kind == "i" else NUMBERS
    if how == "value" and array.size:
        array = array.copy()
        array.flat[data.draw(st.integers(0, array.size - 1))] = data.draw(numbers)
    elif how == "all":
        array = np.full(array.shape, data.draw(numbers), array.dtype)
    elif how == "type":
        array = array.astype(data.draw(st.sampled_from(["f2", "f4", "i8", "u1", "?"])))
    elif how == "shape":
        array = data.draw(
            st.sampled_from([array[..., None], array.ravel(), np.atleast_1d(array)[..., :-1].T])
        )
    else:
        array = np.zeros((0, 10**12), array.dtype)
    return array


@HOSTILE
@given(data=st.data())
def test_no_damaged_byte_is_believed(models, network_file, image, folder, data):
    path = folder / "model"
    content = bytearray(models[data.draw(st.sampled_from(sorted(models)))])
    place = data.draw(st.integers(0, len(content) - 1))
    # Most of a file is numbers; its header and description are at the front.
    place = place % data.draw(st.sampled_from([9, 200, 4000, len(content)]))
    how = data.draw(st.sampled_from(["flip", "cut", "double", "zeros"]))
    if how == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del content[place:]
    elif how == "double":
        content[place:place] = content[place : place + 50]
    else:
        end = place + data.draw(st.integers(1, 100))
        content[place:end] = bytes(len(content[place:end]))
    if bytes(content) not in models.values():
        assert refused(path, bytes(content), network_file, image)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # the test's own
@HOSTILE
@given(data=st.data())
def test_what_a_model_says_of_itself_may_be_anything(models, network_file, image, folder, data):
    path = folder / "model"
    path.write_bytes(models[data.draw(st.sampled_from(sorted(models)))])
    arrays, fields = read_arrays(path)
    for _ in range(data.draw(st.integers(0, 2))):
        fields = mutated(fields, data)
        if not isinstance(fields, dict):
            fields = {"fields": fields}
    for name in data.draw(st.sets(st.sampled_from(sorted(arrays)), max_size=2)):
        if data.draw(st.integers(0, 5)):
            arrays[name] = np.array(mutated_array(arrays[name], data), order="C")
        else:
            del arrays[name]
    try:
        content = pack_arrays(arrays, fields)
    except (ValueError, RecursionError):  # not even a hostile hand can write it so
        return
    refused(path, content, network_file, image)


@HOSTILE
@given(data=st.data())
def test_a_header_may_be_anything(models, network_file, image, folder, data):
    path = folder / "model"
    content = models[data.draw(st.sampled_from(sorted(models)))]
    end = 8 + int.from_bytes(content[:8], "little")
    header = mutated(json.loads(content[8:end]), data)
    try:
        text = json.dumps(header).encode()
    except (ValueError, RecursionError):
        return
    claimed = data.draw(st.sampled_from([len(text), len(text), 0, 2**40, 2**64 - 1]))
    content = claimed.to_bytes(8, "little") + text + content[end:]
    if content not in models.values():
        refused(path, content, network_file, image)


def edited(content: bytes, path: Path, change: Any) -> bytes:
    """Return a model with other fields or arrays, and the digest that belongs to them."""
    path.write_bytes(content)
    arrays, fields = read_arrays(path)
    fields = copy.deepcopy(fields)
    change(arrays, fields)
    return pack_arrays(arrays, fields)


def _nested(arrays: Any, fields: Any) -> None:
    fields["config"]["c"] = DEEP


CASES = {
    "a path": (lambda a, f: f["config"].update(weights=PASSWORDS), "it says 'weights', which is"),
    "a size": (lambda a, f: f["config"].update(size=10**9), "'size' is 1000000000"),
    "components": (lambda a, f: f["config"].update(components=10**12), "'components' is 1000000"),
    "nesting": (_nested, "'c' is"),
    "a version": (
        lambda a, f: f.pop("version"),
        "another version of FedDerm wrote it; train it again",
    ),
    "Fourier features": (
        lambda a, f: a.update(fourier=np.array([1e12, 1.7, 5.0])),
        "its Fourier map has the size 1e+12",
    ),
    "a negative size": (
        lambda a, f: a.update(fourier=np.array([-16, 1.7, 5.0])),
        "its Fourier map has the size -16",
    ),
    "infinity": (
        lambda a, f: a["weights"].__setitem__((0, 0), np.inf),
        "array 'weights' has values that are no finite numbers",
    ),
    "huge numbers": (
        lambda a, f: a.update(calibration=np.full((2, 7), 1e300)),
        "array 'calibration' has values that are no finite numbers",
    ),
    "huge answers": (
        lambda a, f: a.update(weights=np.full_like(a["weights"], 1e100)),
        "the model gives values that are no finite numbers",
    ),
    "another type": (
        lambda a, f: a.update(mean=a["mean"].astype(np.float32)),
        "array 'mean' is F32, expected F64",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_line_says_what_is_wrong(models, network_file, image, tmp_path, case):
    change, words = CASES[case]
    content = edited(models["rbf"], tmp_path / "good", change)
    assert words in refused(tmp_path / "model", content, network_file, image)


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model")
    with pytest.raises(DataError, match="is no FedDerm model"):
        load_model(tmp_path / "model")


def test_a_model_knows_its_pretrained_weights(models, network_file, image, tmp_path) -> None:
    path, weights = tmp_path / "model", tmp_path / "weights.safetensors"
    path.write_bytes(models["network"])
    weights.write_bytes(network_file.read_bytes())
    before = Predictor(load_model(path, weights)).predict({"image": image})
    content = bytearray(weights.read_bytes())
    content[-10] ^= 64
    weights.write_bytes(content)
    needed = (
        r"model: the pretrained weights of 'test_resnet' are needed whose SHA-256 is [0-9a-f]{64}"
    )
    with pytest.raises(ConfigError, match=f"{needed}, which {weights} has not; name their file"):
        load_model(path, weights)
    with pytest.raises(ConfigError, match=f"{needed}; name their file with --weights"):
        load_model(path)
    # Among several the right one is taken, and it is that of the moment, not of the process.
    found = load_model(path, weights, network_file)
    assert found.config.weights == network_file
    after = Predictor(found).predict({"image": image})
    np.testing.assert_array_equal(after.probabilities, before.probabilities)


def test_a_linear_model_knows_them_too(models, tmp_path, monkeypatch) -> None:
    (tmp_path / "model").write_bytes(models["rbf"])
    (tmp_path / "other.pth").write_bytes(b"other weights")
    assert isinstance(load_model(tmp_path / "model"), LinearModel)
    other = lambda backbone, weights: tmp_path / "other.pth"  # noqa: E731
    monkeypatch.setattr(common.features.pretrained, "weights_file", other)
    with pytest.raises(
        ConfigError, match=r"model: the pretrained weights of 'tf_efficientnet_lite0"
    ):
        load_model(tmp_path / "model")
