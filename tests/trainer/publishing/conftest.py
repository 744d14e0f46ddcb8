"""MLflow's own server, and an interpreter with the clients that the trainer's image has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.environments import listening, python_with
from tests.ports import free_port

# The server's packages without those that only its pages need.
PACKAGES = (
    "mlflow-skinny==3.17.2 wandb==0.31.0 flask==3.1.3 flask-cors==6.0.5 sqlalchemy==2.1.9 alembic==1.20.1 "
    "aiohttp==3.14.5 werkzeug==3.1.9"
)
SERVER = """
import os, sys
for store in ("FILE_STORE", "REGISTRY_STORE"):
    os.environ["_MLFLOW_SERVER_" + store] = sys.argv[2]
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = sys.argv[3]
from mlflow.server import app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


@pytest.fixture(scope="session")
def python() -> str:
    return python_with(PACKAGES, "mlflow")


@pytest.fixture(scope="session")
def server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a database."""
    port, folder = free_port(), tmp_path_factory.mktemp("mlflow")
    command = [python, "-c", SERVER, str(port), f"sqlite:///{folder}/mlflow.db", str(folder)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with listening(command, port, folder / "server.log", environment) as address:
        yield address
