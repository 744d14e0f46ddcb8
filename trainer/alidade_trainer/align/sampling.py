"""Answers of the policy, drawn by all processes together, and kept so that no draw is ever repeated."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import deepspeed
import numpy as np
from torch import nn

from alidade_engine.drawing import SamplingParams
from alidade_engine.sampling import Completion, SamplingEngine
from alidade_trainer.align.prompts import AskedPrompt
from alidade_trainer.drawn import KeptDraws
from alidade_trainer.peers import Peers
from alidade_trainer.zero import whole_parameters


class Interrupted(Exception):  # noqa: N818  # it is no error
    """Sampling was asked to stop; what was drawn so far is kept."""


@dataclass(frozen=True)
class DrawnAnswer:
    """One answer. place: of its prompt among those asked. answer_ids: with the token that ended it, if one did."""

    place: int
    answer_ids: list[int]
    text: str
    finished: bool


@contextmanager
def whole_policy(engine: deepspeed.DeepSpeedEngine) -> Iterator[nn.Module]:
    """The policy with whole weights and without the engine's hooks, as sampling wants it.

    Under ZeRO-3 the weights are gathered once for all tokens: gathered anew for each, sampling was 20 times slower
    (Llama 2, section 3.4.2). Every process has to enter.
    """
    policy: nn.Module = engine.module.policy
    offload = getattr(engine.optimizer, "parameter_offload", None)
    if offload is None:
        yield policy
        return
    with whole_parameters(list(policy.parameters())):
        for parameter in engine.module.parameters():
            parameter.ds_active_sub_modules.clear()
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        offload.forward_hooks.clear()
        offload.backward_hooks.clear()
        try:
            yield policy
        finally:
            offload._register_deepspeed_module(offload.module)


@dataclass(frozen=True)
class PolicySampler:
    """Draws for one job. folder: where finished draws of an interrupted iteration lie."""

    engine: deepspeed.DeepSpeedEngine
    sampling: SamplingEngine
    """Draws from the engine's policy."""
    peers: Peers
    folder: Path
    job_key: str
    """Fingerprint of the job; draws of another do not count."""
    max_new_tokens: int
    stop: Callable[[], bool]

    def draw(
        self,
        prompts: Sequence[AskedPrompt],
        keys: Sequence[int],
        *,
        temperature: float,
        samples: int,
        seed: int,
        name: str | None = None,
    ) -> list[DrawnAnswer]:
        """`samples` answers to each prompt, in order of place, on every process.

        keys: what each prompt's random numbers are made from, beside the seed; so the same prompt has the same answers
        on whichever process it falls. temperature 0 takes the likeliest tokens. name: under which finished answers are
        kept until `forget`; None keeps nothing. Raises Interrupted on every process when one is asked to stop.
        """
        mine = list(range(self.peers.rank, len(prompts), self.peers.count))
        kept: KeptDraws | None = None
        if name is not None:
            own = f"{self.job_key} {seed} {temperature} {[keys[place] for place in mine]}"
            kept = KeptDraws(self.folder / name / f"rank-{self.peers.rank}.json", own)
        done: dict[tuple[int, int], Completion] = kept.read() if kept else {}
        params = SamplingParams(self.max_new_tokens, temperature=temperature)
        interrupted = False

        def finished(place: int, sample: int, completion: Completion) -> None:
            done[place, sample] = completion
            if name is not None and self.stop():
                raise Interrupted

        with whole_policy(self.engine):
            try:
                self.sampling.sample(
                    [prompts[place].prompt_ids for place in mine],
                    params,
                    samples_per_prompt=samples,
                    seed=seed,
                    prompt_keys=[keys[place] for place in mine],
                    drawn=dict(done),
                    on_completion=finished,
                )
            except Interrupted:
                interrupted = True
        if kept:
            kept.write(done)
        if any(self.peers.gather(interrupted)):
            raise Interrupted
        answers = [
            DrawnAnswer(mine[place], one.token_ids, one.text, one.finish_reason == "stop")
            for (place, _), one in sorted(done.items())
        ]
        together = [answer for part in self.peers.gather(answers) for answer in part]
        return sorted(together, key=lambda answer: answer.place)

    def forget(self) -> None:
        """Deletes kept draws, once they are behind a checkpoint."""
        self.peers.wait()
        if self.peers.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.peers.wait()


def seeds(seed: int, step: int, iteration: int, purpose: int) -> int:
    """A seed of 32 bits for one purpose in one iteration of one step; neighbours share nothing."""
    return int(np.random.SeedSequence([seed, step, iteration, purpose]).generate_state(1)[0])
