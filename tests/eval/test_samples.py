"""Samples on the disk."""

from pathlib import Path

from alidade_eval.samples import SampleStore, ordered


def test_a_row_that_a_kill_cut_off_is_dropped_and_asked_again(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, 0)
    with store.appender("answers", "one") as appender:
        appender.add({"index": 0, "text": "中国"})
        appender.add({"index": 1, "text": "b"})
    (file,) = tmp_path.glob("answers/*.jsonl")
    whole = file.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole)):
        file.write_bytes(whole[:cut])
        assert set(store.rows("answers", "one")) == {0}
    with store.appender("answers", "one") as appender:
        appender.add({"index": 1, "text": "c"})
    assert [row["text"] for row in ordered(store.rows("answers", "one"))] == ["中国", "c"]


def test_a_row_is_out_of_the_process_before_the_next_one(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, 0)
    with store.appender("answers", "one") as appender:
        for index in range(3):
            appender.add({"index": index})
            assert len(store.rows("answers", "one")) == index + 1


def test_an_answer_counts_and_a_failure_before_it_does_not(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, 0)
    with store.appender("answers", "one") as appender:
        appender.add({"index": 0, "failure": "it did not answer"})
        appender.add({"index": 0, "text": "late"})
    assert store.rows("answers", "one") == {0: {"index": 0, "text": "late"}}


def test_a_process_reads_all_rows_of_a_model_and_of_no_other(tmp_path: Path) -> None:
    for shard in (0, 1):
        for model in ("one", "one-more"):
            with SampleStore(tmp_path, shard).appender("answers", model) as appender:
                appender.add({"index": shard, "text": model})
    rows = SampleStore(tmp_path, 0).rows("answers", "one")
    assert [row["text"] for row in ordered(rows)] == ["one", "one"]
