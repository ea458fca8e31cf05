"""A damaged disk: whatever a run reads back, it gives the same model, or ends in one line."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.open_site
import server.app
from client.methods.svm import Prepared
from common.config.run import RunConfig
from common.errors import FedDermError, QuorumError
from server.run.checkpoint import Checkpoint
from server.run.folder import MODEL_FILE
from server.run.journal import Journal
from simulations.runtimes.experiment import simulate
from tests.finetuning import SCAFFOLD, content_of, dealt, quick, small_dataset, spread

SVM: dict[str, Any] = {"method": "svm", "c": 1e-4, "min_active": 1, "tolerance": 1e-3}
FINETUNE = {**SCAFFOLD, "stages": "layer4", "rounds": 3, "validate_every": 1}

SAME = "the same model"
READ_BACK = {
    "svm": {
        r"run/config\.json": "name a new folder|start it as it was",
        r"run/name": "run/name is damaged .*; remove it and start again",
        r"run/journal/moments-.*": SAME,
        r"run/journal/hinge-.*": SAME,
        r"run/rounds\.jsonl": f"{SAME}|rounds.jsonl was changed",
        r"run/training\.jsonl": f"{SAME}|training.jsonl was changed",
        r"cache/networks/.*": SAME,
        r"cache/\w+/.*\.safetensors": SAME,
        r"cache/scratch/\w+/\w+/X1\.npy": SAME,
    },
    "finetune": {
        r"run/checkpoint\.safetensors": "is no checkpoint .*; remove it to begin the run anew",
        r"run/training\.jsonl": f"{SAME}|training.jsonl was changed",
        r"cache/\w+/.*\.safetensors": SAME,
        r"sites/\w+/runs/\w+/\w+-\d\.safetensors": "is damaged",
    },
}


class Killed(BaseException):
    """The coordinator's process ends here."""


class Disk:
    """The files of an interrupted run, which can be put back as they were."""

    def __init__(self, config: RunConfig) -> None:
        assert config.out is not None
        self.config, self._root = config, config.out.parent
        self._files = {f: f.read_bytes() for f in self._found()}

    def find(self, pattern: str) -> Path:
        """Return the first file whose name matches."""
        names = {str(file.relative_to(self._root)): file for file in sorted(self._files)}
        return next(file for name, file in names.items() if re.fullmatch(pattern, name))

    def damage(self, file: Path, how: Callable[[bytes], bytes]) -> None:
        """Put all files back, and one damaged."""
        for other in self._found():
            other.unlink()
        for other, content in self._files.items():
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(how(content) if other == file else content)
        if file.parent.name == "networks":  # it is read only where features are missing
            for shard in self._root.glob("cache/*/*.safetensors"):
                shard.unlink()

    def _found(self) -> Iterator[Path]:
        for folder in ("run", "cache"):
            yield from (f for f in (self._root / folder).rglob("*") if f.is_file())
        yield from (self._root / "sites").glob("*/runs/*/*")


def outcome(config: RunConfig) -> str:
    """Run as a new process would; return in what words it failed."""
    client.open_site._sites_of.cache_clear()
    try:
        simulate(config)
    except FedDermError as error:
        return str(error)
    return SAME


@pytest.fixture(scope="module")
def configs(
    synthetic_folder: Path, network_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RunConfig]:
    folders = {method: tmp_path_factory.mktemp(method) for method in READ_BACK}
    for folder in folders.values():
        spread(small_dataset(synthetic_folder, images=30), folder, dealt(2))
    svm = quick(folders["svm"], network_file, quorum=2, views=1, **SVM)
    return {"svm": svm, "finetune": quick(folders["finetune"], network_file, quorum=2, **FINETUNE)}


@pytest.fixture(scope="module")
def models(configs: Mapping[str, RunConfig]) -> dict[str, bytes]:
    """Train them undisturbed."""
    found = {}
    for method, config in configs.items():
        folder = config.out.parent / "undisturbed"
        run = config.model_copy(update={"out": folder / "run", "cache": folder / "cache"})
        assert outcome(run) == SAME
        found[method] = content_of(run)
    return found


@pytest.fixture(scope="module")
def disks(configs: Mapping[str, RunConfig]) -> dict[str, Disk]:
    """Kill them after some sums, and some rounds."""
    found = {}
    for method, config in configs.items():
        left = iter(range(3))

        def kept(self: Any, *arguments: Any, _left: Any = left, _keep: Any = None) -> None:
            if next(_left, None) is None:
                raise Killed
            _keep(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            owner, name = (Journal, "keep") if method == "svm" else (Checkpoint, "save")
            keep = getattr(owner, name)
            patch.setattr(owner, name, lambda *a, k=keep: kept(*a, _keep=k))
            patch.setattr(server.app.Federation, "close", lambda *_: None)
            with pytest.raises(Killed):
                outcome(config)
        found[method] = Disk(config)
    return found


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


@pytest.mark.parametrize(
    ("method", "pattern"), [(m, each) for m in READ_BACK for each in READ_BACK[m]]
)
def test_what_is_read_back_is_what_was_written(models, disks, method, pattern) -> None:
    disk, rng = disks[method], np.random.default_rng(len(pattern))
    disk.damage(disk.find(pattern), lambda content: flipped(content, rng))
    words = outcome(disk.config)
    assert re.search(READ_BACK[method][pattern], words), words
    assert words.isprintable()
    if words == SAME:
        assert content_of(disk.config) == models[method]
    else:
        assert not (disk.config.out / MODEL_FILE).exists()


def test_every_kind_of_file_is_among_them(disks) -> None:
    for method, disk in disks.items():
        kinds = [*READ_BACK["svm"], *READ_BACK[method], r"cache/scratch/\w+/\w+/\w+\.npy"]
        # Of a count only its length is read.
        unread = [r"cache/scratch/\w+/(scores-.*\.npy|\d+\.count)"]
        for file in disk._files:
            name = str(file.relative_to(disk._root))
            assert any(re.fullmatch(kind, name) for kind in kinds + unread), name


def test_what_a_site_keeps_between_questions_is_verified(configs, monkeypatch) -> None:
    save = Prepared.save

    def damaged(self: Prepared, folder: Path) -> None:
        save(self, folder)
        file = folder / "X1.npy"
        file.write_bytes(flipped(file.read_bytes(), np.random.default_rng(0)))

    monkeypatch.setattr(Prepared, "save", damaged)
    config = configs["svm"]
    run = config.model_copy(update={"out": config.out.parent / "other"})
    client.open_site._sites_of.cache_clear()
    with pytest.raises(QuorumError, match=r"X1\.npy is damaged"):
        simulate(run)


def test_weights_that_are_replaced_make_no_model(configs, network_file, tmp_path) -> None:
    """Neither while the run goes on, nor between two starts."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(network_file.read_bytes())
    places = {"out": tmp_path / "run", "cache": tmp_path / "cache", "weights": weights}
    config = configs["finetune"].model_copy(update=places)
    save = Checkpoint.save

    def replaced(self: Checkpoint, path: Path) -> None:
        save(self, path)
        weights.write_bytes(flipped(network_file.read_bytes(), np.random.default_rng(0)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", replaced)
        assert "the file of the pretrained weights was replaced while" in outcome(config)
    assert "an unfinished run whose weights_sha256 is" in outcome(config)
