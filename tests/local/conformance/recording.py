"""Records what a real API server answers to all cases, and where the local one differs.

    python -m tests.local.conformance.recording [--kubeconfig F]     what a real server answers
    python -m tests.local.conformance.recording --differences        where the local one answers something else

Without a kubeconfig it starts kube-apiserver and etcd of the folder that KUBEBUILDER_ASSETS names. Differences are
looked through before they are committed: each kind of them has its reason in docs/reference/local-cluster.md.
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
from tests.local.conformance.scripts import Case
from tests.local.conformance.servers import Server, local_server, of_kubeconfig, real_server

Json = dict[str, Any]

RECORDED = scripts.FOLDER / "recorded"
BY_CHANCE = scripts.FOLDER / "by_chance.json"
DIFFERENCES = scripts.FOLDER / "differences.json"
SCRIPTS_BY_CHANCE = 100


def recorded() -> dict[str, list[Json]]:
    """The real server's answers by the case's name."""
    found: dict[str, list[Json]] = {}
    for path in sorted(RECORDED.glob("*.json")):
        found |= json.loads(path.read_text())
    return found | {name: script["answers"] for name, script in _by_chance().items()}


def all_cases() -> list[Case]:
    """The written ones, and those made by chance when the answers were recorded."""
    return [*scripts.written_cases(), *(Case(name, script["steps"]) for name, script in _by_chance().items())]


def differences() -> dict[str, dict[str, Json]]:
    """What the local server answers where it differs, by the case's name and the step's number."""
    found: dict[str, dict[str, Json]] = json.loads(DIFFERENCES.read_text())
    return found


def install_definition(server: Server) -> None:
    """The kind that the cases use; waits until it is served."""
    definition = json.dumps(yaml.safe_load((scripts.FOLDER / "definition.yaml").read_text()))
    headers = {**server.headers, "Content-Type": "application/json"}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    answer = server.pool.request("POST", server.url + path, body=definition, headers=headers, retries=False)
    assert answer.status in (201, 409), answer.data
    gauges = f"{server.url}/apis/{scripts.GROUP}/v1/gauges"
    while server.pool.request("GET", gauges, headers=server.headers).status != 200:
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


def _by_chance() -> dict[str, Json]:
    found: dict[str, Json] = json.loads(BY_CHANCE.read_text()) if BY_CHANCE.exists() else {}
    return found


def _record(server: Server) -> None:
    install_definition(server)
    runner = scripts.Runner(server)
    answers: dict[str, dict[str, list[Json]]] = {}
    for case in scripts.written_cases():
        answers.setdefault(case.name.partition(":")[0], {})[case.name] = runner.run(case)
    for stem, cases in answers.items():
        (RECORDED / f"{stem}.json").write_text(json.dumps(cases, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    _write(BY_CHANCE, _made_by_chance(runner))


def _made_by_chance(runner: scripts.Runner) -> dict[str, Json]:
    """New scripts with their answers; always the same ones for one version of hypothesis."""
    found: dict[str, Json] = {}
    relaxed = list(HealthCheck)

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=SCRIPTS_BY_CHANCE,
        database=None,
        suppress_health_check=relaxed,
    )
    @given(steps=generated.scripts)
    def make(steps: list[Json]) -> None:
        name = f"by chance: {len(found) + 1}"
        found[name] = {"steps": steps, "answers": runner.run(Case(name, steps))}

    make()
    return found


def _record_differences(server: Server) -> None:
    install_definition(server)
    runner, theirs = scripts.Runner(server), recorded()
    found: dict[str, Json] = {}
    for case in all_cases():
        pairs = zip(runner.run(case), theirs[case.name], strict=True)
        differing = {str(index): mine for index, (mine, other) in enumerate(pairs) if mine != other}
        if differing:
            found[case.name] = differing
    _write(DIFFERENCES, found)


def _write(path: Path, content: Json) -> None:
    """One line per case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, sort_keys=True, ensure_ascii=False)}"
        for name, value in sorted(content.items())
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> int:
    """Write the answers, or the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", help="a cluster to record from")
    parser.add_argument("--differences", action="store_true", help="compare the local server with what is recorded")
    arguments = parser.parse_args()
    if arguments.differences:
        with local_server() as server:
            _record_differences(server)
        return 0
    with reference(arguments.kubeconfig) as real:
        if real is None:
            parser.error("give --kubeconfig, or set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd")
        _record(real)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
