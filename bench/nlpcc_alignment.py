"""The chain of examples/kbqa on questions that people asked: NLPCC-ICCPOL 2016 KBQA, on a local cluster of its own.

    python bench/nlpcc_alignment.py --data ../shared/data/nlpcc2016_kbqa/train.txt

What is told and what is asked: examples/nlpcc/study_data.py. Writes the table to bench/results/nlpcc_alignment.json.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from bench.kbqa_alignment import RUNS, Chain, benchmark, local_cluster, report  # noqa: E402  # the path is set above
from examples.nlpcc.study_data import chosen, data_files, nlpcc  # noqa: E402

CLUSTER = "bench-nlpcc-alignment"
DATA = "configmap://kbqa-data/"
FOLDER = "nlpcc-alignment"  # on the workspace volume


def on_volume(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest of the example that reads this benchmark's files, with room for more characters."""
    text = json.dumps(document, ensure_ascii=False).replace(DATA, f"pvc://alidade-workspace/{FOLDER}/")
    moved: dict[str, Any] = json.loads(text)
    init = moved["spec"].get("model", {}).get("init")
    if init:
        init["vocabSize"] = 4096
    return moved


def main(argv: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="The chain of examples/kbqa on NLPCC-2016 KBQA.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/nlpcc2016_kbqa/train.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", default=["RAFT", "PPO"], choices=list(RUNS))
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, with its models")
    options = parser.parse_args(argv)
    if not options.data.is_file():
        print(f"{options.data} is not there; --data names the shared task's train.txt", file=sys.stderr)
        return 2
    entries = chosen(list(nlpcc.read_file(options.data)), seed=0)
    files = data_files(entries, seed=0)
    pairs = [(one["input"], one["output"]) for one in json.loads(files["questions.json"])["instances"]]
    example = Chain.of_example(options.runs)
    chain = Chain(on_volume(example.pretrain), {name: on_volume(one) for name, one in example.runs.items()})
    with local_cluster(CLUSTER, keep=options.keep) as volumes:
        folder = volumes / "alidade-workspace" / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        result = benchmark(chain, options.seeds, pairs, volumes)
    report({"triples": len(entries), **result}, "nlpcc_alignment.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
