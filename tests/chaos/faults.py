"""What is done to runs. Every fault strikes at instants that the trial's seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alidade_operator.api import (
    ALIGNMENT_RUN,
    CONFIG_MAP,
    DEPLOYMENT,
    EVALUATION,
    FINE_TUNE_JOB,
    JOB,
    MODEL_SERVE,
    POD,
    PYTORCH_JOB,
    REWARD_MODEL,
    SERVICE,
    ApiError,
    Kind,
)
from tests.chaos.proxy import (
    Cutting,
    Disturbance,
    Expired,
    Refused,
    Refusing,
    Repeating,
    Several,
    Shuffling,
    Silent,
    Slow,
    Stale,
)
from tests.chaos.trial import JOBS, RUN, Trial, Workload, retried, until
from tests.operator.played import CRD, own_kinds, send


async def nothing(trial: Trial) -> None:
    """Nobody does anything."""
    del trial


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run, and what it may change.

    strike: does it, while the run goes on. calls: what goes wrong with the operator's calls meanwhile.
    restarts: whether processes of stages may begin again. survives: whether there is a run afterwards.
    ends_operator: whether the operator's process may end by it, and is started again. needs_root: whether it mounts
    file systems.
    """

    name: str
    what: str
    strike: Callable[[Trial], Awaitable[None]] = nothing
    calls: Callable[[random.Random], Disturbance] | None = None
    restarts: bool = False
    survives: bool = True
    ends_operator: bool = False
    needs_root: bool = False
    workload: Workload = RUN


# Processes


async def kill_operator(trial: Trial) -> None:
    """Three times, at instants that are independent of each other."""
    for _ in range(3):
        await asyncio.sleep(trial.chance.uniform(0, trial.lasts_s / 2))
        await trial.rig.kill(trial.rig.operator, pause_s=trial.chance.uniform(0, 1))
        trial.struck += 1


async def kill_api_server(trial: Trial) -> None:
    """As a crash: what it has answered is on the disk, what it has not may be."""
    await trial.instant()
    await trial.rig.kill(trial.rig.api_server, pause_s=trial.chance.uniform(0, 2))
    trial.struck += 1


async def kill_kubelet(trial: Trial) -> None:
    """With the controllers, while processes of pods go on until it is back."""
    await trial.instant()
    await trial.rig.kill(trial.rig.control_plane, pause_s=trial.chance.uniform(0, 2))
    trial.struck += 1


async def lose_node(trial: Trial) -> None:
    """With all pods on it."""
    await trial.instant()
    await trial.rig.lose_node(pause_s=trial.chance.uniform(0, 2))
    trial.struck += 1


def killing(*words: str, times: int = 1, **environment: str) -> Callable[[Trial], Awaitable[None]]:
    """SIGKILL to a process of a pod with these words in its command line and these variables."""

    async def strike(trial: Trial) -> None:
        for _ in range(times):
            await trial.kill_pod(*words, **environment)

    return strike


async def kill_server(trial: Trial) -> None:
    """Before it has answered, and once the run has ended: it is started again and answers."""
    await trial.kill_pod("alidade-serve")
    await trial.phase("Succeeded", "Failed")
    await trial.kill_pod("alidade-serve")
    await until(lambda: _present(trial), "the server to be back")


async def _present(trial: Trial) -> bool:
    return bool(trial.rig.pods("alidade-serve"))


async def jump_clock(trial: Trial) -> None:
    """By up to two hours, forth and back."""
    for _ in range(2):
        await asyncio.sleep(trial.chance.uniform(0, trial.lasts_s / 2))
        trial.rig.set_clock(trial.chance.uniform(-7200, 7200))
        trial.struck += 1
    await trial.phase("Succeeded", "Failed")
    trial.rig.set_clock(0)


# Objects


async def evict_pods(trial: Trial) -> None:
    """By the Eviction API, as a drain does it."""
    for _ in range(2):
        await trial.instant()
        pods = await trial.owned(POD)
        if pods:
            name = trial.chance.choice(pods)[1]["metadata"]["name"]
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            path = POD.path(trial.namespace, name, "eviction")
            with contextlib.suppress(ApiError):
                await send(trial.rig.api, "POST", POD, path, body)
                trial.struck += 1


