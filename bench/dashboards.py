"""The pictures of the dashboards in docs/images: a cluster on this machine, real work, a real Prometheus.

    python bench/dashboards.py [--keep]

Some ten minutes on two cores. A local cluster runs an AlignmentRun of a tiny model (SFT, reward model, RAFT, PPO,
evaluation) and serves a model behind a gateway under the load of `alidade bench serve`, while a canary takes over;
Prometheus scrapes operator and pods, labelled as the chart's monitors do, and evaluates the chart's rules. Then
`charts.pictures` draws what it has. Needs Chromium, and what `make` installs. --keep leaves cluster and Prometheus
running, so that the pictures can be drawn again.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from alidade_local.paths import ClusterPaths  # noqa: E402  # the path is set above
from bench.servers import free_port  # noqa: E402
from charts import pictures  # noqa: E402
from tests.charts.rendering import render, the  # noqa: E402
from tests.cluster_fixtures import RunningCluster, wait_until  # noqa: E402
from tests.e2e.jobs import (  # noqa: E402
    PAIRS,
    alignment_run,
    apply,
    conditions,
    config_map,
    finetune_job,
    finished,
    read,
    wrong_sums,
)
from tests.e2e.test_modelserve import model_serve, wait_until_serving  # noqa: E402

NAME = "dashboards"
INTERVAL = "5s"
LOAD_S = 150
LOAD = ("--rate", "6", "--prompt-tokens", "uniform:8-20", "--answer-tokens", "uniform:4-16", "--duration", str(LOAD_S))
# The port of each component that the chart's monitors scrape.
_PORTS = {"trainer": "metrics", "evaluation": "metrics", "server": "http", "canary": "http", "gateway": "http"}


def cluster() -> RunningCluster:
    """A cluster that has just been started, empty."""
    alidade("down", "--name", NAME, "--purge")
    alidade("up", "--name", NAME)
    paths = ClusterPaths.named(NAME)
    return RunningCluster(paths.data_dir, paths.kubeconfig)


def alidade(*words: str) -> None:
    """Runs a command of `alidade`."""
    subprocess.run([str(Path(sys.executable).parent / "alidade"), *words], check=True, stdout=subprocess.DEVNULL)


def prometheus(where: RunningCluster) -> tuple["subprocess.Popen[bytes]", str]:
    """A Prometheus that scrapes the cluster, and its address."""
    folder, port = where.data_dir / "prometheus", free_port()
    folder.mkdir(exist_ok=True)
    groups = the(render({"monitoring": {"enabled": True}}), "PrometheusRule")["spec"]["groups"]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    found = wait_until(
        lambda: re.search(r'"port": (\d+)', ClusterPaths.named(NAME).operator_log.read_text()), "the operator's port"
    )
    own = {"namespace": "alidade-system", "pod": "alidade-operator-0"}
    config = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "operator",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{found[1]}"], "labels": own}],
            },
            {"job_name": "pods", "file_sd_configs": [{"files": ["pods.json"], "refresh_interval": "1s"}]},
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--log.level=warn",
    ]
    started = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"])
    return started, f"http://127.0.0.1:{port}"


def tell_of_pods(where: RunningCluster) -> None:
    """Tells Prometheus again and again which pods there are, labelled as the chart's PodMonitors do.

    Debian's Prometheus cannot ask Kubernetes itself.
    """
    target = where.data_dir / "prometheus" / "pods.json"
    while True:
        # Between the cluster's end and this process' own there is nobody to ask.
        with contextlib.suppress(AssertionError):
            selector = ("--selector", "app.kubernetes.io/managed-by=alidade")
            pods = json.loads(where.kubectl("get", "pods", "--output", "json", *selector))["items"]
            new = target.with_suffix(".new")
            new.write_text(json.dumps([found for pod in pods if (found := scraped(pod)) is not None]))
            new.replace(target)
        time.sleep(1)


def scraped(pod: dict[str, Any]) -> dict[str, Any] | None:
    """Where a pod is scraped, and its labels; None for one that no PodMonitor selects, or that does not run."""
    labels, metadata = pod["metadata"]["labels"], pod["metadata"]
    component = labels["app.kubernetes.io/component"]
    is_first = (labels.get("training.kubeflow.org/replica-type", "master") == "master") and (
        labels.get("batch.kubernetes.io/job-completion-index", "0") == "0"
    )
    ports = {one["name"]: one["containerPort"] for one in pod["spec"]["containers"][0].get("ports", [])}
    port = ports.get(_PORTS.get(component, ""))
    if port is None or not is_first or pod["status"].get("phase") != "Running":
        return None
    given = {
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "name": labels["app.kubernetes.io/instance"],
        "kind": labels["alidade.dev/kind"],
        "component": component,
    }
    return {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": given}


def resources() -> list[dict[str, Any]]:
    """What is applied first: a run with everything, models to serve, and a job that has to be mended."""
    data = json.dumps({"type": "text2text", "instances": PAIRS})
    steps = [
        {"raft": {"iterations": 5, "promptsPerIteration": 64, "samplesPerPrompt": 4}},
        {"ppo": {"iterations": 10, "rolloutBatchSize": 64, "miniBatchSize": 16}},
    ]
    suites = [
        {"type": "generation", "dataset": "configmap://sums/train.json", "maxNewTokens": 16},
        {"type": "perplexity", "dataset": "configmap://sums/train.json"},
    ]
    run = alignment_run("sums", align=steps, evaluation={"template": {"suites": suites}})
    run["spec"]["sft"]["template"]["training"] |= {"maxSteps": 400, "evaluateEverySteps": 40}
    run["spec"]["sft"]["template"]["dataset"]["validation"] = {"fraction": 0.1}
    evaluation = {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "Evaluation",
        "metadata": {"name": "sums-before"},
        "spec": {
            "models": [
                {"name": name, "model": {"from": {"kind": "FineTuneJob", "name": f"{name}-of-sums"}}}
                for name in ("first", "second")
            ],
            "suites": suites,
        },
    }
    return [
        config_map("sums", train_json=data),
        wrong_sums(),
        run,
        finetune_job("first-of-sums", steps=100),
        finetune_job("second-of-sums", steps=200),
        evaluation,
        finetune_job("of-no-pool", compute={"nodePool": "a100"}),
    ]


def served(model: str) -> dict[str, Any]:
    """A ModelServe behind a gateway; another model is tried on half of the requests first."""
    return model_serve("answers", model, rollout={"canaryPercent": 50, "analysis": {"minRequests": 100, "seconds": 40}})


def work(where: RunningCluster) -> float:
    """Everything that the pictures show; ends while a job still runs. Returns when the run was in the midst of it."""
    apply(where, *resources())
    wait_until(lambda: is_in_ppo(where), "the run to be in its PPO", timeout_s=1200)
    seen_at = time.time()
    finished(where, "sums", "alignmentrun", timeout_s=1200)
    apply(where, served("first-of-sums"))
    wait_until_serving(where, "answers", 1)
    environment = os.environ | {"KUBECONFIG": str(where.kubeconfig)}
    command = [str(Path(sys.executable).parent / "alidade"), "bench", "serve", "ms/answers", *LOAD]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as load:
        time.sleep(LOAD_S / 4)
        apply(where, served("second-of-sums"), finetune_job("longer", steps=100_000))
        load.wait()
    return seen_at


def is_in_ppo(where: RunningCluster) -> bool:
    """Whether the run is far enough for its pictures: the steps before are over, and all that is told is there."""
    status = read(where, "sums", "alignmentrun").get("status", {})
    progress = status.get("progress", {})
    has_results = conditions(read(where, "sums-before", "evaluation")).get("Succeeded", ("",))[0] == "True"
    return progress.get("alignStep") == "2-ppo" and progress.get("iteration", 0) >= 6 and has_results


def main(argv: list[str]) -> int:
    """Draws the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draws the pictures of the dashboards in docs/images.")
    parser.add_argument("--keep", action="store_true", help="leave cluster and Prometheus running")
    options = parser.parse_args(argv)
    where = cluster()
    scraper, address = prometheus(where)
    print(f"Prometheus at {address}, KUBECONFIG={where.kubeconfig}", flush=True)
    threading.Thread(target=tell_of_pods, args=(where,), daemon=True).start()
    begun = time.time()
    try:
        seen_at = work(where)
        images = str(ROOT / "docs" / "images")
        until_then = ["--until", str(seen_at), "--minutes", f"{(seen_at - begun) / 60:.1f}"]
        pictures.main([address, images, *until_then, "--name", "sums.*", "--only", "run"])
        whole = ["--minutes", f"{(time.time() - begun) / 60:.1f}"]
        pictures.main([address, images, *whole, "--only", "fleet", "operator"])
        pictures.main([address, images, "--minutes", f"{LOAD_S / 60 + 0.3:.1f}", "--only", "serving"])
    finally:
        if not options.keep:
            scraper.terminate()
            scraper.wait()
            alidade("down", "--name", NAME, "--purge")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
