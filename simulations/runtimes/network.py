"""Hosts with addresses of their own on one machine: network namespaces of Linux.

All are joined by a bridge that stands in a namespace itself, so that no way leads out.
"""

import shutil
import subprocess
import time
from collections.abc import Collection
from types import TracebackType
from typing import Self

from common.errors import FedDermError

_NET = "10.213.77"
_DEVICE, _BRIDGE = "net0", "bridge"
_LONGEST_DEVICE = 15
"""Letters that Linux takes in the name of a device."""


class Network:
    """Hosts, each in a network namespace of its own; leaving the object removes them.

    Parameters
    ----------
    names : of the hosts; the first letters must tell them apart.

    Raises
    ------
    FedDermError
        On entering, if this machine makes no namespaces.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._prefix = f"fedderm-{time.time_ns() % 10**6}"
        self.hub = f"{self._prefix}-hub"
        self._spaces: dict[str, str] = {}
        self._numbers = {name: number for number, name in enumerate(names, 1)}

    def address(self, name: str) -> str:
        """Return the address of a host."""
        return f"{_NET}.{self._numbers[name]}"

    def command(self, name: str) -> list[str]:
        """Return the command that starts others on a host."""
        return ["ip", "netns", "exec", self._spaces[name]]

    def cut_off(self, name: str) -> None:
        """Take a host's link down."""
        ip("-n", self.hub, "link", "set", _port(name), "down")

    def reconnect(self, name: str) -> None:
        """Take a host's link up again."""
        ip("-n", self.hub, "link", "set", _port(name), "up")

    def processes(self, name: str) -> list[int]:
        """Return the ids of the processes on a host."""
        return [int(word) for word in ip("netns", "pids", self._spaces[name]).split()]

    def replace(self, name: str) -> None:
        """Put a new host at the address of another one, which is gone."""
        self._remove(self._spaces[name])
        self._add(name)

    def __enter__(self) -> Self:
        try:
            self._make_hub()
            for name in self._numbers:
                self._add(name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for space in (*self._spaces.values(), self.hub):
            self._remove(space)

    def _make_hub(self) -> None:
        if not shutil.which("ip"):
            raise FedDermError("no command `ip` to make hosts with; install iproute2")
        try:
            ip("netns", "add", self.hub)
            ip("-n", self.hub, "link", "add", _BRIDGE, "type", "bridge")
            ip("-n", self.hub, "link", "set", _BRIDGE, "up")
        except subprocess.CalledProcessError as error:
            why = " ".join(error.stderr.split())
            raise FedDermError(
                f"no network namespaces can be made here ({why}); be root on Linux"
            ) from error

    def _add(self, name: str) -> None:
        # A namespace that is removed lives on while a process in it does; a name is not used twice.
        space = f"{self._prefix}-{name}-{len(self._spaces)}-{time.time_ns() % 10**6}"
        self._spaces[name] = space
        ip("netns", "add", space)
        ends = ("link", "add", _DEVICE, "netns", space, "type", "veth")
        ip(*ends, "peer", "name", _port(name), "netns", self.hub)
        ip("-n", self.hub, "link", "set", _port(name), "master", _BRIDGE, "up")
        ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", _DEVICE)
        for device in ("lo", _DEVICE):
            ip("-n", space, "link", "set", device, "up")

    def _remove(self, space: str) -> None:
        # Its devices go with a namespace at once only if they are removed first.
        for command in (["-n", space, "link", "delete", _DEVICE], ["netns", "delete", space]):
            subprocess.run(["ip", *command], capture_output=True, check=False)


def _port(name: str) -> str:
    """Return the name of the bridge's end of a host's link."""
    return name[:_LONGEST_DEVICE]


def ip(*arguments: str) -> str:
    """Run the command ``ip``; return what it says."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