async def delete_config_maps(trial: Trial) -> None:
    """The user's, who makes it anew, while processes that need it are to start; or the operator's own, of jobs whose
    process has just been killed."""
    await trial.instant()
    if trial.chance.random() < 0.5:
        body = await trial.rig.api.get(CONFIG_MAP, trial.namespace, "records")
        await trial.delete(CONFIG_MAP, body)
        for pid in trial.rig.pods("alidade-trainer"):
            trial.rig.kill_pod(pid)
        await asyncio.sleep(trial.chance.uniform(0, 2))
        await trial.give_data()
        return
    for _, body in await trial.owned(CONFIG_MAP) if await trial.kill_pod("alidade-trainer") else []:
        await trial.delete(CONFIG_MAP, body)


DELETABLE = (FINE_TUNE_JOB, REWARD_MODEL, EVALUATION, MODEL_SERVE, PYTORCH_JOB, JOB, DEPLOYMENT, SERVICE, POD)


async def delete_child(trial: Trial) -> None:
    """One of what the run has made, or of what that has made; it may be made anew, with all that it had made."""
    await trial.instant()
    children = await trial.owned(*DELETABLE)
    if children:
        kind, body = trial.chance.choice(children)
        trial.remade.add((kind.kind, body["metadata"]["name"]))
        trial.remade |= {(made, name) for made, name in trial.record.made if made != ALIGNMENT_RUN.kind}
        await trial.delete(kind, body)


EDITS: list[tuple[Kind, dict[str, Any]]] = [
    (PYTORCH_JOB, {"metadata": {"annotations": {"example.com/note": "edited"}}}),
    (PYTORCH_JOB, {"spec": {"runPolicy": {"cleanPodPolicy": "None"}}}),
    (DEPLOYMENT, {"spec": {"replicas": 0}}),
    (DEPLOYMENT, {"spec": {"template": {"metadata": {"annotations": {"example.com/note": "edited"}}}}}),
    (SERVICE, {"spec": {"selector": {"app": "somebody-else"}}}),
    (CONFIG_MAP, {"data": {"job.json": "{}"}}),
    (POD, {"metadata": {"labels": {"example.com/note": "edited"}}}),
    (MODEL_SERVE, {"metadata": {"labels": {"example.com/note": "edited"}}}),
    (FINE_TUNE_JOB, {"metadata": {"annotations": {"example.com/note": "edited"}}}),
]


async def edit_children(trial: Trial) -> None:
    """Everything there is of a kind, in a way that its API allows to everybody."""
    kind, patch = trial.chance.choice(EDITS)
    await until(lambda: trial.owned(kind), f"a {kind.kind} to edit")
    await trial.a_little()
    for _, body in await trial.owned(kind):
        await trial.change(kind, body["metadata"]["name"], patch)
    if kind is CONFIG_MAP:
        await trial.kill_pod("alidade-trainer")  # what is told anew is read by the next attempt only


async def upgrade_kinds(trial: Trial) -> None:
    """Every definition of ours gets a column and a field that were not there."""
    await trial.instant()
    for file in own_kinds():
        body = yaml.safe_load(file.read_text())
        for version in body["spec"]["versions"]:
            column = {"name": f"Note{trial.chance.randrange(10**6)}", "type": "string", "jsonPath": ".status.phase"}
            version["additionalPrinterColumns"].append(column)
            version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["note"] = {"type": "string"}
        path = CRD.path(None, body["metadata"]["name"])

        async def put(body: dict[str, Any] = body, path: str = path) -> Any:
            known = await trial.rig.api.get(CRD, None, body["metadata"]["name"])
            body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
            return await send(trial.rig.api, "PUT", CRD, path, body)

        await retried(put)
        trial.struck += 1
        await trial.a_little()


async def delete_namespace(trial: Trial) -> None:
    """With everything in it."""
    await trial.instant()
    trial.struck += 1
    await trial.delete_namespace()


# Data: the project's own trainer is at work


