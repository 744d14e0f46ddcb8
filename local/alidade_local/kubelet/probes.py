"""Probes and lifecycle hooks of a container: exec, HTTP, TCP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from alidade_local.kubelet.paths import PathMap
from alidade_local.objects import Object

# As much of a failed probe's output as goes into its event.
MAX_OUTPUT_BYTES = 1024


@dataclass(frozen=True)
class ProbeTarget:
    """Where a container's probes go: its address, declared ports, environment and folder."""

    pod_ip: str
    ports: Mapping[str, int]
    environment: Mapping[str, str]
    folder: Path
    paths: PathMap


@dataclass(frozen=True)
class ProbeResult:
    succeeded: bool
    output: str = ""


async def run_probe(action: Object, target: ProbeTarget, timeout_s: float) -> ProbeResult:
    """The outcome of one try of a probe or hook: exec, httpGet, tcpSocket or sleep."""
    try:
        async with asyncio.timeout(timeout_s):
            if "exec" in action:
                return await _execute(action["exec"]["command"], target)
            if "httpGet" in action:
                return await _http_get(action["httpGet"], target)
            if "tcpSocket" in action:
                return await _tcp_connect(action["tcpSocket"], target)
            if "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
                return ProbeResult(True)
    except TimeoutError:
        return ProbeResult(False, f"command or request timed out after {timeout_s:g} s")
    kinds = ", ".join(sorted(set(action) & {"grpc"})) or "of no kind"
    return ProbeResult(False, f"a probe {kinds} is not run by the local cluster; use exec, httpGet or tcpSocket")


async def _execute(command: list[str], target: ProbeTarget) -> ProbeResult:
    argv = [target.paths.rewrite_argument(item) for item in command]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(target.environment),
            cwd=target.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return ProbeResult(False, f"{argv[0]}: {error.strerror}")
    try:
        output, _ = await process.communicate()
    finally:
        # A probe that timed out is ended with what it started.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return ProbeResult(process.returncode == 0, output[:MAX_OUTPUT_BYTES].decode(errors="replace"))


async def _http_get(request: Object, target: ProbeTarget) -> ProbeResult:
    host, port = request.get("host") or target.pod_ip, _port(request["port"], target)
    scheme = (request.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{host}:{port}/{(request.get('path') or '/').lstrip('/')}"
    headers = {header["name"]: header["value"] for header in request.get("httpHeaders") or []}
    headers.setdefault("User-Agent", "kube-probe/1.32")
    try:
        # As the kubelet does: certificates are not verified, and a redirect counts as success.
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, ssl=False, allow_redirects=False) as answer,
        ):
            return ProbeResult(200 <= answer.status < 400, f"HTTP probe failed with statuscode: {answer.status}")
    except (aiohttp.ClientError, OSError) as error:
        return ProbeResult(False, f'Get "{url}": {error or type(error).__name__}')


async def _tcp_connect(request: Object, target: ProbeTarget) -> ProbeResult:
    host, port = request.get("host") or target.pod_ip, _port(request["port"], target)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return ProbeResult(False, f"dial tcp {host}:{port}: {error.strerror or error}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ProbeResult(True)


def _port(port: int | str, target: ProbeTarget) -> int:
    text = str(port)
    return int(text) if text.isdigit() else target.ports.get(text, 0)


@dataclass
class ProbeCounter:
    """Turns single results into the probe's verdict: failureThreshold and successThreshold in a row."""

    failure_threshold: int
    success_threshold: int
    verdict: bool
    _streak: int = 0
    _last: bool | None = None

    def count(self, succeeded: bool) -> bool:
        """Take in one result; returns the verdict after it."""
        self._streak = self._streak + 1 if succeeded == self._last else 1
        self._last = succeeded
        if self._streak >= (self.success_threshold if succeeded else self.failure_threshold):
            self.verdict = succeeded
        return self.verdict

    @property
    def has_failed(self) -> bool:
        """Whether the last results were failures, as many as the threshold."""
        return self._last is False and self._streak >= self.failure_threshold


@dataclass(frozen=True)
class ProbeSettings:
    """A probe's timing, in seconds, with the API's defaults."""

    initial_delay_s: float
    period_s: float
    timeout_s: float
    failure_threshold: int
    success_threshold: int

    @classmethod
    def of(cls, probe: Object) -> ProbeSettings:
        return cls(
            initial_delay_s=probe.get("initialDelaySeconds") or 0,
            period_s=probe.get("periodSeconds") or 10,
            timeout_s=probe.get("timeoutSeconds") or 1,
            failure_threshold=probe.get("failureThreshold") or 3,
            success_threshold=probe.get("successThreshold") or 1,
        )
