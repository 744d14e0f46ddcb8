"""One table of everything that was measured beside a peer, made from bench/results and put into bench/README.md.

python bench/peers.py
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
BEGIN, END = "<!-- Made by bench/peers.py. -->\n", "<!-- Up to here. -->\n"


@dataclass(frozen=True)
class Row:
    """One comparison. ratio: ours to theirs, or for times theirs to ours, so that more than 1 is better."""

    what: str
    peer: str
    measure: str
    ours: float
    theirs: float
    ratio: float
    memory: tuple[float, float] | None = None
    """Peak MiB, ours and theirs."""
    quality: str = ""

    def __str__(self) -> str:
        memory = " / ".join(f"{mib:,.0f}" for mib in self.memory or ())
        ratio = f"{self.ratio:.2f} ×"
        cells = (self.what, self.peer, self.measure, _number(self.ours), _number(self.theirs), ratio, memory)
        return f"| {' | '.join(cells)} | {self.quality} |"


def main() -> int:
    """Puts the table into the document; exit code 0."""
    README.write_text(with_table(README.read_text()))
    return 0


def with_table(document: str) -> str:
    """The document with the table as the results are now. ValueError when it has no place for it."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """The table in Markdown."""
    head = "| what | beside | measure | ours | theirs | better by | memory, MiB | quality |\n"
    head += "|---|---|---|---:|---:|---:|---:|---|\n"
    rows = (row for name, rows_of in SOURCES.items() for row in rows_of(_read(name)))
    return head + "".join(f"{row}\n" for row in rows)


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"results/{name}.json").read_text())
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sft(found: dict[str, Any]) -> Iterator[Row]:
    for case, runs in found["compared"].items():
        ours = runs["alidade"]
        for key, peer in (("trl", "TRL's SFTTrainer"), ("bare", "bare PyTorch loop")):
            theirs, name = runs[key], "tokensPerProcessorSecond"
            memory, losses = (ours["peakMiB"], theirs["peakMiB"]), f"loss {ours['loss']} / {theirs['loss']}"
            ratio = runs["ratios"][f"to {key}"]
            yield Row(f"SFT, {case}", peer, "tokens per CPU-second", ours[name], theirs[name], ratio, memory, losses)


def _preferences(found: dict[str, Any]) -> Iterator[Row]:
    peers = {
        "reward": {"trl": "TRL's RewardTrainer", "bare": "bare PyTorch loop"},
        "dpo": {"trl": "TRL's DPOTrainer", "trl precomputed": "the same, reference precomputed"},
    }
    for method, what in (("reward", "reward model"), ("dpo", "DPO")):
        runs = found["compared"][method]
        ours = runs["alidade"]
        for key, peer in peers[method].items():
            theirs, name = runs[key], "pairsPerProcessorSecond"
            memory = (ours["peakMiB"], theirs["peakMiB"])
            accuracy = f"accuracy {ours['accuracy']:.3f} / {theirs['accuracy']:.3f}"
            ratio = runs["ratios"][f"to {key}"][name]
            yield Row(what, peer, "pairs per CPU-second", ours[name], theirs[name], ratio, memory, accuracy)


def _ppo(found: dict[str, Any]) -> Iterator[Row]:
    for problem in ("toy", "qa"):
        runs, name = found[problem], "samplesPerProcessorSecond"
        ours, theirs = runs["ppo"], runs["rloo"]
        yield Row(
            f"PPO, `{problem}`",
            "TRL's RLOOTrainer",
            "samples per CPU-second",
            ours[name],
            theirs[name],
            runs["ratios"][name],
            (ours["peakMiB"], theirs["peakMiB"]),
            f"reward {ours['reward']:.3f} / {theirs['reward']:.3f}",
        )


def _sampling(found: dict[str, Any]) -> Iterator[Row]:
    peers = {
        "dynamic": "`generate`",
        "static": "`generate`, static cache",
        "continuous": "`generate_batch`, continuous batching",
    }
    for load, what in (("ragged", "sampling, ragged answers"), ("full", "sampling, all at full length")):
        ours = found[load]["alidade"]
        for key, peer in peers.items():
            if key not in found[load]:
                continue  # of a run that was told to leave it out
            theirs, name = found[load][key], "tokensPerProcessorSecond"
            memory = (ours["peakMiB"], theirs["peakMiB"])
            ratio = theirs["ratioInAnswers"]
            yield Row(what, peer, "tokens per CPU-second", ours[name], theirs[name], ratio, memory)


def _serving(found: dict[str, Any]) -> Iterator[Row]:
    medians, ratios = found["medians"], found["ratios"]
    peers = {"transformers": "`transformers serve`, continuous batching", "llama.cpp": "llama.cpp's server"}
    for key, peer in peers.items():
        for streams in ("1", "8", "32"):
            ours, theirs = (medians[engine][streams]["tokens_per_second"] for engine in ("alidade", key))
            memory = (medians["alidade"]["peak_mib"], medians[key]["peak_mib"])
            what = f"serving, {streams} {'stream' if streams == '1' else 'streams'}"
            ratio = ratios[key][streams]["tokens_per_second"]
            yield Row(what, peer, "tokens per second", ours, theirs, ratio, memory)


def _harness(found: dict[str, Any]) -> Iterator[Row]:
    tasks = {
        "choice": "multiple choice",
        "choice-5-shot": "multiple choice, 5 examples",
        "letter-5-shot": "letters, 5 examples",
        "answer-stopped": "answers to a stop string",
        "answer-full": "answers of 64 tokens",
        "text": "perplexity",
    }
    for key, task in tasks.items():
        run = found[key]
        yield Row(
            f"evaluation, {task}",
            "lm-evaluation-harness",
            "seconds",
            run["seconds"],
            run["librarySeconds"],
            run["ratio"],
        )


def _operator(found: dict[str, Any]) -> Iterator[Row]:
    ours, theirs = (found["results"][name] for name in ("alidade-operator", "bare informer"))
    measures = {
        "child_ms_p50": "ms to a resource's child, median",
        "all_children_s": "s to 500 resources' children",
        "cpu_ms_per_resource": "ms of CPU per resource",
    }
    for key, measure in measures.items():
        memory = (ours["resident_mb_500"] / 1.048576, theirs["resident_mb_500"] / 1.048576)
        yield Row(
            "operator", "bare list-watch controller", measure, ours[key], theirs[key], theirs[key] / ours[key], memory
        )


def _data(found: dict[str, Any]) -> Iterator[Row]:
    ours, theirs = found["cases"]["as they are"]["records_per_second"], found["datasets.map"]["records_per_second"]
    yield Row("records to tokens", "`datasets.map`", "records per second", ours, theirs, ours / theirs)


SOURCES: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "sft": _sft,
    "preferences": _preferences,
    "ppo_rloo": _ppo,
    "sampling": _sampling,
    "serving": _serving,
    "eval_harness": _harness,
    "operator": _operator,
    "data_pipeline": _data,
}

if __name__ == "__main__":
    sys.exit(main())