async def command(*words: str) -> None:
    """Runs a program, which has to succeed."""
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0, words


@asynccontextmanager
async def mounted(trial: Trial, *options: str, source: str = "tmpfs") -> Any:
    """The claim's folder as a file system of its own."""
    folder = trial.rig.volume(trial.namespace)
    folder.mkdir(parents=True, exist_ok=True)
    await command("mount", *options, source, str(folder))
    try:
        yield folder
    finally:
        await command("umount", "--lazy", str(folder))


async def base_is_made(trial: Trial) -> Path:
    """The folder of the first job's model, once it is there."""

    async def look() -> Any:
        status = (await trial.rig.api.get(FINE_TUNE_JOB, trial.namespace, "base")).get("status") or {}
        return status.get("model")

    return trial.path((await until(look, "the first model", limit_s=trial.limit_s))["uri"])


async def failed_truly(trial: Trial, *reasons: str) -> None:
    """The job fails for one of these reasons."""
    status = await trial.phase("Failed")
    (failed,) = [one for one in status["conditions"] if one["type"] == "Failed"]
    assert failed["reason"] in reasons, failed


async def apply_again(trial: Trial) -> None:
    """What was in the way is gone: the user deletes the failed job, and applies it again."""
    kind, name, spec = trial.workload.resources[-1]
    trial.remade |= set(trial.record.made)
    await trial.delete(kind, await trial.rig.api.get(kind, trial.namespace, name))
    await trial.played.apply_kind(kind, name, spec)
    await trial.phase("Succeeded")


async def spoil_model(trial: Trial, spoil: Callable[[bytes], bytes]) -> None:
    """The second job finds the model that it begins with otherwise than it was made."""
    weights = await base_is_made(trial) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(spoil(whole))
    trial.struck += 1
    await failed_truly(trial, "ModelInvalid", "DigestMismatch")
    weights.write_bytes(whole)
    await apply_again(trial)


async def truncate_model(trial: Trial) -> None:
    """Anywhere."""
    await spoil_model(trial, lambda whole: whole[: trial.chance.randrange(len(whole))])


async def flip_model(trial: Trial) -> None:
    """One byte."""

    def flipped(whole: bytes) -> bytes:
        place = trial.chance.randrange(len(whole))
        return whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]

    await spoil_model(trial, flipped)


async def spoil_checkpoint(trial: Trial) -> None:
    """The newest one, while nobody trains: cut short, or written over in the middle."""

    def newest() -> Path | None:
        found = sorted(trial.rig.volume(trial.namespace).glob("finetunejobs/run-*/checkpoints/step-*"))
        return found[-1] if found else None

    async def look() -> bool:
        return newest() is not None

    await until(look, "a checkpoint", limit_s=trial.limit_s)
    for pid in trial.rig.pods("alidade_trainer"):
        trial.rig.kill_pod(pid)
    folder = newest()
    assert folder is not None
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size > 100)
    file = trial.chance.choice(files)
    whole = file.read_bytes()
    place = trial.chance.randrange(len(whole) - 8)
    file.write_bytes(whole[:place] if trial.chance.random() < 0.5 else whole[:place] + b"\0" * 8 + whole[place + 8 :])
    trial.struck += 1


async def fill_disk(trial: Trial) -> None:
    """The second job runs out of room; there is more of it afterwards."""
    folder = (await base_is_made(trial)).parents[2]
    await asyncio.sleep(trial.chance.uniform(0, 3))
    filler = folder / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, free - trial.chance.randrange(20_000)))
    trial.struck += 1
    await failed_truly(trial, "DiskFull")
    filler.unlink()
    await apply_again(trial)


async def make_read_only(trial: Trial) -> None:
    """The volume is remounted read-only; it can be written to again afterwards."""
    folder = (await base_is_made(trial)).parents[2]
    await asyncio.sleep(trial.chance.uniform(0, 3))
    await command("mount", "-o", "remount,ro", str(folder))
    trial.struck += 1
    try:
        await failed_truly(trial, "VolumeReadOnly")
    finally:
        await command("mount", "-o", "remount,rw", str(folder))
    await apply_again(trial)


