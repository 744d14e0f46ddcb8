"""Of two replicas one works, and the other takes over."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import yaml

from alidade_operator.api import FINE_TUNE_JOB, LEASE
from tests.operator.conftest import CONFIG, Process, api_server_process, operator_process
from tests.operator.played import Played, install_all_kinds


def replica(folder: Path, api_server: Path, namespace: str, *, lease_s: int = 3) -> Process:
    """A replica that takes turns, with a lease in the namespace that it serves."""
    folder.mkdir()
    process = operator_process(folder, api_server)
    election = {"leaderElection": True, "leaderNamespace": namespace, "leaseDurationS": lease_s}
    (folder / "operator.yaml").write_text(yaml.safe_dump(CONFIG | election | {"namespaces": [namespace]}))
    return process


async def test_a_second_replica_waits_and_takes_over_when_the_first_falls_silent(
    api_server: Path, played: Played, tmp_path: Path
) -> None:
    first, second = (replica(tmp_path / name, api_server, played.namespace) for name in ("first", "second"))
    try:
        first.start()
        await asyncio.to_thread(first.wait_for, "holding the lease")
        second.start()
        await asyncio.to_thread(second.wait_for, "listed every kind")
        await played.apply("one")
        await played.launched("one")
        assert "holding the lease" not in second.text()
        assert not any(json.loads(line).get("action") == "launch" for line in second.text().splitlines())

        first.kill()
        await played.apply("two")
        await asyncio.to_thread(second.wait_for, "holding the lease")
        await played.launched("two")
        lease = await played.api.get(LEASE, played.namespace, "alidade-operator")
        assert lease["spec"]["leaseTransitions"] == 1

        second.stop()
        lease = await played.api.get(LEASE, played.namespace, "alidade-operator")
        assert lease["spec"]["holderIdentity"] == "", "given back, so that nobody waits for it to run out"
    finally:
        first.stop()
        second.stop()
        await played.delete(FINE_TUNE_JOB, "one")


async def test_a_leader_that_gets_no_answer_ends_while_its_lease_still_runs(tmp_path: Path) -> None:
    """Its calls would hang for longer than the lease lasts, and the next leader's would overtake them."""
    server = api_server_process(tmp_path)
    server.start()
    await asyncio.to_thread(server.wait_for, "serving https://")
    leader = replica(tmp_path / "leader", tmp_path / "kubeconfig", "default", lease_s=6)
    try:
        await install_all_kinds(tmp_path / "kubeconfig")
        leader.start()
        await asyncio.to_thread(leader.wait_for, "holding the lease")
        assert server.process is not None
        assert leader.process is not None
        server.process.send_signal(signal.SIGSTOP)
        assert await asyncio.to_thread(leader.process.wait, timeout=6) == 1
        assert json.loads(leader.text().splitlines()[-1])["message"] == "the lease is lost"
    finally:
        leader.stop()
        assert server.process is not None
        server.process.send_signal(signal.SIGCONT)
        server.stop()
