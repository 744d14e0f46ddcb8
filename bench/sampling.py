"""Tokens per second of the sampling engine against Hugging Face `generate`, for one iteration of RAFT's sampling.

    python bench/sampling.py [--prompts 64 --samples 8 --slots 64 --pairs 3]

A Llama of 10 million parameters with random weights, one thread, several samples of each prompt, prompts of 8 to 48
tokens. Answers end by chance: the vocabulary's last ids, as many as make the mean answer 40 tokens long, all count as
end tokens, so that answers are ragged (geometric, cut at 128) as a trained model's are. `generate` gets the same
prompts, settings, end tokens and batch size, its batches sorted by length, with its dynamic and its static cache. It
pads each batch to its longest answer; all are counted in tokens of answers through their end, which is what training
uses. `continuous` is transformers' own continuous batching, `generate_batch`, with as many requests at once and a cache
that holds them all. Under "full", with a quarter of the prompts or what fills a batch, no token ends an answer: all
rows run to the limit, and only the speed of a step counts.

Every round runs all four, one after the other in changing order, in processor time, so that other load on the machine
disturbs the ratio little. It is given in tokens and, since chance makes answers of different length, in answers;
medians of the rounds are printed and written to bench/results/sampling.json. Peak memory is that of a process of its
own for each engine, with interpreter, libraries and model.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.servers import processor  # noqa: E402  # the path is set above

RESULTS = ROOT / "bench/results/sampling.json"
ENGINES = ("alidade", "dynamic", "static", "continuous")
LOADS = ("ragged", "full")
VOCABULARY = 8192
LIMIT = 128
MEAN_ANSWER = 40
PAGE = 32
"""Tokens of a page of the cache of continuous batching: of its default, 256, an answer would fill less than half."""
BATCH_TOKENS = 512
"""It reads at most so many tokens in a pass."""


def main() -> int:
    """Measures, prints a table and writes it; exit code 0."""
    options = _parser().parse_args()
    if options.only:
        print(json.dumps(_measure_alone(options)))
        return 0
    results: dict[str, Any] = {
        "machine": {"processor": processor(), "threads": options.threads},
        "load": {"prompts": options.prompts, "samplesPerPrompt": options.samples, "batch": options.slots},
    }
    bench = Bench(options)
    results["load"]["parameters"] = bench.parameters
    for load in options.loads:
        results[load] = _compare(bench, load, options)
    _print(results, options.loads)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64, help="prompts (default: 64)")
    parser.add_argument("--samples", type=int, default=8, help="samples of each prompt (default: 8)")
    parser.add_argument("--slots", type=int, default=64, help="rows that run at once (default: 64)")
    parser.add_argument("--pairs", type=int, default=3, help="paired runs of which medians are taken (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: 1)")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS), help="loads (default: both)")
    parser.add_argument("--only", choices=ENGINES, help="runs one engine once and prints its numbers as JSON")
    return parser


class Bench:
    """The model and the prompts, the same in every process."""

    def __init__(self, options: argparse.Namespace, model: Any = None) -> None:
        """model: in place of the small one that is made here."""
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        import torch

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.model: Any = model or _small_model()
        self.parameters = sum(weight.numel() for weight in self.model.parameters())
        self._vocabulary = self.model.config.vocab_size
        lengths = torch.randint(8, 49, (options.prompts,)).tolist()
        self._prompts = [torch.randint(3, self._vocabulary // 2, (length,)).tolist() for length in lengths]
        self._filling = -(-options.slots // options.samples)
        self.options = options

    def prompts(self, load: str) -> list[list[int]]:
        """The load's prompts, as token ids."""
        return self._prompts if load == "ragged" else self._prompts[: max(len(self._prompts) // 4, self._filling)]

    def stops(self, load: str) -> list[int]:
        """Ids that end an answer; random weights give all ids about the same probability."""
        first = self._vocabulary - self._vocabulary // MEAN_ANSWER
        return list(range(first, self._vocabulary)) if load == "ragged" else []

    def run(self, engine: str, load: str, seed: int) -> dict[str, float]:
        """Tokens of answers, and seconds of processor time and of the clock."""
        others: dict[str, Callable[[str, str, int], int]] = {"alidade": self._alidade, "continuous": self._continuous}
        act = others.get(engine, self._generate)
        clock, processor = time.perf_counter(), time.process_time()
        tokens = act(engine, load, seed)
        processor_s, clock_s = time.process_time() - processor, time.perf_counter() - clock
        return {"tokens": tokens, "processor_s": processor_s, "clock_s": clock_s}

    def _alidade(self, _: str, load: str, seed: int) -> int:
        from alidade_engine.sampling import Sampler, SamplingParams

        params = SamplingParams(LIMIT, temperature=1.0, stop_token_ids=tuple(self.stops(load)))
        sampler = Sampler(self.model, _NoText(), slots=self.options.slots)
        answers = sampler.sample(self.prompts(load), params, samples_per_prompt=self.options.samples, seed=seed)
        return sum(len(answer.token_ids) for samples in answers for answer in samples)

    def _continuous(self, _: str, load: str, seed: int) -> int:
        from transformers import ContinuousBatchingConfig

        prompts = [prompt for prompt in self.prompts(load) for _ in range(self.options.samples)]
        pages = -(-(max(map(len, prompts)) + LIMIT) // PAGE)
        batching = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages * self.options.slots,
            max_requests_per_batch=self.options.slots,
            max_batch_tokens=BATCH_TOKENS,
            seed=seed,
        )
        # A copy, since it puts its own attention into the model that it runs.
        model = copy.deepcopy(self.model)
        found = model.generate_batch(prompts, generation_config=self._config(load), continuous_batching_config=batching)
        if len(found) < len(prompts):
            raise RuntimeError(f"{len(found)} of {len(prompts)} requests were answered")
        return sum(len(one.generated_tokens) for one in found.values())

    def _config(self, load: str, **options: Any) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=LIMIT,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            eos_token_id=self.stops(load) or None,
            pad_token_id=0,
            disable_compile=True,
            **options,
        )

    def _generate(self, engine: str, load: str, seed: int) -> int:
        import torch

        torch.manual_seed(seed)
        stops = self.stops(load)
        config = self._config(load, cache_implementation="static" if engine == "static" else None)
        rows = sorted((prompt for prompt in self.prompts(load) for _ in range(self.options.samples)), key=len)
        device = self.model.device
        ending = torch.tensor(stops, device=device)
        tokens = 0
        for start in range(0, len(rows), self.options.slots):
            batch = rows[start : start + self.options.slots]
            width = max(map(len, batch))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in batch], device=device)
            out = self.model.generate(ids, attention_mask=(ids != 0).long(), generation_config=config)[:, width:]
            ended = torch.isin(out, ending)
            tokens += int((ended.cumsum(-1) - ended.long() == 0).sum())
        return tokens


