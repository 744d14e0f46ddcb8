"""Environments of their own for packages that do not go with the project's."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_with(packages: str, folder: str) -> str:
    """An interpreter that has the packages, from .tools/folder; skips where they cannot be installed."""
    home = ROOT / ".tools" / folder
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "environment.py", home, *packages.split()], capture_output=True, text=True
    )
    if made.returncode == 1:
        pytest.skip(made.stderr.strip().splitlines()[-1])
    made.check_returncode()
    return made.stdout.strip()
