"""What a model's card tells a hub: base model, data of the hub, metrics that are numbers."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard

from alidade_trainer.model_card import model_card

LINEAGE: dict[str, Any] = {
    "owner": {"kind": "FineTuneJob", "namespace": "team", "name": "kbqa"},
    "model": {"parameters": 7, "trainableParameters": 7, "digest": "sha256:aa"},
    "stage": "sft",
    "base": {"uri": "hf://meta-llama/Llama-2-7b-hf@main", "digest": "sha256:bb"},
    "data": [
        {"uri": "hf://datasets/tatsu-lab/alpaca@main/train.parquet", "digest": "sha256:cc"},
        {"uri": "hf://tatsu-lab/alpaca", "digest": "sha256:dd"},
        {"uri": f"https://example.org/a.jsonl#sha256={'0' * 64}", "digest": "sha256:ee"},
    ],
    "job": {"dataset": {"uri": "hf://tatsu-lab/alpaca", "validation": {"fraction": 0.1}}, "training": {"epochs": 3}},
    "jobFingerprint": "f00d",
    "seed": 5,
    "metrics": {"eval_loss": 1.5, "perplexity": float("nan"), "tokens": 3.0},
    "versions": {"torch": "2"},
}
REPORT: dict[str, Any] = {"train": {"samples": 1, "tokens": 2, "answer_tokens": 1}, "warnings": []}


def test_a_card_names_what_hubs_link_and_show() -> None:
    card = ModelCard(model_card(LINEAGE, REPORT))
    assert (card.data.base_model, card.data.datasets) == ("meta-llama/Llama-2-7b-hf", ["tatsu-lab/alpaca"])
    assert (card.data.pipeline_tag, card.data.tags) == ("text-generation", ["alidade", "sft"])
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [("loss", 1.5)]
    assert card.data.eval_results[0].dataset_name == "a held-out share of hf://tatsu-lab/alpaca"
    for told in ("`f00d`, seed 5", "| hf://tatsu-lab/alpaca | `sha256:dd` |", "| epochs | 3 |"):
        assert told in card.text


def test_a_card_of_a_model_from_nothing_links_nothing() -> None:
    lineage = LINEAGE | {"base": {"uri": None, "digest": None}, "data": LINEAGE["data"][2:], "metrics": {}}
    card = ModelCard(model_card(lineage, REPORT))
    assert (card.data.base_model, card.data.datasets, card.data.eval_results) == (None, None, None)
    assert "from random weights." in card.text
