"""Numbers as a text file that Prometheus's node exporter collects."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from common.errors import ConfigError
from common.operation.status import Metric

SUFFIX = ".prom"
"""The only files that the collector reads."""

_PREFIX = "fedderm_"


def check_file(path: Path) -> None:
    """Check, before anything is looked at, that a file of numbers can be written.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    # What is there is replaced, so it must be nothing else.
    if path.suffix != SUFFIX or (path.exists() and not path.is_file()) or not path.parent.is_dir():
        raise ConfigError(
            f"{path} cannot be written; name a file *{SUFFIX} in a folder that is there"
        )
    if find_spec("prometheus_client") is None:
        raise ConfigError("prometheus-client is missing; `pip install 'fedderm[prometheus]'`")


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Replace a file by numbers; whoever reads it sees the file before or the whole new one.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for each in metrics:
        name = _PREFIX + each.name
        if name not in gauges:
            gauges[name] = Gauge(name, each.help, list(each.labels), registry=registry)
        gauge = gauges[name].labels(**each.labels) if each.labels else gauges[name]
        gauge.set(each.value)
    write_to_textfile(str(path), registry)
