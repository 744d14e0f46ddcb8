"""Makes a virtual environment of its own for packages that do not go with the project's, once for each list of them.

    python tools/environment.py .tools/text-generation text-generation==0.7.0

Prints its interpreter. Exit code 1, and the reason, where a package cannot be installed.
"""

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path


def main(argv: list[str]) -> int:
    """Makes what is missing."""
    parser = argparse.ArgumentParser(description="Makes an environment for packages.")
    parser.add_argument("folder", type=Path, help="where it lies")
    parser.add_argument("packages", nargs="+", help="what it has, as pip takes it")
    options = parser.parse_args(argv)
    python, ready = options.folder / "bin" / "python", options.folder / ".ready"
    wanted = "\n".join(options.packages)
    if not ready.exists() or ready.read_text() != wanted:
        venv.create(options.folder, clear=True, symlinks=True, with_pip=False)
        reason = install(python, options.packages)
        if reason is not None:
            print(f"{' '.join(options.packages)} cannot be installed here: {reason}", file=sys.stderr)
            return 1
        ready.write_text(wanted)
    print(python)
    return 0


def install(python: Path, packages: Sequence[str]) -> str | None:
    """Puts packages into the interpreter's environment. Returns why not, or None.

    uv takes a tenth of pip's time; pip comes after it because it alone knows mirrors that are set up for pip.
    """
    failed = ""
    for installer in (["uv", "pip", "install", "--python", python], ["pip", "--python", python, "install"]):
        command = [sys.executable, "-m", *installer, "--quiet", *packages]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return None
        failed = done.stderr.strip().splitlines()[-1]
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
