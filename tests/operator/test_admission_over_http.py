"""The webhook as the API server asks it: two replicas, over TLS, by the manifests of docs/how-to/admission.md."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from alidade_operator.admissionserver import AdmissionServer
from alidade_operator.api import FINE_TUNE_JOB, SECRET, SERVICE, WEBHOOK_CONFIGURATION, Kind
from alidade_operator.certificates import SelfSigned
from alidade_operator.config import Admission, OperatorConfig
from alidade_operator.controller import Controller
from alidade_operator.selfsigned import signed
from tests.operator.conftest import CONFIG, ROOT, Process, operator_process
from tests.operator.played import Played, send
from tests.operator.test_admission import BASE, TUNED

ENDPOINTS = Kind("", "v1", "endpoints", "Endpoints")
PAGE = ROOT / "docs/how-to/admission.md"
H100 = {"nodePool": "h100"}


def manifests() -> list[dict[str, Any]]:
    """The Service and the ValidatingWebhookConfiguration of the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [body for block in blocks for body in yaml.safe_load_all(block) if "apiVersion" in body]


def replica(folder: Path, api_server: Path, played: Played, **admission: Any) -> Process:
    """A replica that takes turns and answers admission reviews."""
    folder.mkdir()
    process = operator_process(folder, api_server)
    own = {"enabled": True, "host": "127.0.0.1", "port": 0, "configuration": played.namespace} | admission
    election = {"leaderElection": True, "leaderNamespace": played.namespace, "leaseDurationS": 60}
    place = {"namespaces": [played.namespace], "operatorNamespace": played.namespace, "admission": own}
    (folder / "operator.yaml").write_text(yaml.safe_dump(CONFIG | election | place))
    return process


def told(process: Process, message: str) -> dict[str, Any]:
    """The first line of a log with a message."""
    process.wait_for(message)
    return next(line for line in map(json.loads, process.text().splitlines()) if line.get("message") == message)


def port(process: Process) -> int:
    return int(told(process, "serving admission")["port"])


async def reviews(process: Process) -> dict[str, float]:
    """How many reviews of FineTuneJobs a replica has counted, by their outcome."""
    metrics = int(told(process, "serving metrics and health")["port"])
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
        text = await answer.text()
    found = re.findall(r'admissions_total\{kind="FineTuneJob",outcome="(\w+)"\} (\S+)', text)
    return {outcome: float(count) for outcome, count in found}


class Cluster:
    """The webhook of one namespace, made known to the API server by the page's manifests."""

    def __init__(self, played: Played, kubeconfig: Path) -> None:
        self.played = played
        self.kubeconfig = kubeconfig

    async def tell(self, *ports: int, **changes: Any) -> None:
        """The manifests, for replicas that listen at ports of this machine."""
        namespace = self.played.namespace
        service, configuration = manifests()
        del service["spec"]["selector"]
        await self.played.api.create(SERVICE, namespace, service | {"metadata": {"name": service["metadata"]["name"]}})
        subsets = [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "https", "port": one}]} for one in ports]
        metadata = {"name": service["metadata"]["name"]}
        endpoints = {"apiVersion": "v1", "kind": ENDPOINTS.kind, "metadata": metadata, "subsets": subsets}
        await self.played.api.create(ENDPOINTS, namespace, endpoints)
        configuration["metadata"]["name"] = namespace
        hook = configuration["webhooks"][0]
        hook["clientConfig"]["service"]["namespace"] = namespace
        hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        hook |= changes
        await send(self.played.api, "POST", WEBHOOK_CONFIGURATION, WEBHOOK_CONFIGURATION.path(), configuration)

    async def bundle(self) -> str:
        body = await self.played.api.get(WEBHOOK_CONFIGURATION, None, self.played.namespace)
        return str(body["webhooks"][0]["clientConfig"].get("caBundle", ""))

    async def apply(self, name: str, spec: dict[str, Any], *options: str) -> str:
        """What kubectl says."""
        body = {
            "apiVersion": FINE_TUNE_JOB.api_version,
            "kind": FINE_TUNE_JOB.kind,
            "metadata": {"name": name, "namespace": self.played.namespace},
            "spec": spec,
        }
        bundled = ROOT / ".tools/bin/kubectl"
        kubectl = str(bundled) if bundled.exists() else shutil.which("kubectl")
        assert kubectl is not None, "these tests need kubectl: make .tools/bin/kubectl"
        done = await asyncio.to_thread(
            subprocess.run, [kubectl, "apply", "-f", "-", *options], input=json.dumps(body), capture_output=True,
            text=True, timeout=60, env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
        )  # fmt: skip
        return str(done.stdout + done.stderr)


