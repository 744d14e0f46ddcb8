"""What is done to runs. Every fault strikes at instants that the trial's seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from alidade_operator.api import (
    ALIGNMENT_RUN,
    CONFIG_MAP,
    DEPLOYMENT,
    EVALUATION,
    FINE_TUNE_JOB,
    JOB,
    MODEL_SERVE,
    PARENT_KINDS,
    POD,
    PYTORCH_JOB,
    REWARD_MODEL,
    SERVICE,
    ApiError,
    Kind,
)
from tests.chaos.localrig import LocalRig
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
from tests.chaos.rig import EVALUATOR, QUANTIZER, RANK_0, RANK_1, REAL_TRAINER, SERVER, TRAINER, Need, Part
from tests.chaos.trial import JOBS, RUN, Trial, Workload, retried, until
from tests.chaos.volume import WORKSPACE
from tests.operator.played import CRD, send


async def nothing(trial: Trial) -> None:
    """Nobody does anything."""
    del trial


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run, and what it may change.

    strike: does it, while the run goes on. calls: what goes wrong with the operator's calls meanwhile.
    restarts: whether processes of stages may begin again. survives: whether there is a run afterwards.
    ends_operator: whether the operator's process may end by it, and is started again. needs: what has to be in hand for
    it. through_api: what is done where only Kubernetes' API is, if that is something else.
    """

    name: str
    what: str
    strike: Callable[[Trial], Awaitable[None]] = nothing
    calls: Callable[[random.Random], Disturbance] | None = None
    restarts: bool = False
    survives: bool = True
    ends_operator: bool = False
    needs: Need | None = None
    through_api: str = ""
    workload: Workload = RUN


# Processes


async def kill_operator(trial: Trial) -> None:
    """Three times, at instants that are independent of each other."""
    for _ in range(3):
        await asyncio.sleep(trial.chance.uniform(0, trial.lasts_s / 2))
        await trial.rig.kill(trial.rig.operator, pause_s=trial.chance.uniform(0, 1))
        trial.struck += 1


def at_hand(trial: Trial) -> LocalRig:
    """The rig of a fault that needs more than an API."""
    assert isinstance(trial.rig, LocalRig)
    return trial.rig


async def kill_api_server(trial: Trial) -> None:
    """As a crash: what it has answered is on the disk, what it has not may be."""
    await trial.instant()
    await trial.rig.kill(at_hand(trial).api_server, pause_s=trial.chance.uniform(0, 2))
    trial.struck += 1


async def kill_kubelet(trial: Trial) -> None:
    """With the controllers, while processes of pods go on until it is back."""
    await trial.instant()
    await trial.rig.kill(at_hand(trial).control_plane, pause_s=trial.chance.uniform(0, 2))
    trial.struck += 1


async def lose_node(trial: Trial) -> None:
    """With all pods on it."""
    await trial.instant()
    await at_hand(trial).lose_node(pause_s=trial.chance.uniform(0, 2))
    trial.struck += 1


def ending(part: Part, *, times: int = 1) -> Callable[[Trial], Awaitable[None]]:
    """One of a part is ended without asking."""

    async def strike(trial: Trial) -> None:
        for _ in range(times):
            await trial.end(part)

    return strike


async def kill_server(trial: Trial) -> None:
    """Before it has answered, and once the run has ended: it is started again and answers."""
    await trial.end(SERVER)
    await trial.phase("Succeeded", "Failed")
    await trial.end(SERVER)
    await until(lambda: trial.rig.running(trial.namespace, SERVER), "the server to be back")


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
    """The user's, who makes it anew, while processes that need it are to start; or the operator's own, of jobs of which
    a process has just been ended."""
    await trial.instant()
    if trial.chance.random() < 0.5:
        body = await trial.rig.api.get(CONFIG_MAP, trial.namespace, "records")
        await trial.delete(CONFIG_MAP, body)
        await end_all(trial, TRAINER)
        await asyncio.sleep(trial.chance.uniform(0, 2))
        await trial.give_data()
        return
    for _, body in await trial.owned(CONFIG_MAP) if await trial.end(TRAINER) else []:
        await trial.delete(CONFIG_MAP, body)


async def end_all(trial: Trial, part: Part) -> None:
    """All of a part are ended without asking."""
    for one in await trial.rig.running(trial.namespace, part):
        await trial.rig.end(trial.namespace, one)


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
        await trial.end(TRAINER)  # what is told anew is read by the next attempt only


async def upgrade_kinds(trial: Trial) -> None:
    """Every definition of ours gets a column and a field that were not there, until the run has ended."""
    await trial.instant()
    before: dict[str, dict[str, Any]] = {}
    try:
        for kind in PARENT_KINDS:
            name = f"{kind.plural}.{kind.group}"
            before[name] = (await retried(lambda name=name: trial.rig.api.get(CRD, None, name)))["spec"]
            spec = copy.deepcopy(before[name])
            for version in spec["versions"]:
                column = {"name": f"Note{trial.chance.randrange(10**6)}", "type": "string", "jsonPath": ".status.phase"}
                version.setdefault("additionalPrinterColumns", []).append(column)
                version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["note"] = {"type": "string"}
            await define(trial, name, spec)
            trial.struck += 1
            await trial.a_little()
        await trial.phase("Succeeded", "Failed")
    finally:
        for name, spec in before.items():
            await define(trial, name, spec)


