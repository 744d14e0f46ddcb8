"""The acting operator of two killed again and again during runs: how soon the other one acts, and what comes of it.

    python bench/takeover.py [--kills 20] [--seed 0]

The chart is installed with two replicas on a local cluster, as tests/charts/test_local_cluster.py does it.
AlignmentRuns of three stages (SFT, a reward model, RAFT) follow one another until enough kills are counted; from the
moment at which both replicas are ready the next kill comes at a random instant within six seconds, at whatever stage
the run then is. SIGKILL goes to the process that the Lease's holderIdentity names. Told of each kill: the stage, the
seconds to the Lease's new acquireTime, and to the first reconcile that the other one counts (its /metrics, looked at
every 50 ms). Told of each run: what watches saw made, which has to be every child once, and the model's digest, which
has to be the same in all. Results: bench/results/takeover.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from alidade_local import cluster as local_cluster  # noqa: E402  # the path is set above
from tests.charts.conftest import Cluster  # noqa: E402
from tests.charts.replicas import install, kill_acting, ledger, on_this_machine, wait_until_ready  # noqa: E402
from tests.e2e.jobs import PAIRS, alignment_run, config_map, wrong_sums  # noqa: E402

RESULTS = ROOT / "bench/results/takeover.json"
KINDS = ("finetunejobs", "rewardmodels", "pytorchjobs", "jobs", "pods")
LATEST_KILL_S = 6.0
LIMIT_S = 15.0
STEPS = [{"raft": {"iterations": 4, "promptsPerIteration": 32, "samplesPerPrompt": 4}}]
# A replica is killed every other time, and would be started again later each time.
FIRST_BACKOFF_S = 0.01


def status(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The run's status."""
    found: dict[str, Any] = cluster.read("alignmentrun", "run", "--namespace", namespace).get("status") or {}
    return found


def stage(told: dict[str, Any]) -> str:
    """The first stage that is not over."""
    return next((one["name"] for one in told.get("stages", []) if one["phase"] != "Succeeded"), "the end")


def prepared(cluster: Cluster, namespace: str) -> None:
    """A namespace of its own, so that no stage of an earlier run is taken, with the run in it."""
    cluster.make_namespace(namespace)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "alidade-workspace"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    sums = config_map("sums", train_json=json.dumps({"type": "text2text", "instances": PAIRS}))
    run = alignment_run("run", align=STEPS, compute={"workers": 1})
    run["spec"]["sft"]["template"] |= {"compute": {"workers": 1}}
    items = {"apiVersion": "v1", "kind": "List", "items": [claim, sums, wrong_sums(), run]}
    cluster.kubectl("apply", "--server-side", "--namespace", namespace, "--filename", "-", stdin=json.dumps(items))


def disturbed_run(cluster: Cluster, namespace: str, kills: int, chance: random.Random, folder: Path) -> dict[str, Any]:
    """One run with at most so many kills: its end, what was made, and each takeover."""
    takeovers: list[dict[str, Any]] = []
    with ledger(cluster, namespace, KINDS, folder / namespace) as taken:
        prepared(cluster, namespace)
        while (told := status(cluster, namespace)).get("phase") not in ("Succeeded", "Failed"):
            if len(takeovers) == kills:
                time.sleep(1)
                continue
            wait_until_ready(cluster)
            time.sleep(chance.uniform(0, LATEST_KILL_S))
            at = stage(status(cluster, namespace))
            takeover = kill_acting(cluster)
            takeovers.append({"stage": at, "heldS": takeover.held_s, "reconciledS": takeover.reconciled_s})
            print(f"{namespace}: killed at {at}, held after {takeover.held_s:.1f} s, "
                  f"reconciled after {takeover.reconciled_s:.1f} s", flush=True)  # fmt: skip
        made = taken.made()
    cluster.kubectl("delete", "namespace", namespace)
    return {
        "phase": told["phase"],
        "digest": told.get("model", {}).get("digest"),
        "made": {kind: len(names) for kind, names in made.items()},
        "names": {kind: len(set(names)) for kind, names in made.items()},
        "takeovers": takeovers,
    }


def measured(kills: int, chance: random.Random, folder: Path) -> list[dict[str, Any]]:
    """Runs until enough kills are counted."""
    result = local_cluster.up(data_dir=folder / "cluster", operator=False, first_backoff_s=FIRST_BACKOFF_S)
    try:
        cluster = Cluster(result.paths.kubeconfig)
        install(cluster, on_this_machine(), folder)
        runs: list[dict[str, Any]] = []
        while (left := kills - sum(len(run["takeovers"]) for run in runs)) > 0:
            runs.append(disturbed_run(cluster, f"run-{len(runs) + 1}", left, chance, folder))
        return runs
    finally:
        local_cluster.down(data_dir=folder / "cluster")


def faults(runs: list[dict[str, Any]]) -> list[str]:
    """What should not be."""
    found = [f"run {number} ended {run['phase']}" for number, run in enumerate(runs, 1) if run["phase"] != "Succeeded"]
    found += [f"run {number} made something twice" for number, run in enumerate(runs, 1) if run["made"] != run["names"]]
    found += ["runs made different things"] if len({json.dumps(run["made"]) for run in runs}) > 1 else []
    found += ["runs ended with different models"] if len({run["digest"] for run in runs}) > 1 else []
    late = [one for run in runs for one in run["takeovers"] if one["reconciledS"] >= LIMIT_S]
    return found + [f"a takeover took {one['reconciledS']:.1f} s" for one in late]


def main() -> int:
    """Measures, writes and prints; 1 where something was made twice, lost, or late."""
    parser = argparse.ArgumentParser(description="Kills the acting operator of two during runs.")
    parser.add_argument("--kills", type=int, default=20, help="how many; 20")
    parser.add_argument("--seed", type=int, default=0, help="of the instants; 0")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = measured(arguments.kills, random.Random(arguments.seed), Path(folder))
    summary: dict[str, Any] = {"kills": arguments.kills, "runs": len(runs), "load": os.getloadavg()[1]}
    for name in ("heldS", "reconciledS"):
        seconds = [one[name] for run in runs for one in run["takeovers"]]
        summary[name] = {"median": statistics.median(seconds), "max": max(seconds)}
    wrong = faults(runs)
    RESULTS.write_text(json.dumps({"summary": summary, "faults": wrong, "runs": runs}, indent=1) + "\n")
    print(json.dumps(summary, indent=1), *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
