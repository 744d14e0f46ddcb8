"""Of two replicas one works, and the other takes over."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import yaml

from alidade_operator.api import FINE_TUNE_JOB, LEASE
from tests.operator.conftest import CONFIG, Process, operator_process
from tests.operator.played import Played


def replica(folder: Path, api_server: Path, played: Played) -> Process:
    """A replica that takes turns, with a lease in the test's namespace."""
    folder.mkdir()
    process = operator_process(folder, api_server)
    election = {"leaderElection": True, "leaderNamespace": played.namespace, "leaseDurationS": 3}
    (folder / "operator.yaml").write_text(yaml.safe_dump(CONFIG | election | {"namespaces": [played.namespace]}))
    return process


async def test_a_second_replica_waits_and_takes_over_when_the_first_falls_silent(
    api_server: Path, played: Played, tmp_path: Path
) -> None:
    first, second = (replica(tmp_path / name, api_server, played) for name in ("first", "second"))
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
