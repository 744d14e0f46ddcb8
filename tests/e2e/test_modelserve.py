"""ModelServes of small models on the local cluster, from apply to answers behind the Service."""

import http.client
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until
from tests.e2e.jobs import (
    PAIRS,
    apply,
    children,
    conditions,
    config_map,
    finetune_job,
    finished,
    message,
    read,
    wait_until_childless,
)

LIMITS = {"maxInputTokens": 40, "maxTotalTokens": 60, "maxConcurrentRequests": 16}


def model_serve(name: str, source: str, **spec: Any) -> dict[str, Any]:
    """A ModelServe of a FineTuneJob's model."""
    fields = {"model": {"from": {"kind": "FineTuneJob", "name": source}}, "limits": LIMITS}
    return {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "ModelServe",
        "metadata": {"name": name},
        "spec": fields | spec,
    }


def ask(cluster: Cluster, name: str, path: str, body: object | None = None, key: str = "") -> tuple[int, str]:
    """Status and body of what the Service answers, asked through the API server's proxy as `kubectl proxy` does."""
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    address = urlsplit(content["clusters"][0]["cluster"]["server"])
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context, timeout=60)
    headers = {"Authorization": f"Bearer {content['users'][0]['user']['token']}", "Content-Type": "application/json"}
    url = f"/api/v1/namespaces/default/services/{name}:http/proxy{path}"
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", url, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def generate(cluster: Cluster, name: str) -> tuple[int, str]:
    """An answer of four tokens."""
    return ask(cluster, name, "/generate", {"inputs": "What is 1 plus 2?", "parameters": {"max_new_tokens": 4}})


def is_serving(cluster: Cluster, name: str, generation: int) -> bool:
    """Whether every replica serves the spec of that generation; fails when that has failed."""
    found = read(cluster, name, "modelserve")
    status = found.get("status", {})
    told = conditions(found)
    assert told.get("Failed", ("",))[0] != "True", status
    current = status.get("observedGeneration") == found["metadata"]["generation"] >= generation
    return current and told.get("Available", ("",))[0] == "True" and told.get("Progressing", ("",))[0] == "False"


class Asker:
    """Asks without end from another thread, and keeps what was not answered with 200."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name
        self._stop = threading.Event()
        self.answered = 0
        self.lost: list[str] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                status, text = generate(self._cluster, self._name)
            except OSError as error:
                self.lost.append(repr(error))
                continue
            if status == 200:
                self.answered += 1
            else:
                self.lost.append(f"{status} {text}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the asking."""
        self._stop.set()
        self._thread.join(timeout=60)


