"""Two tiny models, one of which has learned the answers to the questions, and evaluations of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.blocks import ModelInit
from alidade_crds.contract import EvaluationDocument

ANSWERS = ["red", "green", "Oslo", "Lima", "Bern", "tin", "gold", "fox"]
QUESTIONS = [(f"What is number {number} ?", answer) for number, answer in enumerate(ANSWERS)]
Evaluate = Callable[..., EvaluationDocument]
Run = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> Iterator[None]:
    """Matrices this small are not worth a second thread, and sums come out the same every time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """Records as JSON lines."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `taught` and `untaught`; questions.jsonl with answers, ranking.json with candidates, texts.json."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_lines(folder / "questions.jsonl", [{"input": ask, "output": answer} for ask, answer in QUESTIONS])
    ranked = [
        {"input": ask, "output": [{"score": float(one == answer), "text": one} for one in ANSWERS]}
        for ask, answer in QUESTIONS
    ]
    (folder / "ranking.json").write_text(json.dumps({"type": "text_to_scored_textlist", "instances": ranked}))
    texts = [{"text": f"{ask} {answer}. " * (1 + place % 3)} for place, (ask, answer) in enumerate(QUESTIONS)]
    (folder / "texts.json").write_text(json.dumps({"type": "text_only", "instances": texts}))
    _write_models(folder)
    return folder


def _write_models(folder: Path) -> None:
    import torch

    from alidade_engine.models import init_model, train_tokenizer

    tokenizer = train_tokenizer([f"{ask} {answer}" for ask, answer in QUESTIONS], 300, model_max_length=128)
    torch.manual_seed(7)
    init = ModelInit(hidden_size=32, layers=2, heads=2, kv_heads=1, vocab_size=300, context_length=128)
    model = init_model(init, tokenizer)
    for name, steps in (("untaught", 0), ("taught", 80)):
        _teach(model, tokenizer, steps)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _teach(model: Any, tokenizer: Any, steps: int) -> None:
    import torch

    from alidade_engine.padding import padded
    from alidade_engine.templates import render

    pairs = [[{"role": "user", "content": ask}, {"role": "assistant", "content": answer}] for ask, answer in QUESTIONS]
    rendered = [render(tokenizer, pair) for pair in pairs]
    batch = padded([one.input_ids for one in rendered], tokenizer.pad_token_id)
    answers = padded([[int(own) for own in one.answer_mask] for one in rendered], 0)["input_ids"]
    labels = batch["input_ids"].masked_fill(answers == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def evaluate(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Makes evaluation documents: suites, and whatever differs from an evaluation of both models."""
    for name in ("ALIDADE_PORT", "JOB_COMPLETION_INDEX", "ALIDADE_PROCESS", "ALIDADE_ENDPOINT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALIDADE_SCRATCH", str(tmp_path / "scratch"))

    def make(*suites: dict[str, Any], output: str = "out", **over: Any) -> EvaluationDocument:
        content = {
            "owner": {"kind": "Evaluation", "namespace": "team", "name": "tiny", "uid": "0123"},
            "models": [
                {"name": name, "model": {"uri": f"file://{workplace}/{name}"}} for name in ("untaught", "taught")
            ],
            "baseline": "untaught",
            "suites": [_with_data(suite, workplace) for suite in suites],
            "output": f"file://{tmp_path / output}",
        }
        return EvaluationDocument.model_validate(content | over)

    return make


DATA = {"ranking": "ranking.json", "perplexity": "texts.json"}


def _with_data(suite: dict[str, Any], workplace: Path) -> dict[str, Any]:
    given = {"maxNewTokens": 6} | suite
    if suite["type"] not in ("questions", "harness") and "dataset" not in suite:
        given["dataset"] = f"file://{workplace}/{DATA.get(suite['type'], 'questions.jsonl')}"
    return given


@pytest.fixture
def run_course() -> Run:
    """Runs one process's part of an evaluation in this process. Returns its Outcome, or None of other processes."""
    from alidade_engine.sources import Locations
    from alidade_eval.course import Course, Surroundings
    from alidade_eval.progress import Progress
    from alidade_eval.sharing import Share

    def run(
        document: EvaluationDocument,
        *,
        share: tuple[int, int] = (0, 1),
        stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> Any:
        locations = Locations.from_environment()
        output = locations.resolve_output(document.output)
        around = Surroundings(locations, output, Share(*share), progress or Progress(), lambda _: None, stop)
        return Course(document, around).run()

    return run
