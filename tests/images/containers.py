"""What a container would be, by this kernel's own means: a read-only root of its own, a user without rights.

The root holds the system's libraries and Python, a virtual environment with one image's packages, and nothing of the
source tree. It protects nothing: it shows what a program needs.
"""

import functools
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.dockerfiles import ROOT

OWN = "alidade-"
INSTALLED = Path(sysconfig.get_path("purelib"))
ENVIRONMENT = "/opt/alidade"
SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
# $1 the root, $2 the user and group, $3 the folder that may be written to, then PLACE=SOURCE[=rw] and, after --, the
# command. What is mounted is seen by this process alone.
_ENTER = """
set -eu
root=$1 owner=$2 writable=$3
shift 3
mount -t tmpfs -o mode=755 tmpfs "$root"
while [ "$1" != -- ]; do
    place=$root${1%%=*} source=${1#*=} mode=ro
    case $source in *=rw) source=${source%=rw} mode=rw ;; esac
    mkdir -p "$place"
    mount --bind "$source" "$place"
    mount -o "remount,bind,$mode" "$place"
    shift
done
shift
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mkdir -p "$root$writable"
mount -t tmpfs -o "uid=${owner%:*},gid=${owner#*:},mode=700" tmpfs "$root$writable"
mount -o remount,ro "$root"
exec chroot --userspec="$owner" "$root" "$@"
"""


@functools.cache
def missing() -> str:
    """Why containers cannot be imitated here; empty where they can."""
    if not shutil.which("unshare") or not shutil.which("chroot"):
        return "unshare or chroot is not installed"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"this machine lets nobody mount: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Container:
    """One image's environment and how its processes run."""

    environment: Path
    root: Path
    user: tuple[int, int]
    variables: dict[str, str]

    def command(
        self,
        *program: str,
        volumes: dict[str, Path] | None = None,
        variables: dict[str, str] | None = None,
        user: tuple[int, int] | None = None,
        install: bool = False,
    ) -> list[str]:
        """The command line that runs a program inside.

        volumes: folders by the place that they are mounted at, writable.
        variables: what the pod adds to the image's environment.
        install: whether the image's environment can be written to.
        """
        own = "=rw" if install else ""
        places = {
            **{place: place for place in SYSTEM if Path(place).is_dir()},
            str(INSTALLED): str(INSTALLED),
            sys.base_prefix: sys.base_prefix,
            ENVIRONMENT: f"{self.environment}{own}",
            **{place: f"{folder}=rw" for place, folder in (volumes or {}).items()},
        }
        owner = ":".join(str(number) for number in user or self.user)
        told = [f"{name}={value}" for name, value in {**self.variables, **(variables or {})}.items()]
        entered = [
            str(self.root),
            owner,
            self.variables["HOME"],
            *(f"{at}={what}" for at, what in places.items()),
            "--",
        ]
        return ["unshare", "--mount", "sh", "-c", _ENTER, "enter", *entered, "/usr/bin/env", "-i", *told, *program]


def link_dependencies(package: str, site: Path) -> None:
    """Puts what a package of ours declares, and no more, into a site folder: links to what is installed here."""
    for name in third_party(package):
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(INSTALLED / top)


def third_party(package: str) -> set[str]:
    """Names of all distributions that a package of ours comes to, without ours."""
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(package)]
    while waiting:
        entry = waiting.pop()
        name = canonicalize_name(entry.name)
        for extra in ("", *sorted(entry.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            waiting += needed(name, extra)
    return {name for name, _ in seen if not name.startswith(OWN)}


def needed(name: str, extra: str) -> list[Requirement]:
    """What a distribution declares for an extra, or without one for ""; of ours, what stands in the source tree."""
    if name.startswith(OWN):
        project = tomllib.loads((ROOT / name.removeprefix(OWN) / "pyproject.toml").read_text())["project"]
        declared = project["optional-dependencies"][extra] if extra else project["dependencies"]
        return [Requirement(line) for line in declared]
    entries = [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return [entry for entry in entries if entry.marker is None or entry.marker.evaluate({"extra": extra})]
