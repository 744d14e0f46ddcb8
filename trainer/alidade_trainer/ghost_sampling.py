"""The last answers that ghost attention trains on, sampled from the start model by all processes together."""

import gc
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from alidade_crds.contract import JobDocument
from alidade_engine.disk import write_file
from alidade_engine.drawing import SamplingParams
from alidade_engine.models import ensure_pad_token, load_model, load_tokenizer
from alidade_engine.sampling import Completion, Sampler
from alidade_engine.templates import resolve_template
from alidade_trainer.data.ghost_attention import GhostPrompt, ghost_prompts, prompts_digest
from alidade_trainer.data.tokenising import OpenedSource, SampledAnswer
from alidade_trainer.drawn import KeptDraws
from alidade_trainer.jobs import fingerprint
from alidade_trainer.peers import Peers
from alidade_trainer.precision import asking_format
from alidade_trainer.stopping import StopRequested
from alidade_trainer.surroundings import Surroundings

ANSWERS_FILE = "ghost-attention.jsonl"
"""Beside the model: what was sampled, so that every attempt trains on the same, and people can read it."""
DRAWS_FOLDER = "draws"
"""Where finished answers of an interrupted attempt lie."""
SLOTS = 64
"""Rows that decode at once, as when a policy is sampled (alidade_trainer.align.sampling)."""

Answers = dict[int, SampledAnswer | None]
"""By number of the example; None where nothing was asked."""


class _Interrupted(Exception):  # noqa: N818  # it is no error
    """This process was asked to stop while it sampled."""


def sample_last_answers(job: JobDocument, model_folder: Path, around: Surroundings, peers: Peers) -> Answers:
    """The sampled last answer of every conversation that the instruction is laid over, the same on every process.

    An attempt that comes after one which had all of them takes those; they depend on the job, the data, the model and
    the seed, so that one which had not, samples the same. Raises JobFailure, and StopRequested when asked to stop.
    """
    prompts = peers.agree(lambda: _prompts(job, model_folder, around))
    key = hashlib.sha256(f"{fingerprint(job)} {prompts_digest(prompts)}".encode()).hexdigest()
    path = around.output / ANSWERS_FILE
    kept: Answers | None = peers.from_first(_read(path, key) if peers.is_first else None)
    if kept is not None:
        around.say(f"Ghost attention: {len(kept):,} answers of an earlier attempt are taken.")
        return kept
    around.say(f"Ghost attention: the last answers of {len(prompts):,} conversations are sampled.")
    drawn = _draw(job, prompts, model_folder, around, peers, key)
    answers = _answers(prompts, drawn)
    if peers.is_first:
        _write(path, key, prompts, answers)
        shutil.rmtree(around.output / DRAWS_FOLDER, ignore_errors=True)
    peers.wait()
    return answers


def _prompts(job: JobDocument, model_folder: Path, around: Surroundings) -> list[GhostPrompt]:
    assert job.ghost_attention is not None
    tokenizer = load_tokenizer(model_folder, trust_remote_code=job.model.trust_remote_code)
    source = OpenedSource(around.locations, job.dataset.address, job.dataset.format)
    template = resolve_template(tokenizer, job.dataset.template)
    return ghost_prompts(source, tokenizer, template, job.ghost_attention, seed=job.training.seed)


def _draw(
    job: JobDocument, prompts: Sequence[GhostPrompt], model_folder: Path, around: Surroundings, peers: Peers, key: str
) -> dict[int, Completion]:
    """Completions by place of the prompt, drawn by all processes."""
    assert job.ghost_attention is not None
    spec = job.ghost_attention
    trust = job.model.trust_remote_code
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust)
    ensure_pad_token(tokenizer)
    dtype = asking_format(job.training, peers.device)
    model = load_model(model_folder, dtype=dtype, trust_remote_code=trust).to(peers.device)
    longest = min(job.dataset.max_length, int(getattr(model.config, "max_position_embeddings", None) or 2**31))
    # What leaves no room for an answer is dropped as too long when it comes to be tokenised.
    fitting = [place for place, prompt in enumerate(prompts) if prompt.asked and len(prompt.asked) < longest]
    mine = fitting[peers.rank :: peers.count]
    keep = KeptDraws(around.output / DRAWS_FOLDER / f"rank-{peers.rank}.json", f"{key} {peers.count}")
    done = keep.read()
    interrupted = False

    def finished(place: int, sample: int, completion: Completion) -> None:
        done[place, sample] = completion
        if around.stop():
            raise _Interrupted

    try:
        if mine:
            template = resolve_template(tokenizer, job.dataset.template)
            Sampler(model, tokenizer, slots=SLOTS, template=template).sample(
                [prompts[place].asked for place in mine],
                SamplingParams(spec.max_new_tokens, temperature=spec.temperature, top_p=spec.top_p),
                seed=job.training.seed,
                prompt_keys=[prompts[place].key for place in mine],
                drawn=dict(done),
                on_completion=finished,
            )
    except _Interrupted:
        interrupted = True
        keep.write(done)
    if any(peers.gather(interrupted)):
        raise StopRequested
    del model
    gc.collect()  # before training asks how much memory is free
    own = {mine[place]: completion for (place, _), completion in done.items()}
    return {place: completion for part in peers.gather(own) for place, completion in part.items()}


def _answers(prompts: Sequence[GhostPrompt], drawn: dict[int, Completion]) -> Answers:
    answers: Answers = {}
    for place, prompt in enumerate(prompts):
        one = drawn.get(place)
        if not prompt.asked:
            answers[prompt.number] = None
        elif one is None:
            answers[prompt.number] = SampledAnswer(prompt.asked, [], "", finished=False)
        else:
            answers[prompt.number] = SampledAnswer(
                prompt.trained, one.token_ids, one.text, finished=one.finish_reason == "stop"
            )
    return answers


def _write(path: Path, key: str, prompts: Sequence[GhostPrompt], answers: Answers) -> None:
    lines = [json.dumps({"key": key})]
    for prompt in prompts:
        answer = answers[prompt.number]
        row = {"number": prompt.number, "messages": prompt.messages, "sampled": asdict(answer) if answer else None}
        lines.append(json.dumps(row, ensure_ascii=False))
    write_file(path, "\n".join(lines) + "\n")


def _read(path: Path, key: str) -> Answers | None:
    """What `_write` wrote under the same key."""
    if not path.is_file():
        return None
    first, *rows = path.read_text("utf-8").removesuffix("\n").split("\n")
    if json.loads(first)["key"] != key:
        return None
    answers: Answers = {}
    for line in rows:
        row = json.loads(line)
        answers[row["number"]] = SampledAnswer(**row["sampled"]) if row["sampled"] else None
    return answers
