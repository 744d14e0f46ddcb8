"""Uploads and fetches over S3's HTTP API: s3fs as images have it, and a server of it on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import ROOT, listening, python_with
from tests.ports import free_port

pytestmark = pytest.mark.slow

REQUIREMENTS = ROOT / "images" / "requirements-storage.txt"
CLIENT = [line for line in REQUIREMENTS.read_text().split() if re.match(r"(aiobotocore|botocore|s3fs)==", line)]
PACKAGES = " ".join([*CLIENT, "moto[server]==5.2.5", "filelock==4.2.11"])
PROGRAM = """
import json, sys
from pathlib import Path
import fsspec
from alidade_engine.transfer import MANIFEST, fetch, upload
work = Path(sys.argv[1])
storage = fsspec.filesystem("s3")
storage.mkdir("models")
upload(work / "local", storage, "models/run/out")
found = fetch(storage, "models/run/out/model", work / "cache")
again = fetch(storage, "models/run/out/model", work / "cache")
single = fetch(storage, "models/run/out/model/config.json", work / "cache")
with storage.open("models/run/out/model/config.json", "wb") as file:
    file.write(b"{}")
storage.invalidate_cache()
try:
    fetch(storage, "models/run/out/model", work / "cache")
except ValueError as error:
    refused = str(error)
print(json.dumps({
    "files": {path.relative_to(found).as_posix(): path.stat().st_size for path in found.rglob("*") if path.is_file()},
    "same": found == again,
    "single": single.read_text(),
    "manifest": sorted(json.loads(storage.cat_file(f"models/run/out/{MANIFEST}"))["files"]),
    "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def python() -> str:
    return python_with(PACKAGES, "s3")


@pytest.fixture
def endpoint(python: str, tmp_path: Path) -> Iterator[str]:
    """The address of an S3 server."""
    port = free_port()
    command = [python, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with listening(command, port, tmp_path / "s3.log") as address:
        yield address


def test_a_model_goes_to_a_bucket_and_comes_back(python: str, endpoint: str, tmp_path: Path) -> None:
    model = tmp_path / "local" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"hidden_size": 64}')
    # Above the size from which s3fs sends in parts, whose ETag is no digest of the content.
    (model / "model.safetensors").write_bytes(os.urandom(60 * 2**20))
    (tmp_path / "local" / "report.html").write_text("<html>")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("engine", "crds")),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [python, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "files": {"config.json": 19, "model.safetensors": 60 * 2**20},
        "same": True,
        "single": '{"hidden_size": 64}',
        "manifest": ["model/config.json", "model/model.safetensors", "report.html"],
        "refused": "config.json is not the file that was uploaded: its sha256 is another one",
    }