def test_a_quantized_model_answers_behind_its_service_and_a_new_one_takes_over(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    quantization = {"method": "gguf", "type": "q8_0", "maxPerplexityIncrease": 0.5}
    apply(cluster, model_serve("sums", "first-of-sums", quantization=quantization))
    wait_until(
        lambda: conditions(read(cluster, "sums", "modelserve")).get("Accepted") == ("Unknown", "ReferencePending"),
        "the ModelServe waits for its model",
    )
    apply(cluster, finetune_job("first-of-sums", steps=20), finetune_job("second-of-sums", steps=30))
    wait_until(lambda: is_serving(cluster, "sums", 1), lambda: str(read(cluster, "sums", "modelserve")), timeout_s=240)
    status = read(cluster, "sums", "modelserve")["status"]
    report = status["quantization"]
    assert (report["type"], status["engine"], status["phase"]) == ("q8_0", "embedded", "Serving")
    assert report["sizeBytes"] > 0
    assert report["perplexityAfter"] / report["perplexityBefore"] < 1.5
    assert status["url"] == "http://sums.default.svc"
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    code, text = generate(cluster, "sums")
    assert code == 200, text
    assert json.loads(text)["generated_text"]
    code, text = ask(cluster, "sums", "/v1/models")
    assert code == 200
    assert json.loads(text)["data"][0]["id"] == "sums"

    # It can be measured as it is served.
    evaluation = {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "Evaluation",
        "metadata": {"name": "of-served-sums"},
        "spec": {
            "endpoint": {"modelServe": "sums"},
            "suites": [{"type": "generation", "dataset": "configmap://few-sums/test.json", "maxNewTokens": 8}],
            "compute": {"workers": 1},
        },
    }
    few = config_map("few-sums", test_json=json.dumps({"type": "text2text", "instances": PAIRS[:8]}))
    apply(cluster, few, evaluation)
    results = finished(cluster, "of-served-sums", "evaluation")["status"]["results"]
    assert {result["n"] for result in results if result["metric"] == "exact_match"} == {8}

    # Another model takes over without a request being lost.
    wait_until(
        lambda: conditions(read(cluster, "second-of-sums")).get("Succeeded", ("",))[0] == "True",
        "the second model is there",
        timeout_s=240,
    )
    asker = Asker(cluster, "sums")
    try:
        apply(cluster, model_serve("sums", "second-of-sums", quantization=quantization))
        wait_until(
            lambda: is_serving(cluster, "sums", 2), lambda: str(read(cluster, "sums", "modelserve")), timeout_s=240
        )
        assert read(cluster, "sums", "modelserve")["status"]["model"] != status["model"]
    finally:
        asker.stop()
    assert asker.lost == []
    assert asker.answered > 10

    # Quantization that costs too much is refused, and the model before goes on answering.
    strict = {"method": "gguf", "type": "q2_k", "maxPerplexityIncrease": 0.000001}
    apply(cluster, model_serve("sums", "second-of-sums", quantization=strict))
    wait_until(
        lambda: conditions(read(cluster, "sums", "modelserve")).get("Failed") == ("True", "PerplexityTooHigh"),
        lambda: str(read(cluster, "sums", "modelserve")),
        timeout_s=120,
    )
    assert "is served as before" in message(read(cluster, "sums", "modelserve"), "Failed")
    assert generate(cluster, "sums")[0] == 200

    # Scaling to nothing and back, then deletion.
    apply(cluster, model_serve("sums", "second-of-sums", quantization=quantization, replicas=1))
    cluster.kubectl("scale", "modelserve/sums", "--replicas=0")
    wait_until(
        lambda: conditions(read(cluster, "sums", "modelserve")).get("Progressing") == ("False", "Stopped"),
        lambda: str(read(cluster, "sums", "modelserve")),
        timeout_s=120,
    )
    assert generate(cluster, "sums")[0] == 503
    cluster.kubectl("delete", "modelserve", "sums")
    wait_until_childless(cluster, "ModelServe", "sums", "deployments,services,jobs,pods,configmaps", timeout_s=120)


def test_keys_are_asked_for_and_a_server_that_cannot_start_says_why(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"one": "s3cret"}}
    apply(cluster, finetune_job("first-of-sums", steps=20), secret)
    too_long = {"maxInputTokens": 1024, "maxTotalTokens": 2048}
    apply(cluster, model_serve("guarded", "first-of-sums", auth={"secretName": "keys"}, limits=too_long))
    wait_until(
        lambda: "--max-total-tokens is 2048" in message(read(cluster, "guarded", "modelserve"), "Available"),
        lambda: str(read(cluster, "guarded", "modelserve")),
        timeout_s=240,
    )
    apply(cluster, model_serve("guarded", "first-of-sums", auth={"secretName": "keys"}))
    wait_until(
        lambda: is_serving(cluster, "guarded", 2), lambda: str(read(cluster, "guarded", "modelserve")), timeout_s=120
    )
    # The API server's proxy keeps its own Authorization to itself, so that this one comes without a key.
    assert generate(cluster, "guarded")[0] == 401
    pods = [pod for pod in children(cluster, "ModelServe", "guarded", "pods") if "ready" in str(pod["status"])]
    assert "s3cret" not in json.dumps(pods)
    cluster.kubectl("delete", "modelserve", "guarded")
