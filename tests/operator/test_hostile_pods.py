"""What a pod of a tenant's may answer and leave behind: the operator asks pods, and trusts nothing of what they say."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from random import Random

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from alidade_crds.contract import BackendCounts, GatewayBackends, GatewayDocument, ProgressDocument, ResultDocument
from alidade_crds.modelserve import CanaryAnalysis
from alidade_crds.packed import PackedResults
from alidade_operator.adapterloader import settle
from alidade_operator.podhttp import pod_session
from alidade_operator.podreader import PROGRESS, SERVING, parse_load
from alidade_operator.reconcile.canaryjudge import counted, judge
from alidade_operator.reconcile.plan import AdapterTarget, Plan, ProgressTarget
from alidade_operator.resources.observation import ReplicaLoad
from tests.crds.schemas import status_errors
from tests.fuzz.generating import Generator
from tests.operator.builders import ended_pod, evaluation, failure, job, observed, plan, pod, success, training_job
from tests.operator.test_podreader import DOCUMENT, reading, trainer

DEEP = b"[" * 200_000
SAID = st.sampled_from([1e999, float("nan"), 1e308, -1.0, 10.0**30, 3.0])


def hostile(model: type[BaseModel]) -> st.SearchStrategy[str]:
    """Documents as the contract has them, mostly with a damaged place."""
    return st.builds(_damaged, st.just(model), st.integers(0, 2), st.randoms(use_true_random=False))


def _damaged(model: type[BaseModel], times: int, random: Random) -> str:
    schema = model.model_json_schema(by_alias=True)
    generator = Generator(random, schema.get("$defs"))
    holder = {"document": generator.value(schema)}
    for _ in range(times):
        generator.damage(holder, "document", schema)
    return json.dumps(holder["document"])


def check(made: Plan, kind: str) -> None:
    """That the API server takes the status."""
    if made.status is not None:
        status = made.status.to_dict()
        json.dumps(status, allow_nan=False)
        assert status_errors(kind, status) == []


@settings(max_examples=60)
@given(hostile(ProgressDocument))
def test_whatever_a_pod_says_of_its_progress_the_status_can_be_written(text: str) -> None:
    document = PROGRESS.parse("/progress", text.encode())
    seen = observed(jobs=(training_job(),), pods=(pod(),), document_exists=True, progress=document)
    check(plan(job(), seen), "FineTuneJob")


@settings(max_examples=60)
@given(hostile(ResultDocument), st.dictionaries(st.sampled_from(["iterations", "epochs", "train_loss"]), SAID))
def test_whatever_a_pod_leaves_behind_the_status_can_be_written(text: str, metrics: dict[str, float]) -> None:
    sound = success(align_step="1-raft").model_copy(update={"metrics": metrics})
    for left in (text, sound.model_dump_json(by_alias=True)):
        seen = observed(
            jobs=(training_job(state="succeeded"),), pods=(ended_pod(message_text=left),), document_exists=True
        )
        check(plan(job(), seen), "FineTuneJob")
        check(plan(evaluation(), seen), "Evaluation")


@pytest.mark.parametrize("field", ["step", "activity", "metrics"])
def test_a_number_or_a_text_beyond_the_status_limits_is_no_progress(field: str) -> None:
    evil = {"step": 10**400, "activity": "x" * 33, "metrics": {"a": "b"}}
    assert PROGRESS.parse("", json.dumps(DOCUMENT | {field: evil[field]}).encode()) is None


def test_a_load_without_end_is_a_large_one() -> None:
    most = 2**53 - 1
    line = b"vllm:num_requests_waiting %s\nvllm:num_requests_running %s\n"
    assert parse_load(line % (b"1e999", b"-1e999")) == ReplicaLoad(most, 0)
    assert parse_load((line % (b"9e15", b"1")) * 100) == ReplicaLoad(most, 100)


def test_counts_of_a_canary_take_no_longer_the_larger_they_are() -> None:
    most, tiny = 2**53 - 1, 1e-320
    sides = [
        (BackendCounts(requests=most, errors=most // 3), BackendCounts(requests=most, errors=most // 2)),
        (BackendCounts(requests=1, errors=most), BackendCounts(requests=0, errors=most)),
        (BackendCounts(requests=most, seconds_p95=tiny), BackendCounts(requests=most, seconds_p95=1e308)),
    ]  # fmt: skip
    for stable, canary in sides:
        document = GatewayDocument(
            started_at="2026-11-26T12:00:00Z", backends=GatewayBackends(stable=stable, canary=canary)
        )
        found = counted([document, document])
        assert found is not None
        assert judge(found, CanaryAnalysis())[0] in ("worse", "open", "well")


def test_results_that_nest_without_end_are_none() -> None:
    packed = PackedResults.of([])
    nested = packed.model_copy(update={"packed": base64.b85encode(zlib.compress(DEEP)).decode()})
    with pytest.raises(ValueError, match="recursion"):
        nested.results()


async def test_answers_that_unpack_or_nest_without_end_harm_nobody() -> None:
    bodies = [gzip.compress(b" " * 200_000_000), DEEP]

    async def answer(request: web.Request) -> web.Response:
        if not bodies:
            return web.json_response(DOCUMENT)
        headers = {"Content-Encoding": "gzip"} if len(bodies) == 2 else {}
        return web.Response(body=bodies.pop(0), headers=headers)

    async with trainer("127.94.0.6", answer), reading() as (reader, reports):
        reader.watch("a", [ProgressTarget("pod", "127.94.0.6")])
        await reports.next()
        assert bodies == []


async def test_a_list_of_adapters_that_nests_without_end_is_none() -> None:
    async def models(request: web.Request) -> web.Response:
        return web.Response(body=DEEP)

    app = web.Application()
    app.add_routes([web.get("/v1/models", models)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.94.0.7", 8080).start()
    try:
        async with pod_session(at_once=1, timeout_s=10) as session:
            with pytest.raises(ValueError, match="recursion"):
                await settle(session, AdapterTarget("pod", "127.94.0.7"))
    finally:
        await runner.cleanup()


async def test_a_mistake_of_ours_about_one_pod_does_not_keep_others_from_being_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(DOCUMENT)

    tries = iter([True])

    def parse(path: str, content: bytes) -> ProgressDocument | None:
        if next(tries, False):
            raise RuntimeError("unthought of")
        return PROGRESS.parse(path, content)

    async with trainer("127.94.0.8", answer), reading() as (reader, reports):
        monkeypatch.setattr(reader, "_dialect", type(PROGRESS)(parse, PROGRESS.is_news, PROGRESS.reads))
        reader.watch("a", [ProgressTarget("pod", "127.94.0.8")])
        await reports.next()
    assert "was not understood" in caplog.text


def test_a_gateway_says_what_it_likes_and_is_read_or_not() -> None:
    for seed in range(60):
        SERVING.parse("/internal/status", _damaged(GatewayDocument, seed % 3, Random(seed)).encode())


def test_last_words_do_not_write_on_a_readers_screen() -> None:
    left = failure(message="\x1b]0;owned\x07\x1b[2J\nA line.").to_termination_message()
    seen = observed(
        jobs=(training_job(state="failed"),), pods=(ended_pod(exit_code=1, message_text=left),), document_exists=True
    )
    made = plan(job(backoffLimit=0), seen)
    assert made.status is not None
    shown = json.dumps(made.status.to_dict(), ensure_ascii=False) + str(made.notices)
    assert "A line." in shown
    assert "\x1b" not in shown
    assert "\\u001b" not in shown
