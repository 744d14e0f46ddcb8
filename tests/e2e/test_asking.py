"""The `alidade` command asks, loads, waits for and reports on a ModelServe of the local cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.e2e.jobs import apply, finetune_job
from tests.e2e.test_modelserve import LIMITS, ask, generate, model_serve

COMMAND = "from alidade_cli.main import main; main()"
# As where a Service's address does not lead to this machine.
THROUGH_API = "from alidade_cli.kube import Cluster; Cluster.loopback_address = lambda *_: None; " + COMMAND


def alidade(cluster: Cluster, *arguments: str, code: int = 0, program: str = COMMAND, **environment: str) -> str:
    """What the command prints; its errors where it is to end with another code than 0."""
    variables = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), **environment}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_served_model_is_asked_loaded_and_reported_on(trained_on_sums: Cluster, tmp_path: Path) -> None:
    cluster = trained_on_sums
    serve = model_serve("asked", "first-of-sums", quantization={"method": "gguf", "type": "q8_0"})
    apply(cluster, finetune_job("first-of-sums", steps=20), serve)
    told = alidade(cluster, "wait", "ms/asked", "--timeout", "240")
    assert "http://asked.default.svc" in told
    assert "1 of 1 ready" in told

    question = ("--prompt", "What is 1 plus 2?", "--max-new-tokens", "4")
    messages = [{"role": "user", "content": question[1]}]
    body = {"model": "asked", "messages": messages, "max_tokens": 4, "temperature": 0}
    code, text = ask(cluster, "asked", "/v1/chat/completions", body)
    assert code == 200, text
    answer = json.loads(text)["choices"][0]["message"]["content"]
    for program in (COMMAND, THROUGH_API):
        assert alidade(cluster, "chat", "asked", *question, program=program) == answer + "\n"
        arguments = ("--rate", "5", "--duration", "2", "--prompt-tokens", "24", "--answer-tokens", "4", "-o", "json")
        (run,) = json.loads(alidade(cluster, "bench", "serve", "asked", *arguments, program=program))["runs"]
        assert run["offered"] == run["answered"] > 0

    assert '"path": "/v1/chat/completions"' in alidade(cluster, "logs", "ms/asked")
    alidade(cluster, "report", "ms/asked", "--save", str(tmp_path / "asked.html"))
    assert "q8_0" in (tmp_path / "asked.html").read_text()

    # With keys.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "asking"}, "stringData": {"one": "s3cret"}}
    apply(cluster, secret, serve | {"spec": serve["spec"] | {"auth": {"secretName": "asking"}, "limits": LIMITS}})
    alidade(cluster, "wait", "ms/asked", "--timeout", "120")
    assert generate(cluster, "asked")[0] == 401
    assert "answers 401" in alidade(cluster, "chat", "asked", *question, code=1)
    assert alidade(cluster, "chat", "asked", *question, ALIDADE_ENDPOINT_KEY="s3cret") == answer + "\n"
    assert "kubectl port-forward" in alidade(cluster, "chat", "asked", *question, code=1, program=THROUGH_API)
    cluster.kubectl("delete", "modelserve", "asked")
