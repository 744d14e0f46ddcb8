"""Speed of the harness suite against lm-evaluation-harness' own Hugging Face backend, on the same requests.

    python bench/eval_harness.py [--documents 200 --pairs 3 --threads 2]

A Llama of 10 million parameters with random weights, a tokenizer made for the words of the questions, and six tasks,
all made here: multiple choice with four answers of a few words, without examples, with five, and with five and one
letter for each answer; greedy answers that a stop string ends by chance, and that run to their limit of 64 tokens;
perplexity of texts two to three times as long as the context of 512 tokens. Requests are made once by the library, and
both backends answer the same ones in this process, tokenization included.

The library's backend runs once with each batch size; its best one is then paired with ours, in changing order. Ratios
are medians of the pairs, of the clock and of processor time, which other load on the machine disturbs less. Printed,
and written to bench/results/eval_harness.json. Every pair is checked: the same answers, and log-likelihoods that differ
by no more than rounding.
"""

import argparse
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results/eval_harness.json"
BATCHES = (1, 8, 16, 64)
CONTEXT = 512
SYLLABLES = [one + other for one in "bdfgklmnprstvz" for other in "aeiou"]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}
ANSWER = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{choices[0]}}",
    "metric_list": [{"metric": "exact_match"}],
}
TASKS: dict[str, dict[str, Any]] = {
    "choice": CHOICE,
    "choice-5-shot": CHOICE | {"num_fewshot": 5},
    "letter-5-shot": CHOICE | {"num_fewshot": 5, "doc_to_text": "{{lettered}}", "doc_to_choice": ["A", "B", "C", "D"]},
    "answer-stopped": ANSWER | {"generation_kwargs": {"until": ["a", "\n"], "max_gen_toks": 64, "do_sample": False}},
    "answer-full": ANSWER | {"generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 64, "do_sample": False}},
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}
SHARES = {"answer-stopped": 2, "answer-full": 4, "text": 8}
"""What part of the documents a task has whose requests take longer."""


def main() -> int:
    """Measures, prints a table and writes it; exit code 0."""
    options = _parser().parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        results: dict[str, Any] = {
            "threads": options.threads,
            "parameters": sum(weight.numel() for weight in bench.subject.model.parameters()),
        }
        for task in options.tasks:
            results[task] = bench.compare(task, options.pairs)
            _print(task, results[task])
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200, help="documents of a task (default: 200)")
    parser.add_argument("--pairs", type=int, default=3, help="paired runs of which medians are taken (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="tasks (default: all)")
    return parser


class Bench:
    """The model, the tasks and both backends."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        import torch
        import yaml

        from alidade_crds.blocks import ModelInit
        from alidade_engine.models import ensure_pad_token, init_model, train_tokenizer
        from alidade_eval.subjects import LocalModel

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self._folder = folder
        documents = [_document(random.Random(number)) for number in range(options.documents)]
        tokenizer = train_tokenizer([one["text"] for one in documents], 8192, model_max_length=CONTEXT)
        init = ModelInit(hidden_size=320, layers=7, heads=10, kv_heads=5, vocab_size=8192, context_length=CONTEXT)
        model = init_model(init, tokenizer)
        ensure_pad_token(tokenizer, model)
        self.subject = LocalModel("bench", model, tokenizer)
        (folder / "documents.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
        for name, task in TASKS.items():
            files = {"test": str(folder / "documents.jsonl")}
            common = {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": files},
                "test_split": "test",
            }
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | {"fewshot_split": "test"} | task))
        self._documents = options.documents

    def compare(self, task: str, pairs: int) -> dict[str, Any]:
        """Both backends on one task."""
        from alidade_crds.contract import JobSuite
        from alidade_engine.sources import Locations
        from alidade_eval.suites.harness import HarnessSuite, Requests

        limit = max(8, self._documents // SHARES.get(task, 1))
        spec = JobSuite.model_validate(
            {"type": "harness", "tasks": [task], "taskFolder": f"file://{self._folder}", "limit": limit}
        )
        (requests,) = HarnessSuite(spec, Locations(self._folder, self._folder), seed=0, field="").collections()
        assert isinstance(requests, Requests)
        backends = {batch: self._library(batch, requests) for batch in BATCHES}
        tried = {batch: _timed(backend)[1] for batch, backend in backends.items()}
        best = min(tried, key=lambda batch: tried[batch]["clock"])
        ours = self._ours(requests)
        _timed(ours)
        runs: list[tuple[dict[str, float], dict[str, float]]] = []
        for pair in range(pairs):
            order = (ours, backends[best]) if pair % 2 == 0 else (backends[best], ours)
            (one, one_took), (other, other_took) = (_timed(act) for act in order)
            _check_same(one, other, task)
            runs.append((one_took, other_took) if pair % 2 == 0 else (other_took, one_took))
        return {
            "requests": requests.size,
            "libraryBatch": best,
            "librarySecondsByBatch": {batch: round(took["clock"], 2) for batch, took in tried.items()},
            "seconds": round(statistics.median(own["clock"] for own, _ in runs), 2),
            "librarySeconds": round(statistics.median(theirs["clock"] for _, theirs in runs), 2),
            "ratio": round(statistics.median(theirs["clock"] / own["clock"] for own, theirs in runs), 2),
            "ratioOfProcessorTime": round(
                statistics.median(theirs["processor"] / own["processor"] for own, theirs in runs), 2
            ),
        }

    def _ours(self, requests: Any) -> Callable[[], list[Any]]:
        def act() -> list[Any]:
            rows: list[dict[str, Any]] = []
            requests.collect(self.subject, range(requests.size), rows.append)
            return [row["response"] for row in sorted(rows, key=lambda row: int(row["index"]))]

        return act

    def _library(self, batch: int, requests: Any) -> Callable[[], list[Any]]:
        from lm_eval.models.huggingface import HFLM

        backend = HFLM(pretrained=self.subject.model, tokenizer=self.subject.tokenizer, batch_size=batch, device="cpu")
        (kind,) = {instance.request_type for instance in requests.instances}

        def act() -> list[Any]:
            found: list[Any] = getattr(backend, kind)(list(requests.instances), disable_tqdm=True)
            return found

        return act


def _document(random_: random.Random) -> dict[str, Any]:
    """A question of some 20 words, four answers of two to six, and a text of some 1,200 tokens, of made-up words."""

    def words(count: int) -> str:
        return " ".join("".join(random_.choice(SYLLABLES) for _ in range(random_.randint(1, 3))) for _ in range(count))

    question = words(random_.randint(10, 30))
    choices = [words(random_.randint(2, 6)) for _ in range(4)]
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True))
    return {
        "question": question,
        "choices": choices,
        "label": random_.randrange(4),
        "lettered": f"Question: {question}{listed}\nAnswer:",
        "text": words(random_.randint(500, 700)),
    }


def _timed(act: Callable[[], list[Any]]) -> tuple[list[Any], dict[str, float]]:
    clock, processor = time.perf_counter(), time.process_time()
    found = act()
    return found, {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def _check_same(one: list[Any], other: list[Any], task: str) -> None:
    for mine, theirs in zip(one, other, strict=True):
        if isinstance(mine, str):
            same = mine == theirs
        else:
            first, second = (value[0] if isinstance(value, (tuple, list)) else value for value in (mine, theirs))
            same = abs(first - second) <= 1e-4 * max(1.0, abs(second))
        if not same:
            raise RuntimeError(f"{task}: the backends differ: {mine!r} and {theirs!r}")


def _print(task: str, found: dict[str, Any]) -> None:
    tried = ", ".join(f"{batch}: {seconds} s" for batch, seconds in found["librarySecondsByBatch"].items())
    print(
        f"{task:15} {found['requests']:5} requests  ours {found['seconds']:7.2f} s  "
        f"theirs {found['librarySeconds']:7.2f} s  "
        f"{found['ratio']:.2f} x, {found['ratioOfProcessorTime']:.2f} x processor time  (batches {tried})",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
