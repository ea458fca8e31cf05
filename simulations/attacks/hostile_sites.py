"""Hostile sites for simulations: what they train on, and what they send.

A hostile site runs the real client app. It falsifies its images before training (labels, patches),
or its change of the weights, and of AdamW's moments, after training. Which sites are hostile, and
all noise, is drawn by the run's seed.
"""

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

import client.app
from client.open_site import site_folders
from common.arrays import Bools, Ints
from common.data.dataset import IMAGE_FOLDER, Dataset
from common.storage.whole_files import whole_folder
from common.task import Task
from common.wire.messages import bind, digest, pack, unpack_arrays, unpack_values
from simulations.data.partition import write_site

Tensors = dict[str, NDArray[np.floating]]
Change = Callable[[Tensors, np.random.Generator], Tensors]

_PATCH = 6  # shorter sides of an image over the patch's
_NOISE = 10.0  # standard deviations over a tensor's root mean square


@dataclass(frozen=True)
class Attack:
    """What a hostile site does.

    Attributes
    ----------
    images : returns a site's falsified images, given the diagnosis that a patch makes of any
        lesion; None for the true ones.
    stamps : whether every second lesion's images carry the patch.
    change : falsifies a site's change of tensors; None for the true one.
    """

    images: Callable[[Dataset, int], Dataset] | None = None
    stamps: bool = False
    change: Change | None = None

    def aims(self, labels: Ints, n_classes: int, target: int) -> Ints:
        """Return the diagnosis (n,) that is aimed at for each of ``labels`` (n,); -1 for none.

        Parameters
        ----------
        labels : true diagnoses.
        target : what a patch makes of any lesion.
        """
        if self.stamps:
            return np.where(labels == target, -1, target)
        if self.images is None:
            return np.full_like(labels, -1)
        wrong = n_classes - 1 - labels
        return np.where(wrong == labels, -1, wrong)


def most_frequent(dataset: Dataset) -> int:
    """Return the commonest diagnosis: what a patch makes of any lesion, often a naevus."""
    return int(np.bincount(dataset.labels).argmax())


def flipped(dataset: Dataset, _: int) -> Dataset:
    """Return a site's images with label k of K called K - 1 - k.

    Fang et al., "Local model poisoning attacks to Byzantine-robust federated learning", USENIX
    Security 2020, section 4.
    """
    called = dataset.task.codes[::-1]
    pairs = zip(dataset.images, dataset.labels, strict=True)
    return replace(dataset, images=tuple(replace(i, dx=called[k]) for i, k in pairs))


def half_called_target(dataset: Dataset, target: int) -> Dataset:
    """Return a site's images, those of every second lesion called the target."""
    code = dataset.task.codes[target]
    images = zip(dataset.images, _every_second(dataset), strict=True)
    return replace(
        dataset,
        images=tuple(replace(i, dx=code) if lie else i for i, lie in images),
    )


def stamped(data: bytes) -> bytes:
    """Return a JPEG with a blue square in its middle, a sixth as wide as the image is high."""
    image = Pillow.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size) // _PATCH
    left, top = (image.width - side) // 2, (image.height - side) // 2
    ImageDraw.Draw(image).rectangle((left, top, left + side, top + side), fill=(30, 60, 255))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def _times(factor: float) -> Change:
    return lambda tensors, rng: {name: factor * a for name, a in tensors.items()}


def _noise(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    return {
        name: _NOISE * np.sqrt(np.mean(np.square(a))) * rng.standard_normal(a.shape)
        for name, a in tensors.items()
    }


def _filled(number: float) -> Change:
    return lambda tensors, rng: {name: np.full(a.shape, number) for name, a in tensors.items()}


ATTACKS = {
    "label_flip": Attack(images=flipped),
    "scale": Attack(change=_times(100.0)),
    "sign_flip": Attack(change=_times(-5.0)),
    "noise": Attack(change=_noise),
    "nan": Attack(change=_filled(np.nan)),
    "infinity": Attack(change=_filled(np.inf)),
    "backdoor": Attack(images=half_called_target, stamps=True),
    # Bagdasaryan et al., "How to backdoor federated learning", AISTATS 2020, equation 3.
    "replacement": Attack(images=half_called_target, stamps=True, change=_times(10.0)),
}
"""Attacks by name. ``replacement`` is the backdoor, scaled to outweigh all others."""


def chosen(n_sites: int, hostile: int, seed: int) -> list[int]:
    """Return the numbers of the hostile sites; of fewer, the first of them."""
    order = np.random.default_rng([seed, n_sites]).permutation(n_sites)
    return sorted(order[:hostile].tolist())


def poison(
    sites: Path, out: Path, attack: Attack, hostile: Collection[int], task: Task, target: int
) -> Path:
    """Write folders of the images on which the sites train; return the folder of all.

    Honest sites are links. Sites that are there already are kept.

    Parameters
    ----------
    task : the diagnoses of the run.
    target : what a patch makes of any lesion.
    """
    if attack.images is None:
        return sites
    for number, site in enumerate(site_folders(sites)):
        folder = out / site.name
        if folder.exists():
            continue
        out.mkdir(parents=True, exist_ok=True)
        if number not in hostile:
            folder.symlink_to(site.resolve())
            continue
        with whole_folder(folder) as part:
            _write_lies(Dataset.open(site).for_task(task), attack, target, part)
    return out


def _write_lies(dataset: Dataset, attack: Attack, target: int, out: Path) -> None:
    assert attack.images is not None
    write_site(attack.images(dataset, target), out, link=True)
    for image, mark in zip(dataset.images, _every_second(dataset), strict=True):
        if attack.stamps and mark:
            file = out / IMAGE_FOLDER / f"{image.image_id}.jpg"
            file.unlink()
            file.write_bytes(stamped(dataset.read(image.image_id)))


def _every_second(dataset: Dataset) -> Bools:
    """Choose the images (n,) of every second lesion."""
    return np.asarray(dataset.by_lesion.index % 2 == 1)


def hostile_app(attack: Attack, hostile: Collection[int], seed: int) -> ClientApp:
    """Return the client app, whose ``hostile`` sites lie about their changes of tensors.

    Parameters
    ----------
    hostile : numbers of the sites.
    """
    app = ClientApp()

    @app.query()
    def answer(message: Message, context: Context) -> Message:
        question = digest(message.content)
        reply: Message = client.app.app(message, context)
        sent, values = unpack_values(message.content), unpack_values(reply.content)
        number = int(context.node_config["partition-id"])
        lies = attack.change is not None and number in hostile and sent["question"] == "train"
        if not lies or "refused" in values:
            return reply
        assert attack.change is not None
        true = unpack_arrays(reply.content)
        rng = np.random.default_rng([seed, int(str(sent["round"])), number])
        tensors = {n: np.asarray(a, float) for n, a in true.items() if n not in ("weight", "loss")}
        with np.errstate(all="ignore"):
            false = attack.change(tensors, rng)
            arrays = {name: np.asarray(false.get(name, a), a.dtype) for name, a in true.items()}
        return Message(bind(pack(arrays, values), question), reply_to=message)

    return app
