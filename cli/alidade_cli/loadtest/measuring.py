"""From a plan to results: finds the model, measures how long prompts are, runs each load in turn."""

import asyncio
import json
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from alidade_cli.doors import Door
from alidade_cli.errors import CommandFailed
from alidade_cli.loadtest.apis import Api, ApiName, error_text
from alidade_cli.loadtest.arrivals import Arrivals, arrival_times
from alidade_cli.loadtest.lengths import Lengths
from alidade_cli.loadtest.load import Bounds, Load, Outcome, Tick, session_for
from alidade_cli.loadtest.prompts import Message, Question, Scale, questions_of, random_questions, random_text
from alidade_cli.loadtest.records import Record
from alidade_cli.loadtest.sending import ask, why_not_connected
from alidade_cli.loadtest.summary import Summary, summarize

if TYPE_CHECKING:
    import aiohttp

_PROBE_WORDS = 4
# In a vocabulary of little more than letters. First prompts that are longer than what is measured may be refused.
_TOKENS_OF_LONG_WORDS = 10
_PROBES, _ROUNDS = 4, 4
_CLOSE = 0.03
_PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Plan:
    """What is measured. Exactly one of rates (requests per second) and streams has entries, a load for each."""

    rates: tuple[float, ...]
    streams: tuple[int, ...]
    arrivals: Arrivals
    burst_size: int
    bounds: Bounds
    api: ApiName
    prompt_lengths: Lengths
    answer_lengths: Lengths
    prompts: tuple[tuple[Message, ...], ...]
    objectives: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class Result:
    """One load. setting: its rate or its number of streams."""

    setting: float
    outcome: Outcome
    summary: Summary


Watch = Callable[[str], None]
"""Is told, in words, how a load goes; the empty text ends it."""


async def measure(door: Door, plan: Plan, told: Callable[[Api], None], watch: Watch) -> list[Result]:
    """Runs the loads one after the other. SIGINT ends the present one, and no further one begins.

    told: is called with the API and model once they are known. CommandFailed when the server cannot be asked at all.
    """
    async with session_for(door) as session:
        api = Api(plan.api, door.model or await _model(session, door, plan.api))
        told(api)
        make_questions = await _questions(session, door, api, plan)
        results: list[Result] = []
        for setting in plan.rates or plan.streams:
            outcome = await _one_load(
                Load(session, door, api, plan.bounds, _ticker(watch)), setting, plan, make_questions()
            )
            watch("")
            results.append(Result(setting, outcome, summarize(outcome, plan.bounds.duration_s, plan.objectives)))
            if outcome.stopped:
                break
        return results


async def _one_load(load: Load, setting: float, plan: Plan, questions: Iterator[Question]) -> Outcome:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, load.stop)
    try:
        if plan.streams:
            return await load.run_closed(int(setting), questions)
        times = arrival_times(
            plan.arrivals, setting, plan.bounds.duration_s, seed=plan.seed, burst_size=plan.burst_size
        )
        return await load.run_open(times, questions)
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _model(session: "aiohttp.ClientSession", door: Door, api: ApiName) -> str:
    """The first model that the server names; text-generation-inference's API has no need of a name."""
    if api == "tgi":
        return ""
    status, body = await _get(session, f"{door.url}/v1/models")
    rows = body.get("data") if status == 200 and isinstance(body, dict) else None
    if not rows:
        said = error_text(body)
        raise CommandFailed(
            f"{door.url}/v1/models answers {status}{': ' + said if said else ''}; name the model with --model, or take "
            "--api tgi for a server without OpenAI's API"
        )
    return str(rows[0]["id"])


async def _get(session: "aiohttp.ClientSession", url: str) -> tuple[int, Any]:
    import aiohttp

    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S), session.get(url) as answer:
            text = await answer.text(errors="replace")
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, None
    except aiohttp.ClientConnectorError as error:
        raise CommandFailed(f"{url} does not answer: {why_not_connected(error)}") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise CommandFailed(f"{url} does not answer: {error or 'timeout'}") from error


async def _questions(
    session: "aiohttp.ClientSession", door: Door, api: Api, plan: Plan
) -> Callable[[], Iterator[Question]]:
    """Makes the questions anew for each load, so that all loads ask the same."""
    if plan.prompts:
        await _probe(session, door, api, Question(plan.prompts[0], 1, plan.seed))
        return lambda: questions_of(plan.prompts, plan.answer_lengths, seed=plan.seed)
    scale = await _scale(session, door, api, plan)
    return lambda: random_questions(scale, plan.prompt_lengths, plan.answer_lengths, seed=plan.seed)


async def _scale(session: "aiohttp.ClientSession", door: Door, api: Api, plan: Plan) -> Scale:
    """How many tokens words are here: prompts that the server counts, from short ones towards the usual length.

    Words differ in their tokens; the rounds end when prompts are as long as they should be, in the mean.
    """
    generator = random.Random(f"probes {plan.seed}")
    target = plan.prompt_lengths.median
    fewest = words = max(1, min(_PROBE_WORDS, round(target / _TOKENS_OF_LONG_WORDS)))
    points, scale = list[tuple[int, int]](), Scale(0.0, 1.0)
    for _ in range(_ROUNDS):
        counts = [await _probe(session, door, api, _random_question(generator, words)) for _ in range(_PROBES)]
        known = [count for count in counts if count is not None]
        if not known:
            raise CommandFailed(
                f"{door.url} does not say how many tokens a prompt has, so prompts of a given length cannot be made; "
                "give prompts with --prompts FILE"
            )
        points += [(words, count) for count in known]
        scale = Scale.fitted(points)
        is_close = abs(sum(known) / len(known) - target) <= _CLOSE * target
        words = scale.words(round(target))
        if is_close or words <= fewest:
            break
    return scale


def _random_question(generator: random.Random, words: int) -> Question:
    return Question(({"role": "user", "content": random_text(generator, words)},), 1, 0)


async def _probe(session: "aiohttp.ClientSession", door: Door, api: Api, question: Question) -> int | None:
    """Tokens of a prompt, as the server counts them. CommandFailed when it gives no answer."""
    record, began = Record(0, 0.0), monotonic()
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            await ask(session, door.url, api, question, record, lambda: monotonic() - began)
    except TimeoutError:
        record.end("failed", _PROBE_TIMEOUT_S, "timeout", f"no whole answer within {_PROBE_TIMEOUT_S:g} s")
    if record.outcome != "answered":
        raise CommandFailed(f"{door.url}{api.path} gives no answer: {record.reason}: {record.message}")
    return record.prompt_tokens


def _ticker(watch: Watch) -> Tick:
    def tick(now_s: float, counts: Mapping[str, int]) -> None:
        watch(f"{now_s:.0f} s: {counts['answered']} answered, {counts['shed']} shed, {counts['failed']} failed")

    return tick
