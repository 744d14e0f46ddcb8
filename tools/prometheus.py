"""Puts Prometheus and promtool into a folder, on Debian machines that have none.

    python tools/prometheus.py .tools/bin

Debian's package is fetched by apt, which checks its signature, and unpacked: nothing is installed, and no rights are
needed. Where there is no apt, what needs Prometheus is left out, and says so.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "prometheus"
PROGRAMS = ("prometheus", "promtool")


def unpack(target: Path) -> None:
    """Fetches the package and copies its programs. Raises CalledProcessError when apt or dpkg fail."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)  # apt fetches as a user of its own
        subprocess.run(["apt-get", "download", "--quiet", PACKAGE], cwd=place, check=True, capture_output=True)
        (package,) = place.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(place / "files")], check=True, capture_output=True)
        target.mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            partial = target / f".{program}.partial"
            shutil.copy(place / "files/usr/bin" / program, partial)
            partial.rename(target / program)


def main(argv: list[str]) -> int:
    """Fetches what is missing; 0 also where it cannot be had, since little needs it."""
    parser = argparse.ArgumentParser(description="Puts Prometheus and promtool into a folder.")
    parser.add_argument("target", type=Path, help="folder for the programs")
    target = parser.parse_args(argv).target
    if all(shutil.which(program) or (target / program).is_file() for program in PROGRAMS):
        return 0
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        print("no Prometheus here, and no apt to fetch it: what scrapes metrics is left out", file=sys.stderr)
        return 0
    try:
        unpack(target)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        words = (getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip()[-200:]
        print(f"Prometheus cannot be fetched ({words}): what scrapes metrics is left out", file=sys.stderr)
        return 0
    print(f"prometheus and promtool are in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
