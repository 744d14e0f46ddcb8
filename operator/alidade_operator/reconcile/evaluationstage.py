"""What an AlignmentRun fills into the template of its Evaluation: its reward, its training data."""

from collections.abc import Iterator

from alidade_crds.alignmentrun import AlignmentRunSpec
from alidade_crds.blocks import Dataset
from alidade_crds.evaluation import LeakCheck, Suite, SuiteType
from alidade_crds.jobs import Method

MOST_TRAINING_DATA = 16
"""As many addresses as a leak check may have."""


def needs_reward(suite: Suite) -> bool:
    """Whether a suite is judged by a reward and names none."""
    named = (suite.reward_model, suite.function, suite.judge)
    return suite.type in (SuiteType.REWARD, SuiteType.ARENA) and all(one is None for one in named)


def leak_check_of(spec: AlignmentRunSpec) -> LeakCheck:
    """The template's leak check; where it names no training data, with the run's own."""
    assert spec.evaluation is not None, "only asked for a run that has one"
    check = spec.evaluation.template.leak_check or LeakCheck()
    if check.training_data:
        return check
    uris = [uri for dataset in _trained_on(spec) for uri in (dataset.address, *(part.address for part in dataset.mix))]
    return check.model_copy(update={"training_data": list(dict.fromkeys(uris))[:MOST_TRAINING_DATA]})


def _trained_on(spec: AlignmentRunSpec) -> Iterator[Dataset]:
    """What the run trains on; texts of a pretraining are no questions, and may be too many to look through."""
    if spec.sft.template is not None and spec.sft.template.method is not Method.PRETRAIN:
        yield spec.sft.template.dataset
    for reward in spec.reward_models:
        if reward.template is not None:
            yield reward.template.dataset
    if spec.prompts is not None:
        yield spec.prompts
    for step in spec.align:
        if step.dpo is not None:
            yield step.dpo.dataset
