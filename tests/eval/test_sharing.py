"""Which samples a process takes."""

import pytest

from alidade_eval.sharing import Share, wait_for


@pytest.mark.parametrize(("workers", "processes"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_every_sample_is_taken_by_one_process(workers: int, processes: int) -> None:
    shares = [
        Share.of_environment(
            workers=workers,
            processes=processes,
            environment={"JOB_COMPLETION_INDEX": str(worker), "ALIDADE_PROCESS": str(process)},
        )
        for worker in range(workers)
        for process in range(processes)
    ]
    assert sorted(place for share in shares for place in share.part(range(20))) == list(range(20))
    assert [share.is_first for share in shares].count(True) == 1


def test_a_process_of_no_job_takes_everything() -> None:
    assert Share.of_environment(workers=1, processes=1, environment={}) == Share(0, 1)


def test_waiting_ends_when_nothing_is_missing_or_someone_asks_for_it() -> None:
    counts = iter([2, 0])
    wait_for(lambda: next(counts), check=lambda: None, say=lambda _: None)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        wait_for(lambda: 1, check=stop, say=lambda _: None)
