"""The tables of what training and a diagnosis cost."""

from common.formats import rounded
from simulations.study.cost import ArmCost
from simulations.study.findings import Findings
from simulations.study.points import amount
from simulations.study.report.tables.table import Row, Table


def cost_tables(findings: Findings) -> list[Table]:
    """Return the costs of arms and of routes."""
    return [_arms(findings), _routes(findings)]


def _arms(findings: Findings) -> Table:
    rows, cores = [], set()
    for result in findings.full:
        cost, cell = findings.cost(result), next(iter(result.cells.values()))
        cells = ["-"] * 9 if cost is None else _cells(cost)
        rows.append((findings.names.arm(result.arm), str(cell["sites"]), *cells))
        cores |= {cell["cores"] for cell in result.cells.values()}
    shown = " or ".join(map(str, sorted(cores)))
    return Table(
        "Cost of training",
        (
            "arm",
            "sites",
            "features, min",
            "training at a site, min",
            "waiting of a site, min",
            "here in all, min",
            "peak memory, MB",
            "rounds",
            "kB a site sends in a round",
            "kB it receives",
            "MB of a site in all",
        ),
        rows,
        "Means over folds. Features: minutes to compute those of the training images, once, on all "
        "cores. Training and waiting: of a site that has a machine of its own. Here in all: one "
        "process, the sites one after the other, features read from disk. Training here had "
        f"{shown} of {findings.about['machine']} for a process, others beside it. Arms "
        "interrupted in every fold have no figures.",
    )


def _cells(cost: ArmCost) -> Row:
    memory = None if cost.peak_memory is None else cost.peak_memory / 1e6
    minutes = (cost.features, cost.training, cost.waiting, cost.wall)
    return (
        *(amount(seconds / 60) for seconds in minutes),
        rounded(memory, ".0f"),
        f"{cost.rounds:.0f}",
        *(f"{value / 1e3:.1f}" for value in (cost.up, cost.down)),
        amount(cost.site_bytes / 1e6),
    )


def _routes(findings: Findings) -> Table:
    rows = []
    for route, cost in findings.costs.items():
        times = [cost.latency[batch] for batch in (1, 32)]
        rows.append(
            (
                findings.names.routes[route],
                f"{times[0] * 1e3:.1f}",
                f"{1 / times[0]:.1f}",
                f"{32 / times[1]:.1f}",
                f"{cost.model_bytes / 1e6:.2f}",
                f"{cost.backbone_bytes / 1e6:.1f}",
            )
        )
    return Table(
        "Cost of a diagnosis",
        (
            "route",
            "ms an image",
            "images/s, batch 1",
            "images/s, batch 32",
            "model, MB",
            "pretrained weights, MB",
        ),
        rows,
        "From an image file's bytes to probabilities, all prediction views, on all cores.",
    )
