"""What a hospital's answer costs beyond the start of Flower's process, one for each message."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict

from client.app import app
from client.open_site import SITE
from common.config.run import RunConfig
from common.errors import FedDermError
from common.site_folder import FILE
from common.svm.feature_map import FeatureMap
from common.wire.messages import Arrays, Value, pack, unpack_arrays, unpack_values
from simulations.bench.measurement import Measurement
from simulations.runtimes.in_process import InProcessGrid

Settings = Mapping[str, str | int | float]

_REPEATS = 3
_RUN, _NODE = 7, 3

_PROCESS = """
import json, sys
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from common.flower_inside import client_command, identify_process

client_command()
identify_process(7, 3, 1)
site, settings, digest = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
context = Context(7, 3, {"site": site}, RecordDict(), settings)
if digest:
    import numpy as np
    from client.app import app
    from common.wire.messages import pack
    content = pack({"weights": np.zeros((1, 7, int(sys.argv[4]) + 1))},
                   {"question": "hinge", "map": digest})
else:
    app, content = ClientApp(), RecordDict()
    app.query()(lambda message, context: Message(message.content, reply_to=message))
reply = app(Message(content, 3, "query"), context).content
assert not digest or reply.array_records["arrays"], reply
"""


def bench_message(data: Path, c: float) -> list[Measurement]:
    """Compare an answer with an SVM's losses and gradients to an empty client's, in turns.

    Figures are the processes' own seconds of CPU, the fewest of three each. Features lie in the
    cache, and the records are mapped, as in every round but the first ones.
    """
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / FILE
        cache = RunConfig().cache.expanduser()
        file.write_text(
            f'name = "bench"\nsuperlink = "127.0.0.1:9092"\nseals = "seals"\n'
            f"data = {json.dumps(str(data.resolve()))}\ncache = {json.dumps(str(cache))}\n"
            "[rules]\nleast_lesions = 1\nmin_active = 1\nrounds_a_day = 1000\n"
        )
        settings = RunConfig(c=(c,), min_active=1, out=Path(name) / "run").flat()
        digest, outputs = _prepare(file, settings)
        ours = [str(file), json.dumps(settings), digest, str(outputs)]
        empty = [str(file), "{}", ""]
        try:
            pairs = [(_seconds(empty), _seconds(ours)) for _ in range(_REPEATS)]
        finally:
            _ask(file, settings, {}, question="close", finished=True)
    flower, whole = (min(times) for times in zip(*pairs, strict=True))
    return [
        Measurement("an empty client's process", flower, "s of CPU"),
        Measurement("an SVM answer, beyond that", whole - flower, "s of CPU", "at most 2"),
    ]


def _prepare(file: Path, settings: Settings) -> tuple[str, int]:
    """Let a site map its records; return the map's digest and number of outputs."""
    moments = _ask(file, settings, {}, question="moments")
    n_features = moments["class_sum"].shape[1]
    size = min(int(settings["components"]), n_features)
    feature_map = FeatureMap(np.zeros(n_features), np.eye(n_features)[:, :size])
    arrays = {**feature_map.to_record(), "class_weights": np.ones(len(moments["class_weight"]))}
    _ask(file, settings, arrays, question="prepare", map=feature_map.digest)
    return feature_map.digest, size


def _ask(file: Path, settings: Settings, arrays: Arrays, **values: Value) -> Arrays:
    """Ask a site in this process."""
    InProcessGrid(app, [], {})  # says who this process is
    context = Context(_RUN, _NODE, {SITE: str(file)}, RecordDict(), {**settings})
    reply = app(Message(pack(arrays, values), _NODE, "query"), context).content
    if refused := unpack_values(reply).get("refused"):
        raise FedDermError(f"the site refused: {refused!s}")
    return unpack_arrays(reply)


def _seconds(arguments: list[str]) -> float:
    """Return the seconds of CPU of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _PROCESS, *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