def refusing(code: int, reason: str) -> Callable[[random.Random], Disturbance]:
    """Calls are answered with an error."""
    return lambda chance: Refusing(chance, code, reason)


ONES = [
    Fault("operator-killed", "SIGKILL three times", kill_operator),
    Fault("api-server-killed", "SIGKILL", kill_api_server),
    Fault("kubelet-killed", "SIGKILL, and its controllers with it", kill_kubelet, restarts=True),
    Fault("node-lost", "SIGKILL to the kubelet and all pods", lose_node, restarts=True),
    Fault("worker-killed", "SIGKILL to rank 1", killing("alidade-trainer", times=2, RANK="1"), restarts=True),
    Fault("rank-0-killed", "SIGKILL to rank 0", killing("alidade-trainer", times=2, RANK="0"), restarts=True),
    Fault("quantizer-killed", "SIGKILL", killing("alidade-trainer quantize"), restarts=True),
    Fault("evaluator-killed", "SIGKILL", killing("alidade-eval"), restarts=True),
    Fault("server-killed", "SIGKILL before and after it has answered", kill_server, restarts=True),
    Fault("clock-jumped", "the operator's, by up to two hours, twice", jump_clock),
    Fault("answers-409", "a fifth of all writes", calls=refusing(409, "Conflict")),
    Fault("answers-410", "events in watches, a fifth of all", calls=Expired),
    Fault("watches-refused", "twice, with 410 or an event of 500", calls=Refused, ends_operator=True),
    Fault("answers-429", "a fifth of all calls", calls=refusing(429, "TooManyRequests")),
    Fault("answers-500", "a fifth of all calls, before or after they are done", calls=refusing(500, "InternalError")),
    Fault("answers-never", "two calls, before or after they are done", calls=Silent),
    Fault("connections-reset", "of calls and watches", calls=Cutting),
    Fault("watches-slow", "up to 2 s an event", calls=Slow),
    Fault("events-repeated", "half of them, also much later", calls=Repeating),
    Fault("events-reordered", "within a third of a second", calls=Shuffling),
    Fault("listings-stale", "seven of ten are as the first was", calls=Stale),
    Fault("pod-evicted", "by the Eviction API, twice", evict_pods, restarts=True),
    Fault("config-map-deleted", "the operator's, or the user's for a while", delete_config_maps, restarts=True),
    Fault("child-deleted", "any", delete_child, restarts=True),
    Fault("child-edited", "any, in a way its API allows", edit_children, restarts=True),
    Fault("kinds-upgraded", "every CRD, with new fields and columns", upgrade_kinds),
    Fault("namespace-deleted", "with everything in it", delete_namespace, restarts=True, survives=False),
]
DATA = [
    Fault("checkpoint-corrupted", "the newest: cut, or overwritten", spoil_checkpoint, restarts=True, workload=JOBS),
    Fault("model-truncated", "that of the stage before", truncate_model, restarts=True, workload=JOBS),
    Fault("digest-wrong", "one byte of the model of the stage before", flip_model, restarts=True, workload=JOBS),
    Fault("disk-full", "of the workspace", fill_disk, restarts=True, workload=JOBS, needs_root=True),
    Fault("volume-read-only", "the workspace", make_read_only, restarts=True, workload=JOBS, needs_root=True),
]  # fmt: skip
HARMLESS = ("child-deleted", "namespace-deleted", "server-killed", "watches-refused", "clock-jumped", "answers-never")


async def several(trial: Trial) -> None:
    """Three of the others at once."""
    chosen = trial.chance.sample([one for one in ONES if one.calls is None and one.name not in HARMLESS], 2)
    await asyncio.gather(*(one.strike(trial) for one in chosen))


def several_calls(chance: random.Random) -> Disturbance:
    """Two ways at once."""
    chosen = chance.sample([one for one in ONES if one.calls is not None and one.name not in HARMLESS], 2)
    return Several(chance, [one.calls(chance) for one in chosen if one.calls is not None])


FAULTS = [*ONES, Fault("several", "two of the above, and two of calls", several, several_calls, restarts=True), *DATA]
