"""What one alignment step works with: engine, reference, sampler, evaluator and algorithm."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import deepspeed
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from alidade_crds.alignmentrun import AlignStep, PpoStep, RaftStep
from alidade_crds.blocks import AdapterType, RewardFunction
from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.models import load_config, load_model, load_tokenizer
from alidade_engine.reward.network import HEAD, load_classifier
from alidade_engine.sampling import Sampler, SamplingEngine
from alidade_engine.vllm_sampling import VllmSampler, choose_engine, refuse_missing
from alidade_trainer.align.divergence import KlCoefficient
from alidade_trainer.align.dpo import Dpo, pairs_of
from alidade_trainer.align.evaluation import MOST_PROMPTS, Evaluator
from alidade_trainer.align.iterations import Iteration, IterationResult
from alidade_trainer.align.judging import Judge
from alidade_trainer.align.network import FrozenReference, PolicyNetwork, without_dropout
from alidade_trainer.align.policy import Policy
from alidade_trainer.align.ppo import Ppo
from alidade_trainer.align.prompts import PromptData
from alidade_trainer.align.raft import Raft, most_accepted
from alidade_trainer.align.sampling import PolicySampler, seeds
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import fingerprint
from alidade_trainer.kernels import keep_few_activations
from alidade_trainer.microbatch import fitting_micro_batch
from alidade_trainer.peers import Peers
from alidade_trainer.plan import TrainingPlan, share_of_process
from alidade_trainer.precision import training_format
from alidade_trainer.reward.comparisons import prepare_comparisons
from alidade_trainer.reward.heads import init_head, zero_head
from alidade_trainer.starting import StartingPoint, build_model
from alidade_trainer.surroundings import Surroundings
from alidade_trainer.training import digest_of_data
from alidade_trainer.zero import ADAM_EPSILON, base_config, build_engine, deepspeed_config

SLOTS = 64
"""Rows that decode at once: on a CPU more are no faster (measured), on a GPU memory is the limit."""
PPO_EPSILON = 1e-5
"""Of Adam under PPO (Huang et al. 2024, detail 13): gradients there are small, and 1e-8 lets noise take whole steps."""


class Algorithm(Protocol):
    """One way of aligning."""

    @property
    def iterations(self) -> int:
        """In all."""
        ...

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps of an iteration, as planned."""
        ...

    def state(self) -> dict[str, Any]:
        """For a checkpoint, beside the engine's weights."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        ...

    def run(self, iteration: Iteration) -> IterationResult:
        """One iteration."""
        ...


@dataclass
class StepParts:
    """Everything of one step."""

    policy: Policy
    algorithm: Algorithm
    evaluator: Evaluator

    def close(self) -> None:
        """Frees what the engine holds, before the next step builds another."""
        self.policy.engine.destroy()


def step_name(index: int, step: AlignStep) -> str:
    """`1-raft`: place, from 1, and kind."""
    kind = "raft" if step.raft else "ppo" if step.ppo else "dpo"
    return f"{index + 1}-{kind}"


def check_steps(job: JobDocument, processes: int) -> None:
    """Raises JobFailure (ConfigInvalid) for what an alignment asks that so many training processes cannot do."""
    alignment = job.alignment
    if alignment is None or not alignment.steps:
        raise JobFailure(FailureReason.CONFIG_INVALID, "stage is align, but alignment has no steps; set align.")
    rails = alignment.guardrails.over_optimization
    refusals = [
        (
            job.model.init is not None,
            "model.init is set; an alignment starts from a model that answers: name it in uri",
        ),
        (
            job.training.early_stopping is not None,
            "training.earlyStopping is set; guardrails stop an alignment: remove it",
        ),
        (
            rails is not None and job.dataset.validation is None,
            "guardrails.overOptimization is set; it needs held-out prompts: set prompts.validation",
        ),
        (
            alignment.combine == "gated" and len(alignment.rewards) != 2,
            f"combine is gated with {len(alignment.rewards)} rewardModels; it takes safety, then helpfulness",
        ),
    ]
    for number, step in enumerate(alignment.steps):
        needs_rewards = step.dpo is None and not alignment.rewards
        refusals.append((needs_rewards, f"align[{number}] needs rewardModels; there are none"))
        if step.raft is not None:
            refusals += _raft_refusals(step.raft, f"align[{number}].raft", processes)
        if step.ppo is not None:
            refusals += _ppo_refusals(step.ppo, f"align[{number}].ppo", processes)
    for refused, sentence in refusals:
        if refused:
            raise JobFailure(FailureReason.CONFIG_INVALID, f"{sentence}.")
    refuse_missing(alignment.generation.engine)


def _raft_refusals(raft: RaftStep, field: str, processes: int) -> list[tuple[bool, str]]:
    is_best_of_k = raft.acceptance == "bestOfK"
    kept = most_accepted(raft)
    if is_best_of_k:
        found = f"{field}.promptsPerIteration is {raft.prompts_per_iteration}"
        advice = "raise promptsPerIteration"
    else:
        found = (
            f"{field} keeps {kept} of {raft.prompts_per_iteration * raft.samples_per_prompt} samples "
            f"(acceptanceRatio {raft.acceptance_ratio:g} x promptsPerIteration x samplesPerPrompt)"
        )
        advice = "raise one of the three"
    return [
        (
            is_best_of_k and raft.samples_per_prompt < 2,
            f"{field}.samplesPerPrompt is {raft.samples_per_prompt}; acceptance bestOfK needs at least 2",
        ),
        (
            kept < processes,
            f"{found}; each of the {processes} training processes needs an accepted sample: {advice}, or use fewer "
            "workers",
        ),
    ]


def _ppo_refusals(ppo: PpoStep, field: str, processes: int) -> list[tuple[bool, str]]:
    return [
        (
            ppo.rollout_batch_size % ppo.mini_batch_size != 0,
            f"{field}.rolloutBatchSize is {ppo.rollout_batch_size}; it must be a multiple of miniBatchSize "
            f"{ppo.mini_batch_size}",
        ),
        (
            ppo.mini_batch_size % processes != 0,
            f"{field}.miniBatchSize is {ppo.mini_batch_size}; it must be a multiple of the {processes} training "
            f"processes, such as {max(1, round(ppo.mini_batch_size / processes)) * processes}",
        ),
    ]


def build_step(
    job: JobDocument,
    step: AlignStep,
    start: StartingPoint,
    judge: Judge,
    around: Surroundings,
    peers: Peers,
) -> StepParts:
    """Loads what a step needs. Every process calls it. Raises JobFailure."""
    assert job.alignment is not None
    assert isinstance(start.data, PromptData)
    on_gpu = peers.device.type == "cuda"
    loading = HfDeepSpeedConfig(base_config(job, on_gpu=on_gpu))  # must live while a model loads
    network = _network(job, step, start, around)
    reference = _reference(job, step, start, peers)
    del loading
    plan = _plan(job, step, start, network, peers)
    epsilon = PPO_EPSILON if step.ppo else ADAM_EPSILON
    engine = build_engine(network, job, deepspeed_config(job, plan=plan, on_gpu=on_gpu), epsilon=epsilon)
    temperature = _temperature(step)
    sampler = PolicySampler(
        engine,
        _sampling(job, network.policy, start, around, temperature=temperature, on_gpu=on_gpu),
        peers,
        around.output / "draws",
        fingerprint(job),
        job.alignment.generation.max_new_tokens,
        around.stop,
    )
    policy = Policy(
        engine,
        start.tokenizer,
        peers,
        judge,
        sampler,
        uses_adapter=network.uses_adapter,
        reference=reference,
        micro_batch_size=plan.micro_batch_size,
    )
    algorithm: Algorithm
    if step.raft is not None:
        algorithm = Raft(step.raft, policy, start.data.prompts, job.training.global_batch_size, job.training.seed, [])
    elif step.ppo is not None:
        coefficient = KlCoefficient(step.ppo.kl.coefficient, step.ppo.kl.target)
        algorithm = Ppo(step.ppo, policy, start.data.prompts, job.training.seed, coefficient)
    else:
        algorithm = _dpo(job, step, start, policy, around)
    return StepParts(policy, algorithm, _evaluator(job, policy, start.data, temperature))


def _temperature(step: AlignStep) -> float:
    """Of the answers that are sampled; a step of DPO samples for its evaluation only."""
    if step.raft is not None:
        return step.raft.temperature
    return step.ppo.temperature if step.ppo is not None else 1.0


def _sampling(
    job: JobDocument, policy: Any, start: StartingPoint, around: Surroundings, *, temperature: float, on_gpu: bool
) -> SamplingEngine:
    """What draws answers, as generation.engine says. Raises JobFailure (ConfigInvalid) when it cannot."""
    assert job.alignment is not None
    wish = job.alignment.generation
    if choose_engine(wish.engine, policy, temperature=temperature, on_gpu=on_gpu) == "native":
        return Sampler(policy, start.tokenizer, slots=SLOTS)
    around.say("Answers are sampled by vLLM.")
    return VllmSampler(policy, start.tokenizer, max_length=job.dataset.max_length + wish.max_new_tokens)


def _dpo(job: JobDocument, step: AlignStep, start: StartingPoint, policy: Policy, around: Surroundings) -> Dpo:
    assert step.dpo is not None
    wanted = job.model_copy(update={"dataset": step.dpo.dataset, "loss": None})
    data = policy.peers.agree(lambda: prepare_comparisons(wanted, start.tokenizer, around.locations))
    digest = digest_of_data(StartingPoint(start.tokenizer, data, start.model_folder))
    pairs = pairs_of(list(data.comparisons))
    around.say(f"DPO learns from {len(pairs):,} pairs of answers.")
    for source in data.sources:
        for sentence in source.sentences():
            around.say(f"Warning: DPO: {sentence}")
            start.data.report["warnings"].append(f"DPO: {sentence}")
    return Dpo(step.dpo, policy, pairs, digest, job.training.epochs, job.training.global_batch_size, job.training.seed)


def _evaluator(job: JobDocument, policy: Policy, data: PromptData, temperature: float) -> Evaluator:
    assert job.alignment is not None
    rule = job.alignment.guardrails.over_optimization
    # Without a rule of its own, held-out answers are still told by how many are those of the data, where it has any.
    usual = RewardFunction.EXACT_MATCH if any(prompt.reference for prompt in data.held_out) else None
    return Evaluator(
        policy,
        (data.held_out or data.prompts)[:MOST_PROMPTS],
        are_held_out=bool(data.held_out),
        function=rule.function if rule else usual,
        temperature=temperature,
        seed=seeds(job.training.seed, 0, 0, 2),
    )


def _network(job: JobDocument, step: AlignStep, start: StartingPoint, around: Surroundings) -> PolicyNetwork:
    """The policy; for PPO with a critic, and without dropout."""
    model = build_model(job, start)
    if step.ppo is None:
        return PolicyNetwork(model)
    if job.adapter.type != AdapterType.NONE:
        network = PolicyNetwork(model, value_head=True)
    else:
        assert start.model_folder is not None
        taught = _critic_folder(job, start, around)
        critic = load_classifier(
            taught or start.model_folder,
            dtype=training_format(job.training),
            trust_remote_code=job.model.trust_remote_code,
            new_head=init_head,
        )
        if taught is None:
            zero_head(getattr(critic, HEAD))
        critic.config.pad_token_id = start.tokenizer.pad_token_id
        keep_few_activations(critic, job.training)
        network = PolicyNetwork(model, critic=critic)
    without_dropout(network)
    return network


def _critic_folder(job: JobDocument, start: StartingPoint, around: Surroundings) -> Path | None:
    """The first reward model that reads the policy's own tokens and is built alike; None without one.

    A critic that starts from it knows from the first step on what is worth something (InstructGPT, appendix C.4).
    """
    assert job.alignment is not None
    assert start.model_folder is not None
    own = load_config(start.model_folder, trust_remote_code=job.model.trust_remote_code)
    for reward in job.alignment.rewards:
        if reward.uri is None:
            continue
        folder = around.locations.resolve_model(reward.uri, field=f"rewardModels {reward.name}")
        same_tokens = load_tokenizer(folder).get_vocab() == start.tokenizer.get_vocab()
        if same_tokens and load_config(folder).model_type == own.model_type:
            around.say(f"The critic starts from the reward model {reward.name}.")
            return folder
    around.say("The critic starts from the policy's weights: no reward model is built like it.")
    return None


def _reference(
    job: JobDocument, step: AlignStep, start: StartingPoint, peers: Peers
) -> FrozenReference | deepspeed.DeepSpeedEngine | None:
    """A frozen copy of the start model where the divergence from it is wanted and no adapter can be turned off."""
    assert job.alignment is not None
    charged = step.ppo is not None or (step.raft is not None and step.raft.kl_coefficient > 0)
    wanted = charged or job.alignment.guardrails.kl_ceiling is not None
    if job.adapter.type != AdapterType.NONE or not wanted:
        return None
    assert start.model_folder is not None
    model = load_model(
        start.model_folder, dtype=training_format(job.training), trust_remote_code=job.model.trust_remote_code
    )
    copy = FrozenReference(model)
    if job.deepspeed.zero_stage < 3:
        return copy.to(peers.device)
    config = base_config(job, on_gpu=peers.device.type == "cuda")
    engine, _, _, _ = deepspeed.initialize(model=copy, config=config)
    engine.eval()
    return engine


def _plan(job: JobDocument, step: AlignStep, start: StartingPoint, network: nn.Module, peers: Peers) -> TrainingPlan:
    """How a batch is dealt out; DeepSpeed wants to know it, though the passes of a step are counted by the step."""
    if step.ppo is not None:
        training = job.training.model_copy(update={"global_batch_size": step.ppo.mini_batch_size})
        job = job.model_copy(update={"training": training})
    share = share_of_process(job.training, peers.count)
    wish = job.training.micro_batch_size
    if wish == "auto":
        micro_batch_size = min(peers.gather(fitting_micro_batch(job, start, network, peers)))
    else:
        micro_batch_size = min(int(wish), share)
    return TrainingPlan(
        sequences=len(start.data.train),
        global_batch_size=micro_batch_size * peers.count,
        micro_batch_size=micro_batch_size,
        accumulation=1,
        total_steps=1,
        warmup_steps=0,
        evaluate_every_steps=1,
    )
