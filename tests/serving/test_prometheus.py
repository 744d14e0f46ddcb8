"""A real Prometheus reads what a server exports, and promtool finds nothing wrong with it."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.serving.running import Server

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed; on Debian `python tools/prometheus.py .tools/bin` fetches it",
)


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes the server every second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {"job_name": "serving", "static_configs": [{"targets": [urlsplit(server.url).netloc]}]}
    config = tmp_path / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def queried(prometheus: str, expression: str) -> float | None:
    """The value of an expression over the samples there are; None while there are none."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:  # it has not started yet
        return None
    return float(found[0]["value"][1]) if found else None


def awaited(prometheus: str, expression: str, value: float) -> None:
    until = time.monotonic() + 60
    while (found := queried(prometheus, expression)) != value:
        assert time.monotonic() < until, f"{expression} is {found}, not {value}"
        time.sleep(0.1)


def test_a_real_prometheus_scrapes_requests_tokens_and_times(server: Server, prometheus: str) -> None:
    server.generate("hello", max_new_tokens=5)
    awaited(prometheus, "up{job='serving'}", 1)
    for name in ("tgi_request_count", "modelserve_generated_tokens_total", "tgi_request_duration_count"):
        awaited(prometheus, name, server.metric(name))
    awaited(prometheus, "modelserve_requests_total{outcome='ok'}", server.metric("tgi_request_success"))
    awaited(prometheus, "histogram_quantile(0.5, modelserve_time_to_first_token_seconds_bucket) > bool 0", 1)


def test_promtool_reads_the_text(server: Server) -> None:
    text = server.get("/metrics")[1]
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    # Names that text-generation-inference chose are linted too; what may not be there is what cannot be read.
    complaints = [line for line in checked.stderr.splitlines() if not line.startswith("tgi_")]
    assert complaints == [], checked.stderr