def _small_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=7,
        num_attention_heads=10,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


class _NoText:
    """A tokenizer for ids that mean nothing."""

    def decode(self, _: list[int], *, skip_special_tokens: bool) -> str:
        return "" if skip_special_tokens else "?"


def _measure_alone(options: argparse.Namespace) -> dict[str, float]:
    bench = Bench(options)
    measured = bench.run(options.only, options.loads[0], 0)
    # Not getrusage's ru_maxrss, in which a process begins with what its parent held.
    status = Path("/proc/self/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return measured | {"peak_mib": peak_kib / 1024}


def _compare(bench: Bench, load: str, options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for pair in range(options.pairs):
        for engine in ENGINES if pair % 2 == 0 else reversed(ENGINES):
            runs[engine].append(bench.run(engine, load, pair))
            print(f"{load} {engine} {runs[engine][-1]}", file=sys.stderr, flush=True)
    answers = len(bench.prompts(load)) * options.samples
    seconds = {engine: [run["processor_s"] for run in engine_runs] for engine, engine_runs in runs.items()}
    speed = {
        engine: [run["tokens"] / run["processor_s"] for run in engine_runs] for engine, engine_runs in runs.items()
    }
    return {
        engine: {
            "tokensPerProcessorSecond": round(statistics.median(speed[engine])),
            "meanAnswer": round(statistics.mean(run["tokens"] for run in runs[engine]) / answers, 1),
            "ratioOfAlidade": round(statistics.median(map(_ratio, speed["alidade"], speed[engine])), 2),
            "ratioInAnswers": round(statistics.median(map(_ratio, seconds[engine], seconds["alidade"])), 2),
            "peakMiB": round(_peak(engine, load, options)),
        }
        for engine in ENGINES
    }


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def _peak(engine: str, load: str, options: argparse.Namespace) -> float:
    """MiB that a process held at most in which the engine ran once: interpreter, libraries and model included."""
    command = [sys.executable, __file__, "--only", engine, "--loads", load]
    for name in ("prompts", "samples", "slots", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def _print(results: dict[str, Any], loads: list[str]) -> None:
    print(f"{'load':8}{'engine':10}{'tok/s':>8}{'ratio':>8}{'answers':>9}{'peak MiB':>10}{'length':>8}")
    for load in loads:
        for engine in ENGINES:
            row = results[load][engine]
            print(
                f"{load:8}{engine:10}{row['tokensPerProcessorSecond']:8}{row['ratioOfAlidade']:8.2f}"
                f"{row['ratioInAnswers']:9.2f}"
                f"{row['peakMiB']:10}{row['meanAnswer']:8}"
            )


if __name__ == "__main__":
    sys.exit(main())
