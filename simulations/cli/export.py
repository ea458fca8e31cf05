"""``fedderm export`` and ``ranges``: a model as one file for other programs and devices."""

from pathlib import Path
from typing import Annotated

import typer

from common.config.run import RunConfig
from common.errors import DataError
from common.export import Form
from common.storage.whole_files import refuse_taken_file, write_atomically
from common.text import printable
from server.run.folder import model_file
from simulations.cli.data import Data
from simulations.cli.read_settings import Weights

_CACHE = RunConfig().cache

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or its model file.")]


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="New file, such as lesions.onnx.")],
    form: Annotated[
        Form, typer.Option("--format", help="32-bit floats, or a network in 8 bits.")
    ] = "onnx",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images with the lesions that the run held out: the file is compared with the "
            "model there, and refused if it is worse. 8 bits need it.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a page that answers in a browser, with the file and ONNX Runtime in it; "
            "DIR is the folder dist of the npm package onnxruntime-web.",
        ),
    ] = None,
    ranges: Annotated[
        list[Path] | None,
        typer.Option(
            help="A site's counts, of `fedderm ranges`; once for each. 8 bits are by their sum, "
            "not by images of DIR."
        ),
    ] = None,
    weights: Weights = None,
    cache: Annotated[Path, typer.Option(help="Folder for hashes of pictures.")] = _CACHE,
) -> None:
    """Write a model as one ONNX file: pixels in, calibrated probabilities out.

    Transform, prediction views, network, calibration, thresholds and names are in the file. With
    --data a table compares it with the model on held-out lesions; a file that is worse than allowed
    is not written, and the exit code is then 1.
    """
    from client.predict.standalone import Runtime, standalone_page
    from common.export.gate import table
    from common.models.file import load_model
    from simulations.evaluation import exported

    refuse_taken_file(out)
    runtime = None if page is None else Runtime(page)
    made = exported.export(model_file(run), form, data, cache, weights or (), ranges or ())
    if made.rows:
        typer.echo(table(made.rows))
    if made.refused:
        raise DataError(
            f"not exported: worse than allowed in {', '.join(made.refused)}; "
            "use --format onnx, or train a model that bears 8 bits"
        )
    content = made.content
    if runtime is not None:
        model = load_model(model_file(run), *(weights or ()))
        content = standalone_page(model, made.facts, content, runtime)
    write_atomically(out, content)
    typer.echo(printable(f"{out}: {len(content) / 1e6:.1f} MB"))


def ranges(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(help="New file for the counts.")],
    weights: Weights = None,
) -> None:
    """Count at a site how large the values of a network are, for a file in 8 bits made elsewhere.

    The counts are over 256 training images of DIR at most. No image is in them; those of several
    sites add.
    """
    from simulations.evaluation import exported

    refuse_taken_file(out)
    images = exported.count(model_file(run), data, out, weights or ())
    typer.echo(printable(f"{out}: counts over {images} images"))
