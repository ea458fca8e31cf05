"""A unit of systemd for a service of this program: under its own account, and in a sandbox."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ACCOUNT = "fedderm"
"""Name of the account, of its home below /var/lib, and of the program's command."""


def systemd_unit(
    what: str, command: Sequence[str | Path], writable: Iterable[Path], read_only: Iterable[Path]
) -> str:
    """Return the text of a unit.

    Parameters
    ----------
    what : what the service is, in some words.
    command : words after ``fedderm``.
    writable : folders that the service may write to, beside its account's home.
    read_only : folders in these that it may only read.
    """
    program = Path(sys.executable).with_name(ACCOUNT)
    return _TEMPLATE.format(
        what=what,
        account=ACCOUNT,
        command=" ".join(_quoted(word).replace("$", "$$") for word in [program, *command]),
        writable=" ".join(map(_quoted, _outermost(writable))),
        read_only=" ".join(map(_quoted, read_only)),
    )


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the folders without those that lie in others of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(each) for each in kept):
            kept.append(path)
    return kept


def _quoted(word: str | Path) -> str:
    """Return a word as systemd reads it, which knows escapes and specifiers."""
    escaped = str(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped.replace("%", "%%")}"'


_TEMPLATE = """\
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
User={account}
Group={account}
# The account's home.
StateDirectory={account}
StateDirectoryMode=0700
UMask=0077
Restart=on-failure
RestartSec=10

ProtectSystem=strict
ReadWritePaths={writable}
ReadOnlyPaths={read_only}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
