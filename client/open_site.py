"""Which site a message is for: a hospital's own, or one of the folders of a simulation."""

from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from client.operator.site_rules import Operator
from client.site import Site
from client.state import STATE
from common.config.run import RunConfig
from common.errors import ConfigError, Reason, RefusalError
from common.text import NAME_RULE, is_site_name

SITE = "site"
"""Key of a hospital's file in the configuration of its node."""


def operator_of(context: Context) -> Operator | None:
    """Read the file of the hospital's operator that a node's configuration names as ``site``.

    It is None in a simulation. The file may change at any time; it is read once for an answer, so
    that all of the answer obeys the same rules.

    Raises
    ------
    ConfigError
        If the file is wrong.
    DataError
        If a newer program has written the hospital's state.
    """
    if SITE not in context.node_config:
        return None
    operator = Operator.read(Path(str(context.node_config[SITE])))
    STATE.upgrade(operator.state)
    return operator


def open_site(context: Context, operator: Operator | None) -> Site:
    """Return the site that a message is meant for.

    Parameters
    ----------
    operator : the file of a hospital's operator. A simulated site is the one at its
        ``partition-id`` among the folders in ``sites``.

    Raises
    ------
    ConfigError
        If neither names a folder.
    RefusalError
        If what the coordinator configured for a hospital is wrong.
    """
    if operator is not None:
        return _hospital(operator, context)
    config = RunConfig.read(context.run_config)
    if config.sites is None or "partition-id" not in context.node_config:
        raise ConfigError("no data folder: set 'site' in the node or 'sites' in the run")
    index = int(context.node_config["partition-id"])
    folders = site_folders(config.sites)
    if index >= len(folders):
        raise ConfigError(f"{config.sites} has {len(folders)} site folders, none for site {index}")
    return _site(folders[index], config)


@lru_cache(maxsize=4)
def site_folders(sites: Path) -> list[Path]:
    """Return the folders in ``sites``, sorted by name.

    Raises
    ------
    ConfigError
        If it is no folder of folders, or one of these cannot be a site by its name.
    """
    folders = sorted(sites.iterdir()) if sites.is_dir() else []
    parts = [path for path in folders if path.is_dir()]
    if odd := [path.name for path in parts if not is_site_name(path.name)]:
        raise ConfigError(
            f"{sites}: the folder '{odd[0]}' has no name that a site may have; {NAME_RULE}"
        )
    if not parts:
        raise ConfigError(f"{sites} has no folders; set 'sites' to a folder with one for each site")
    return parts


def _hospital(operator: Operator, context: Context) -> Site:
    """Return a hospital's site; the coordinator chooses no path on its disks."""
    try:
        config = RunConfig.read(context.run_config)
    except ConfigError as error:
        raise RefusalError(Reason.SETTINGS, str(error)) from error
    places = {"cache": operator.cache, "weights": operator.weights}
    return _site(operator.data, config.model_copy(update=places), operator)


def _site(folder: Path, config: RunConfig, operator: Operator | None = None) -> Site:
    """Keep sites in memory, because a process may answer many messages for many of them."""
    sites = _sites_of(config)
    if (folder, operator) not in sites:
        sites[folder, operator] = Site(folder, config, operator)
    return sites[folder, operator]


@lru_cache(maxsize=16)
def _sites_of(config: RunConfig) -> dict[tuple[Path, Operator | None], Site]:
    """Return the sites of a run that are in memory: however many, all of the last runs."""
    return {}
