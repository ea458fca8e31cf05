"""Partitions of pooled data over sites; all images of a lesion are at one site."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.arrays import Ints
from common.data.dataset import IMAGE_FOLDER, MASK_FOLDER, SYNTHETIC_MARKER, Dataset
from common.data.image import Image
from common.data.tables.ham10000 import METADATA_FILE, write_metadata
from common.errors import ConfigError, DataError
from common.storage.reading import read_bytes
from common.storage.whole_files import owned, whole_folder
from common.text import NAME_RULE, is_site_name

_MOST_ALPHA = 1e6

Scheme = Literal["natural", "iid", "dirichlet", "quantity"]


def partition(
    dataset: Dataset, scheme: Scheme, sites: int | None, alpha: float, seed: int
) -> dict[str, Ints]:
    """Spread the lesions over sites.

    Parameters
    ----------
    scheme : ``natural``: a lesion goes to the acquisition source of most of its images, the first
        by name if several have as many. ``iid``: equal numbers of random lesions. ``dirichlet``:
        label skew, the shares of each class are drawn from Dir(alpha) [1]_. ``quantity``: size
        skew, the shares of all lesions are drawn from Dir(alpha).
    sites : number of sites; None, for ``natural`` only, takes as many as there are sources.
    alpha : concentration of the Dirichlet distribution: the smaller, the more skewed.

    Returns
    -------
    Ascending numbers of images, (n_images,), by site name, in the order of the names. No site is
    empty; one without some of the classes is normal.

    Raises
    ------
    ConfigError
        If ``sites`` or ``alpha`` is out of range.
    DataError
        If this data cannot be partitioned so.

    References
    ----------
    .. [1] Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated
       visual classification", arXiv:1909.06335 (2019).
    """
    if scheme == "natural":
        site = _natural(dataset, sites)
    else:
        site = _simulated(dataset, scheme, sites, alpha, np.random.default_rng([seed, 2]))
    of_image = site[dataset.by_lesion.index]
    return {str(name): np.flatnonzero(of_image == name) for name in np.unique(site)}


def write_sites(dataset: Dataset, parts: Mapping[str, Ints], out: Path, *, link: bool) -> None:
    """Write one folder per site, laid out like HAM10000, into the new or empty folder ``out``.

    ``parts`` has the numbers (n_images,) of each site's images by its name.

    With ``link`` the images are symbolic links to the real files where these are not in an
    archive; otherwise images are copied, and lesion masks with them.

    Raises
    ------
    DataError
        If ``out`` holds anything, or an image cannot be read.
    BusyError
        If another process is writing it.
    """
    with owned(out), whole_folder(out) as folder:
        for name, indices in parts.items():
            write_site(dataset.select(indices), folder / name, link=link)


def write_site(site: Dataset, out: Path, *, link: bool) -> None:
    """Write one folder laid out like HAM10000; see :func:`write_sites`."""
    (out / IMAGE_FOLDER).mkdir(parents=True)
    write_metadata(out, site.images)
    if site.synthetic:
        (out / SYNTHETIC_MARKER).write_bytes(read_bytes(site.folder / SYNTHETIC_MARKER))
    _write_images(site, out / IMAGE_FOLDER, link=link)
    if not link:
        _copy_masks(site, out / MASK_FOLDER)


def check_sites(dataset: Dataset, parts: Mapping[str, Ints], sites: Path) -> None:
    """Check that folders are still what :func:`write_sites` writes of ``parts`` with ``link``.

    Shapes are those that :func:`write_sites` takes: ``parts`` has numbers (n_images,) by site.

    Diagnoses and splits are read from there when a run goes on; what else lies there, such as a
    ledger, is the sites' own.

    Raises
    ------
    DataError
        If a table or an image is another.
    """
    for name, indices in parts.items():
        if not _as_written(dataset.select(indices), sites / name):
            raise DataError(f"{sites / name} is not what was written there; remove {sites}")


def _as_written(site: Dataset, folder: Path) -> bool:
    with TemporaryDirectory() as again:
        write_metadata(Path(again), site.images)
        table = (Path(again) / METADATA_FILE).read_bytes()
    try:
        return table == (folder / METADATA_FILE).read_bytes() and all(
            _same_image(site, image, folder / IMAGE_FOLDER) for image in site.images
        )
    except OSError:
        return False


def _same_image(site: Dataset, image: Image, folder: Path) -> bool:
    file = folder / f"{image.image_id}.jpg"
    if file.is_symlink():
        return os.readlink(file) == _real(site, image)
    return file.read_bytes() == site.read(image.image_id)


def _natural(dataset: Dataset, sites: int | None) -> NDArray[np.str_]:
    """Return the site of each lesion."""
    names, source = np.unique(dataset.sources, return_inverse=True)
    if odd := [str(name) for name in names if not is_site_name(str(name))]:
        raise DataError(
            f"{dataset.folder}: the column dataset holds {odd[0]!r}, but natural sites need a "
            f"plain source name in every row; {NAME_RULE}, or choose another scheme"
        )
    counts = np.zeros((len(dataset.by_lesion.sizes), len(names)), dtype=np.int64)
    np.add.at(counts, (dataset.by_lesion.index, source), 1)
    site: NDArray[np.str_] = names[counts.argmax(axis=1)]
    present = np.unique(site)
    if sites not in (None, len(present)):
        raise DataError(
            f"{dataset.folder} has {len(present)} natural sites ({', '.join(present)}), "
            f"not {sites}; leave the number out or choose another scheme"
        )
    return site


def _simulated(
    dataset: Dataset, scheme: Scheme, sites: int | None, alpha: float, rng: np.random.Generator
) -> NDArray[np.str_]:
    """Return the site of each lesion."""
    labels = dataset.by_lesion.labels
    if sites is None or sites < 1:
        raise ConfigError(f"the number of sites is {sites}; {scheme} needs 1 or more")
    if not 0 < alpha <= _MOST_ALPHA:  # beyond, gamma variates overflow
        raise ConfigError(f"alpha is {alpha}; choose a number above 0, at most {_MOST_ALPHA:g}")
    if sites > len(labels):
        raise DataError(
            f"{dataset.folder} has {len(labels)} lesions, too few for {sites} sites; "
            f"ask for at most {len(labels)}"
        )
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if scheme != "dirichlet":
        groups = [np.arange(len(labels))]
    site = np.empty(len(labels), dtype=np.int64)
    for members in groups:
        even = np.full(sites, 1 / sites)
        shares = even if scheme == "iid" else rng.dirichlet(np.full(sites, alpha))
        places = (np.arange(len(members)) + 0.5) / len(members)
        site[rng.permutation(members)] = np.searchsorted(np.cumsum(shares)[:-1], places)
    _fill_empty(site, sites)
    width = max(2, len(str(sites - 1)))
    return np.array([f"site_{number:0{width}}" for number in site])


def _fill_empty(site: Ints, sites: int) -> None:
    """Move one lesion of the largest site to each empty one."""
    sizes = np.bincount(site, minlength=sites)
    for empty in np.flatnonzero(sizes == 0):
        largest = sizes.argmax()
        site[np.flatnonzero(site == largest)[0]] = empty
        sizes[largest] -= 1
        sizes[empty] += 1


def _write_images(site: Dataset, folder: Path, *, link: bool) -> None:
    for image in site.images:
        target = folder / f"{image.image_id}.jpg"
        if link and site.files[image.image_id].container.is_dir():
            os.symlink(_real(site, image), target)
        else:
            target.write_bytes(site.read(image.image_id))


def _real(site: Dataset, image: Image) -> str:
    container, member = site.files[image.image_id]
    return os.path.realpath(container / member)


def _copy_masks(site: Dataset, folder: Path) -> None:
    masks = [(image, _mask(site, image)) for image in site.images]
    if any(mask.exists() for _, mask in masks):
        folder.mkdir()
    for _, mask in masks:
        if mask.exists():
            (folder / mask.name).write_bytes(read_bytes(mask))


def _mask(site: Dataset, image: Image) -> Path:
    return site.folder / MASK_FOLDER / f"{image.image_id}_segmentation.png"
