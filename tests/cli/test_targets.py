"""What words on the command line mean."""

import pytest

from alidade_cli.errors import CommandFailed
from alidade_cli.kube import parse_target


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        ("kbqa-sft", "FineTuneJob", "kbqa-sft"),
        ("ftj/kbqa-sft", "FineTuneJob", "kbqa-sft"),
        ("FineTuneJob/kbqa-sft", "FineTuneJob", "kbqa-sft"),
        ("finetunejobs/kbqa-sft", "FineTuneJob", "kbqa-sft"),
        ("ms/chat", "ModelServe", "chat"),
    ],
)
def test_a_target_is_a_kind_and_a_name(target: str, kind: str, name: str) -> None:
    found, found_name = parse_target(target)
    assert (found.kind, found_name) == (kind, name)


def test_an_unknown_kind_is_answered_with_the_kinds_there_are() -> None:
    with pytest.raises(
        CommandFailed, match=r"'pod' is not a kind of Alidade; the kinds are FineTuneJob \(ftj\), RewardModel"
    ):
        parse_target("pod/x")


def test_a_target_without_a_name_is_answered_with_an_example() -> None:
    with pytest.raises(CommandFailed, match="write KIND/NAME, such as ftj/kbqa-sft"):
        parse_target("ftj/")


def test_a_bare_name_is_of_the_kind_that_the_command_is_for() -> None:
    found, name = parse_target("kbqa", bare="Evaluation")
    assert (found.kind, name) == ("Evaluation", "kbqa")
