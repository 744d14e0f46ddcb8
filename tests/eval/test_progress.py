"""How far an evaluation is, in the words of the operator and of Prometheus."""

from prometheus_client import CollectorRegistry, generate_latest

from alidade_eval.progress import Progress, ProgressCollector


def test_samples_of_an_earlier_attempt_count_as_done_but_not_for_the_speed() -> None:
    progress = Progress()
    progress.begin(100, 40)
    told = progress.to_document()
    assert (told.step, told.total_steps, told.eta_s) == (40, 100, None)
    progress.count()
    told = progress.to_document()
    assert told.step == 41
    assert told.eta_s is not None


def test_what_others_have_done_never_takes_back_what_was_counted() -> None:
    progress = Progress()
    progress.begin(10, 4)
    progress.note(7)
    progress.note(5)
    assert progress.to_document().step == 7


def test_a_long_activity_is_cut() -> None:
    progress = Progress()
    progress.enter("evaluating", "generation, diversity, reward of a-model")
    told = progress.to_document()
    assert (told.state, told.activity) == ("evaluating", "generation, diversity, reward of")


def test_failures_are_counted_by_model() -> None:
    progress = Progress()
    progress.begin(4, 0)
    progress.count()
    progress.count(failure_of="one")
    progress.count(failure_of="one")
    registry = CollectorRegistry()
    registry.register(ProgressCollector(progress))
    lines = generate_latest(registry).decode().splitlines()
    assert "alidade_evaluation_samples 3.0" in lines
    assert "alidade_evaluation_total_samples 4.0" in lines
    assert 'alidade_evaluation_failures_total{model="one"} 2.0' in lines
