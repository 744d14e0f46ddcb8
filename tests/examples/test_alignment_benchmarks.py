import json
import random
from pathlib import Path

import pytest

from bench import kbqa_alignment, nlpcc_alignment
from bench.kbqa_alignment import Measures, estimate, mean_of, perplexity, read_manifest, seeded


def test_another_seed_reaches_every_stage_and_names_do_not_collide() -> None:
    first = seeded(read_manifest("align-ppo.yaml"), 5)
    spec = first["spec"]
    assert first["metadata"]["name"] == "kbqa-ppo-5"
    blocks = (spec["training"], spec["sft"]["template"]["training"], spec["rewardModels"][0]["template"]["training"])
    assert [block["seed"] for block in blocks] == [5, 5, 5]
    assert spec["sft"]["template"]["model"]["from"] == {"kind": "FineTuneJob", "name": "kbqa-pretrain-5"}
    assert seeded(read_manifest("pretrain.yaml"), 5)["metadata"]["name"] == "kbqa-pretrain-5"


def test_estimates_are_means_over_questions_and_seeds_with_an_interval_around_them() -> None:
    one = Measures([1.0, 0.0, 0.5, 0.5], [1, 0, 0, 1], [0.0] * 4, [2.0, 2.0, 2.0, 2.0], [1, 1, 1, 1])
    other = Measures([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 1], [0.0] * 4, [0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1])
    found = estimate(mean_of("sampled"), [one, other])
    assert found["value"] == 0.75
    assert found["seeds"] == [0.5, 1.0]
    assert 0.5 <= found["interval"][0] < 0.75 < found["interval"][1] <= 1.0
    assert estimate(perplexity, [one, other])["value"] == pytest.approx(2.7183)  # e to the mean of 2 and 0 nats


def test_the_manifests_read_the_benchmark_s_files() -> None:
    moved = nlpcc_alignment.on_volume(read_manifest("pretrain.yaml"))
    assert moved["spec"]["dataset"]["uri"] == "pvc://alidade-workspace/nlpcc-alignment/corpus.json"
    assert moved["spec"]["model"]["init"]["vocabSize"] == 4096
    assert "configmap://" not in json.dumps(nlpcc_alignment.on_volume(read_manifest("align-raft.yaml")))


def test_a_missing_corpus_ends_with_the_flag_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nlpcc_alignment.main(["--data", str(tmp_path / "none.txt")]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_table_row_has_every_statistic(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    values = [rng.random() for _ in range(8)]
    rows = kbqa_alignment.table({"SFT": [Measures(values, values, values, values, [1] * 8)]})
    kbqa_alignment.print_table(rows)
    assert set(rows["SFT"]) == {"true_reward", "learned_reward", "exact_match", "perplexity"}
    assert f"{rows['SFT']['true_reward']['value']:.3f}" in capsys.readouterr().out
