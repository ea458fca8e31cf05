"""Runs the steps of the image's Dockerfile in folders, where there is no container engine.

As root: ``debootstrap --variant=minbase bookworm BASE``, then ``python -m tests.image_root BASE
OUT -- COMMAND``. Each stage is a copy of BASE in which the steps run by ``chroot``. The command is
the finished image's: it runs under its user, environment and entry point, on a root that is
read-only but for /tmp and the paths that ``--writable`` names.

A step runs as root: what ``--mount`` names of this machine it may only read, and of the devices
only those that hold nothing.

What a builder does beside that is not tried: layers, BASE's digest, .dockerignore.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
DOCKERFILE = REPOSITORY / "common" / "container" / "Dockerfile"


@dataclass
class Stage:
    """One stage: its root, and what its instructions have set."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    folder: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield a Dockerfile's instructions and their arguments."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, re.sub(r"\s+", " ", rest.strip())


def build(base: Path, out: Path, mounts: Sequence[str], environment: Mapping[str, str]) -> Stage:
    """Run all steps whose stage is not there yet; return the last stage."""
    stages: dict[str, Stage] = {}
    stage, done = Stage(base), False
    for name, rest in instructions(DOCKERFILE.read_text()):
        match name:
            case "FROM":
                title = rest.partition(" AS ")[2] or "final"
                stage = stages[title] = Stage(out / title)
                if not (done := stage.root.exists()):
                    subprocess.run(["cp", "--archive", base, stage.root], check=True)
            case "RUN" if not done:
                inside = {**stage.environment, **environment}
                run(stage, mounts, inside, ["/bin/sh", "-c", f"cd {stage.folder} && {rest}"])
            case "COPY" if not done:
                copy(stage, stages, rest)
            case "WORKDIR":
                stage.folder = rest
                inside_root(stage, rest).mkdir(parents=True, exist_ok=True)
            case "ENV" | "ARG" if "=" in rest:
                stage.environment |= dict(each.split("=", 1) for each in shlex.split(rest))
            case "USER":
                stage.user = rest
            case "ENTRYPOINT":
                stage.entry = json.loads(rest)
    return stage


def copy(stage: Stage, stages: Mapping[str, Stage], rest: str) -> None:
    """Copy from the repository, or from another stage."""
    *sources, target = shlex.split(rest)
    place = inside_root(stage, os.path.join(stage.folder, target))
    start = REPOSITORY
    if sources[0].startswith("--from="):
        start = stages[sources.pop(0).partition("=")[2]].root
    for source in sources:
        found = start / source.lstrip("/")
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, place, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(found, place)


def inside_root(stage: Stage, path: str) -> Path:
    """Return where a path in a stage lies outside of it."""
    return stage.root / os.path.normpath(path).lstrip("/")


def run(
    stage: Stage,
    mounts: Sequence[str],
    environment: Mapping[str, str],
    command: Sequence[str],
    *,
    writable: Sequence[str] | None = None,
) -> None:
    """Run a command in a stage, in a space of mounts of its own.

    Parameters
    ----------
    writable : paths to which it may write if the root is read-only; None if it is not.
    """
    root = stage.root.resolve()
    lines = [f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
    lines += [f"mount -t tmpfs tmpfs {root}/dev", f"mkdir -m 1777 {root}/dev/shm"]
    for device in DEVICES:
        lines += [f"touch {root}{device}", f"mount --bind {device} {root}{device}"]
    for path in (*mounts, *(writable or ())):
        there = shlex.quote(str(_place_for(stage, Path(path))))
        lines.append(f"mount --bind {shlex.quote(path)} {there}")
        if path in mounts:
            lines.append(f"mount -o remount,ro,bind {there}")
    if writable is not None:
        lines += [f"mount -o remount,ro,bind {root}", f"mount -t tmpfs tmpfs {root}/tmp"]
    clean = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    lines.append(shlex.join(["exec", "chroot", str(root), *clean, *command]))
    subprocess.run(["unshare", "--mount", "sh", "-ec", "\n".join(lines)], check=True)


def _place_for(stage: Stage, path: Path) -> Path:
    """Make an empty file or folder in a stage, over which a path of this machine is mounted."""
    there = inside_root(stage, str(path))
    there.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        there.mkdir(exist_ok=True)
    else:
        there.touch()
    return there


def start(stage: Stage, writable: Sequence[str], command: Sequence[str]) -> None:
    """Run a command as the image would, on a root that is read-only."""
    user, group = stage.user.split(":")
    as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    as_user += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    command = [*as_user, *stage.entry, *command]
    run(stage, [], stage.environment, command, writable=writable)


def main() -> None:
    """Build what is not there yet, and start it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mount", action="append", default=[], help="a path that steps read")
    parser.add_argument("--writable", action="append", default=[], help="a path for the command")
    parser.add_argument("--env", action="append", default=[], help="a variable of the steps")
    line = sys.argv[1:]
    end = line.index("--") if "--" in line else len(line)
    given, command = parser.parse_args(line[:end]), line[end + 1 :]
    kept = {name: os.environ[name] for name in given.env if name in os.environ}
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        stage = build(given.base, given.out, given.mount, kept)
        if command:
            start(stage, given.writable, command)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the step has said what is wrong


if __name__ == "__main__":
    main()
