"""One epoch over the questions of NLPCC-ICCPOL 2016 KBQA, on a local cluster of its own.

    python bench/nlpcc.py --data ../shared/data/nlpcc2016_kbqa/train.txt

Reads the published file, puts the pairs on the workspace volume, applies a FineTuneJob with kubectl, and writes what
came out to bench/results/nlpcc.json and the job's report to bench/results/nlpcc.html. Takes some minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
CLUSTER = "bench-nlpcc"
JOB = {
    "apiVersion": "alidade.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "nlpcc"},
    "spec": {
        "method": "sft",
        "model": {
            "init": {"hiddenSize": 256, "layers": 4, "heads": 4, "vocabSize": 8192, "contextLength": 256},
        },
        "dataset": {
            "uri": "pvc://alidade-workspace/nlpcc/train.json",
            "maxLength": 256,
            "packing": True,
            "validation": {"fraction": 0.02},
        },
        "training": {
            "epochs": 1,
            "learningRate": 1.0e-3,
            "globalBatchSize": 8,
            "microBatchSize": 4,
            "precision": "fp32",
            "gradientCheckpointing": False,
            "evaluateEverySteps": 50,
        },
        "deepspeed": {"zeroStage": 2},
        "compute": {"workers": 2},
    },
}


def run(*command: str, stdin: str | None = None, **environment: str) -> str:
    """What a command printed; its error ends the benchmark."""
    print("$", " ".join(command), flush=True)
    env = {**os.environ, **environment}
    return subprocess.run(command, input=stdin, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(argv: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="One epoch over NLPCC-2016 KBQA on a local cluster.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/nlpcc2016_kbqa/train.txt")
    data = parser.parse_args(argv).data
    if not data.is_file():
        print(f"{data} is not there; --data names the shared task's train.txt", file=sys.stderr)
        return 2
    run("alidade", "down", "--name", CLUSTER, "--purge")
    run("alidade", "up", "--name", CLUSTER)
    try:
        result = train(data, Path(json.loads(run("alidade", "status", "--name", CLUSTER, "-o", "json"))["kubeconfig"]))
    finally:
        run("alidade", "down", "--name", CLUSTER)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "nlpcc.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "loss"}, indent=1))
    return 0


def train(data: Path, kubeconfig: Path) -> dict[str, Any]:
    """Converts the data, runs the job, and says what came out."""
    volume = kubeconfig.parent / "volumes" / "default" / "alidade-workspace"
    (volume / "nlpcc").mkdir(parents=True, exist_ok=True)
    run(sys.executable, str(ROOT / "examples/nlpcc/nlpcc.py"), str(data), "--output", str(volume / "nlpcc/train.json"))
    environment = {"KUBECONFIG": str(kubeconfig)}
    run("kubectl", "apply", "-f", "-", stdin=yaml.safe_dump(JOB), **environment)
    started = time.monotonic()
    waited = run("alidade", "wait", "ftj/nlpcc", "--timeout", "3600", "-o", "json", **environment)
    status = json.loads(waited.splitlines()[-1])
    seconds = time.monotonic() - started
    run("alidade", "report", "ftj/nlpcc", "--save", str(RESULTS / "nlpcc.html"), **environment)
    folder = volume / status["model"]["uri"].partition("://alidade-workspace/")[2]
    lines = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds_from_apply_to_model": round(seconds, 1),
        "parameters": status["model"]["parameters"],
        "metrics": status["metrics"],
        "loss": {line["step"]: round(line["loss"], 4) for line in lines if "loss" in line},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