@pytest.fixture
async def cluster(played: Played, api_server: Path) -> AsyncIterator[Cluster]:
    yield Cluster(played, api_server)
    path = WEBHOOK_CONFIGURATION.path(None, played.namespace)
    await send(played.api, "DELETE", WEBHOOK_CONFIGURATION, path, {})


async def both_asked(cluster: Cluster, processes: list[Process]) -> None:
    """Applies until each replica has been asked: the API server picks one by chance."""
    for number in itertools.count():
        counts = [await reviews(process) for process in processes]
        if all(sum(count.values()) for count in counts):
            assert not any("error" in count for count in counts)
            return
        assert number < 60, "sixty times the same of two is no chance"
        await cluster.apply(f"probe-{number}", BASE, "--dry-run=server")


async def test_kubectl_is_told_at_once_by_whichever_replica_is_asked(
    cluster: Cluster, played: Played, api_server: Path, tmp_path: Path
) -> None:
    replicas = [replica(tmp_path / name, api_server, played) for name in ("first", "second")]
    try:
        for process in replicas:
            process.start()
        ports = [await asyncio.to_thread(port, process) for process in replicas]
        for process in replicas:
            await asyncio.to_thread(process.wait_for, "listed every kind")
        await cluster.tell(*ports, failurePolicy="Fail")
        await played.until(cluster.bundle, "the authority in caBundle")

        said = await cluster.apply("demo", BASE | {"compute": H100})
        assert 'admission webhook "resources.alidade.dev" denied the request: NodePoolUnknown: ' in said
        assert "spec.compute.nodePool is h100; the configured pools are local, gpus." in said
        said = await cluster.apply("demo", TUNED)
        assert "Warning: ReferencePending: spec.model.from names FineTuneJob base, which does not exist yet." in said
        assert "created" in said
        assert "Warning" not in await cluster.apply("base", BASE)
        await both_asked(cluster, replicas)

        async def accepted() -> dict[str, Any] | None:
            conditions = (await played.read("demo")).get("conditions") or []
            return next((one for one in conditions if one["type"] == "Accepted"), None)

        condition = await played.until(accepted, "the condition Accepted")
        assert condition["reason"] == "ReferencePending", "what the webhook has warned of"
    finally:
        for process in replicas:
            process.stop()


async def test_replicas_share_a_certificate(cluster: Cluster, played: Played, api_server: Path, tmp_path: Path) -> None:
    await cluster.tell(9)
    replicas = [replica(tmp_path / name, api_server, played) for name in ("first", "second")]
    try:
        for process in replicas:
            process.start()
        ports = [await asyncio.to_thread(port, process) for process in replicas]
        secret = await played.api.get(SECRET, played.namespace, "alidade-webhook-certificate")
        for process in replicas:
            await asyncio.to_thread(process.wait_for, "listed every kind")
        authority = base64.b64decode(secret["data"]["ca.crt"]).decode()
        assert await cluster.bundle() == secret["data"]["ca.crt"]
        assert sum("certificate signed" in process.text() for process in replicas) == 1, "one of them, for both"
        host = f"alidade-webhook.{played.namespace}.svc"
        context = ssl.create_default_context(cadata=authority)
        async with aiohttp.ClientSession() as session:
            for one in ports:
                url = f"https://127.0.0.1:{one}/validate"
                async with session.post(url, data=b"[]", ssl=context, server_hostname=host) as answer:
                    assert answer.status == 400
                    assert "AdmissionReview" in await answer.text()
    finally:
        for process in replicas:
            process.stop()


async def test_an_empty_secret_of_the_chart_is_filled(
    cluster: Cluster, played: Played, api_server: Path, tmp_path: Path
) -> None:
    await cluster.tell(9)
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alidade-webhook-certificate"}}
    await played.api.create(SECRET, played.namespace, body)
    process = replica(tmp_path / "one", api_server, played)
    try:
        process.start()
        await asyncio.to_thread(port, process)
        secret = await played.api.get(SECRET, played.namespace, "alidade-webhook-certificate")
        assert sorted(secret["data"]) == ["ca.crt", "ca.key", "tls.crt", "tls.key"]
        assert secret["data"]["ca.crt"] == await cluster.bundle()
    finally:
        process.stop()