async def define(trial: Trial, name: str, spec: dict[str, Any]) -> None:
    """A CRD is as this spec says."""

    async def put() -> Any:
        known = await trial.rig.api.get(CRD, None, name)
        return await send(trial.rig.api, "PUT", CRD, CRD.path(None, name), known | {"spec": spec})

    await retried(put)


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
    folder = at_hand(trial).volume(trial.namespace)
    folder.mkdir(parents=True, exist_ok=True)
    await command("mount", *options, source, str(folder))
    try:
        yield folder
    finally:
        await command("umount", "--lazy", str(folder))


async def base_is_made(trial: Trial) -> str:
    """The uri of the first job's model, once it is there."""

    async def look() -> Any:
        status = (await trial.rig.api.get(FINE_TUNE_JOB, trial.namespace, "base")).get("status") or {}
        return status.get("model")

    uri: str = (await until(look, "the first model", limit_s=trial.limit_s))["uri"]
    return uri


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


def spoiling(how: str) -> Callable[[Trial], Awaitable[None]]:
    """The second job, which is held until then, finds the model that it begins with otherwise than it was made.

    how: a function of volume.py.
    """

    async def strike(trial: Trial) -> None:
        kind, name = trial.workload.target
        await trial.change(kind, name, {"spec": {"suspend": True}})
        weights = f"{(await base_is_made(trial)).removeprefix(f'pvc://{WORKSPACE}/')}/model.safetensors"
        await trial.at_volume(how, weights, trial.chance.random())
        trial.struck += 1
        await trial.change(kind, name, {"spec": {"suspend": False}})
        await failed_truly(trial, "ModelInvalid", "DigestMismatch")
        await trial.at_volume("mend", weights)
        await apply_again(trial)

    return strike


async def spoil_checkpoint(trial: Trial) -> None:
    """The newest one, while nobody trains: cut short, or written over in the middle."""
    pattern = "finetunejobs/run-*/checkpoints/step-*"
    await trial.at_volume("wait_for", pattern, trial.limit_s)
    await end_all(trial, REAL_TRAINER)
    await trial.at_volume("spoil_newest", pattern, trial.chance.randrange(2**32))
    trial.struck += 1


async def fill_disk(trial: Trial) -> None:
    """The second job runs out of room; there is more of it afterwards."""
    await base_is_made(trial)
    folder = at_hand(trial).volume(trial.namespace)
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
    await base_is_made(trial)
    folder = at_hand(trial).volume(trial.namespace)
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


def killed(name: str, what: str, strike: Callable[[Trial], Awaitable[None]], through_api: str) -> Fault:
    """Of what works in pods."""
    return Fault(name, what, strike, restarts=True, through_api=through_api)


ONES = [
    Fault("operator-killed", "SIGKILL three times", kill_operator),
    Fault("api-server-killed", "SIGKILL", kill_api_server, needs=Need.CONTROL_PLANE),
    Fault("kubelet-killed", "SIGKILL, and its controllers with it", kill_kubelet, restarts=True, needs=Need.NODE),
    Fault("node-lost", "SIGKILL to the kubelet and all pods", lose_node, restarts=True, needs=Need.NODE),
    killed("worker-killed", "SIGKILL to rank 1", ending(RANK_1, times=2), "its pod is deleted, twice"),
    killed("rank-0-killed", "SIGKILL to rank 0", ending(RANK_0, times=2), "its pod is deleted, twice"),
    killed("quantizer-killed", "SIGKILL", ending(QUANTIZER), "its pod is deleted"),
    killed("evaluator-killed", "SIGKILL", ending(EVALUATOR), "its pod is deleted"),
    killed(
        "server-killed", "SIGKILL before and after it has answered", kill_server, "its pod is deleted, before and after"
    ),
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
    Fault("model-truncated", "that of the stage before", spoiling("cut"), restarts=True, workload=JOBS),
    Fault("digest-wrong", "one byte of the model of the stage before", spoiling("flip"), restarts=True, workload=JOBS),
    Fault("disk-full", "of the workspace", fill_disk, restarts=True, workload=JOBS, needs=Need.ROOT),
    Fault("volume-read-only", "the workspace", make_read_only, restarts=True, workload=JOBS, needs=Need.ROOT),
]  # fmt: skip
HARMLESS = ("child-deleted", "namespace-deleted", "server-killed", "watches-refused", "clock-jumped", "answers-never")


async def several(trial: Trial) -> None:
    """Three of the others at once."""
    possible = [one for one in ONES if one.calls is None and one.needs in (None, *trial.rig.offers)]
    chosen = trial.chance.sample([one for one in possible if one.name not in HARMLESS], 2)
    await asyncio.gather(*(one.strike(trial) for one in chosen))


def several_calls(chance: random.Random) -> Disturbance:
    """Two ways at once."""
    chosen = chance.sample([one for one in ONES if one.calls is not None and one.name not in HARMLESS], 2)
    return Several(chance, [one.calls(chance) for one in chosen if one.calls is not None])


FAULTS = [*ONES, Fault("several", "two of the above, and two of calls", several, several_calls, restarts=True), *DATA]
