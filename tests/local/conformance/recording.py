"""Records what a real API server answers to all cases: `python -m tests.local.conformance.recording [--kubeconfig F]`.

Without a kubeconfig it starts kube-apiserver and etcd of the folder that KUBEBUILDER_ASSETS names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings

from tests.local.conformance import generated, scripts
from tests.local.conformance.servers import Server, of_kubeconfig, real_server

Json = dict[str, Any]

RECORDED = scripts.FOLDER / "recorded"
SCRIPTS_BY_CHANCE = 120


class _Generated:
    """Scripts made by chance once, with what was answered to them."""

    path = RECORDED / "by-chance" / "scripts.json"

    def read(self) -> dict[str, Json]:
        """`steps` and `answers` by name."""
        found: dict[str, Json] = json.loads(self.path.read_text())
        return found

    def record(self, runner: scripts.Runner) -> None:
        """Make new ones, always the same for one version of hypothesis, and write down what is answered."""
        found: dict[str, Json] = {}

        @settings(
            derandomize=True,
            deadline=None,
            max_examples=SCRIPTS_BY_CHANCE,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(steps=generated.scripts)
        def make(steps: list[Json]) -> None:
            name = f"script {len(found) + 1}"
            found[name] = {"steps": steps, "answers": runner.run(scripts.Case(name, steps))}

        make()
        _write(self.path, found)


GENERATED = _Generated()


def _write(path: Path, content: Json) -> None:
    """Compact, but with one line per answer, so that a change of one is a change of one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def recorded() -> dict[str, list[Json]]:
    """The real server's answers by the case's name."""
    found: dict[str, list[Json]] = {}
    for path in sorted(RECORDED.glob("*.json")):
        found |= json.loads(path.read_text())
    return found


def install_definition(server: Server) -> None:
    """The kind that the cases use; waits until it is served."""
    definition = json.dumps(yaml.safe_load((scripts.FOLDER / "definition.yaml").read_text()))
    headers = {**server.headers, "Content-Type": "application/json"}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    answer = server.pool.request("POST", server.url + path, body=definition, headers=headers, retries=False)
    assert answer.status in (201, 409), answer.data
    while (
        server.pool.request("GET", f"{server.url}/apis/{scripts.GROUP}/v1/gauges", headers=server.headers).status != 200
    ):
        pass


@contextlib.contextmanager
def reference(kubeconfig: str | None) -> Iterator[Server | None]:
    """The real server to compare with, if there is one."""
    if kubeconfig:
        yield of_kubeconfig(Path(kubeconfig))
    elif assets := os.environ.get("KUBEBUILDER_ASSETS"):
        with real_server(Path(assets)) as server:
            yield server
    else:
        yield None


def main() -> int:
    """Write the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig")
    with reference(parser.parse_args().kubeconfig) as server:
        if server is None:
            parser.error("give --kubeconfig, or set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd")
        install_definition(server)
        runner = scripts.Runner(server)
        answers: dict[str, dict[str, list[Json]]] = {}
        for case in scripts.written_cases():
            answers.setdefault(case.name.partition(":")[0], {})[case.name] = runner.run(case)
        GENERATED.record(runner)
    for stem, cases in answers.items():
        _write(RECORDED / f"{stem}.json", cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