async def test_a_folders_certificate_is_waited_for_and_followed(
    cluster: Cluster, played: Played, api_server: Path, tmp_path: Path
) -> None:
    await cluster.tell(9)
    folder, host = tmp_path / "certificates", f"alidade-webhook.{played.namespace}.svc"
    folder.mkdir()
    process = replica(tmp_path / "one", api_server, played, certificateFolder=str(folder))
    try:
        process.start()
        await asyncio.to_thread(process.wait_for, "no new certificate")
        first, second = signed((host,), None), signed((host,), None)
        for own, message in ((first, "serving admission"), (second, "certificate loaded")):
            (folder / "tls.key").write_bytes(own.key)
            (folder / "tls.crt").write_bytes(own.certificate)
            await asyncio.to_thread(process.wait_for, message)
            context = ssl.create_default_context(cadata=own.authority.decode())
            url = f"https://127.0.0.1:{port(process)}/validate"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, data=b"{}", ssl=context, server_hostname=host) as answer,
            ):
                assert answer.status in (400, 503), "shown a certificate that it trusts"
        assert await cluster.bundle() == "", "whoever fills the folder tells the API server, too"
    finally:
        process.stop()


async def test_the_configuration_is_kept_in_step_and_an_old_authority_renewed(cluster: Cluster, played: Played) -> None:
    await cluster.tell(9)
    names = Admission(enabled=True, configuration=played.namespace)
    config = OperatorConfig(operator_namespace=played.namespace, admission=names)
    first, second = (SelfSigned(played.api, config) for _ in range(2))
    certificate, _ = await first.read()
    bundle = await cluster.bundle()
    body = await played.api.get(WEBHOOK_CONFIGURATION, None, played.namespace)
    body["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(b"a helm upgrade has taken it away").decode()
    await played.api.replace(WEBHOOK_CONFIGURATION, None, body)
    assert (await second.read())[0] == certificate, "the certificate of the other replica"
    assert await cluster.bundle() == bundle

    host = f"alidade-webhook.{played.namespace}.svc"
    old = signed((host, f"{host}.cluster.local"), None, datetime.now(UTC) - timedelta(days=3640))
    values = {"tls.crt": old.certificate, "tls.key": old.key, "ca.crt": old.authority, "ca.key": old.authority_key}
    secret = await played.api.get(SECRET, played.namespace, "alidade-webhook-certificate")
    secret["data"] = {name: base64.b64encode(value).decode() for name, value in values.items()}
    await played.api.replace(SECRET, played.namespace, secret)
    renewed = await asyncio.gather(first.read(), second.read())
    assert renewed[0] == renewed[1], "of two that renew at once one wins"
    told = base64.b64decode(await cluster.bundle())
    assert told.endswith(old.authority), "while somebody may still show the old one"
    assert len(told) > len(old.authority)


async def test_reviews_are_refused_until_the_resources_are_known(played: Played) -> None:
    own = signed(("localhost",), None)

    class Known:
        look_again_s = 60.0

        async def read(self) -> tuple[bytes, bytes]:
            return own.certificate, own.key

    settings = Admission(enabled=True, host="127.0.0.1", port=0)
    server = AdmissionServer(settings, Known(), Controller(OperatorConfig(), played.api), is_ready=lambda: False)
    server.start()
    try:

        async def listening() -> int | None:
            return server.port

        url = f"https://localhost:{await played.until(listening, 'a port')}/validate"
        context = ssl.create_default_context(cadata=own.authority.decode())
        async with aiohttp.ClientSession() as session, session.post(url, json={}, ssl=context) as answer:
            assert answer.status == 503
    finally:
        await server.stop()


def test_off_is_the_default(operator: Process, played: Played) -> None:
    assert "serving admission" not in operator.text()


def test_the_page_is_for_all_kinds_and_lets_through_when_nobody_answers() -> None:
    _, configuration = manifests()
    hook = configuration["webhooks"][0]
    names = {path.name.partition(".")[0] for path in (ROOT / "crds").glob("*.yaml")}
    assert set(hook["rules"][0]["resources"]) == names
    assert (hook["failurePolicy"], hook["timeoutSeconds"], hook["sideEffects"]) == ("Ignore", 5, "None")
