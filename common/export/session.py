"""Runs an exported file, by ONNX Runtime alone."""

import json

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from common.arrays import Floats, Floats32
from common.data.dataset import Dataset
from common.data.pictures import decode
from common.errors import DataError
from common.export.facts import KEY
from common.features.inference_engine import one_thread_per_core
from common.json_types import JsonObject


class Exported:
    """An exported file, ready to be run.

    Parameters
    ----------
    content : of the file.
    threads : that one picture is computed by.

    Attributes
    ----------
    facts : what the file says of itself; empty where it says nothing.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        said = self._session.get_modelmeta().custom_metadata_map.get(KEY, "{}")
        self.facts: JsonObject = json.loads(said)

    def outputs(self, pixels: NDArray[np.uint8]) -> list[Floats32]:
        """Return what the graph gives for the pixels (height, width, 3) of an upright picture.

        Returns
        -------
        Of a whole file the probabilities (n_classes,) alone.
        """
        outputs: list[Floats32] = self._session.run(None, {"pixels": pixels})
        return outputs


def dataset_probabilities(exported: Exported, dataset: Dataset, resolution: int) -> Floats:
    """Return the probabilities (n, n_classes) of a dataset's pictures, computed on all cores.

    Parameters
    ----------
    resolution : that of the model, which says how small a JPEG may be decoded.

    Raises
    ------
    DataError
        If a picture cannot be read or decoded, with its name.
    """

    def of_image(name: str) -> Floats32:
        (found,) = exported.outputs(pixels_of(dataset, name, resolution))
        return found

    names = [image.image_id for image in dataset.images]
    with one_thread_per_core() as pool:
        rows = tqdm(pool.map(of_image, names), total=len(names), unit="image", disable=None)
        return np.array(list(rows), dtype=np.float64)


def pixels_of(dataset: Dataset, name: str, resolution: int) -> NDArray[np.uint8]:
    """Return the pixels (height, width, 3) of a picture as an exported file takes them.

    Raises
    ------
    DataError
        If it cannot be read or decoded, with its name.
    """
    try:
        return np.asarray(decode(dataset.read(name), 2 * resolution))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
