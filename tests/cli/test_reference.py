"""The page of the commands says what --help says, and every command says what it is for."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from alidade_cli.main import alidade
from alidade_cli.reference import command_reference, commands

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
COMMANDS = dict(commands(alidade, ("alidade",)))
SECTIONS = {tuple(one.splitlines()[0].split()): one for one in PAGE.read_text().split("\n## ")[1:]}


def test_the_page_has_every_command_and_no_other() -> None:
    assert list(SECTIONS) == list(COMMANDS)
    assert {("alidade", "wait"), ("alidade", "bench", "serve")} <= set(SECTIONS)
    assert PAGE.read_text() == command_reference(alidade, "alidade"), "run `make generate`"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_there_and_the_page_has_all_of_it(words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(alidade, [*words[1:], "--help"], prog_name="alidade", terminal_width=10_000)
    assert said.exit_code == 0
    usage, *lines = (line.strip() for line in said.stdout.splitlines() if line.strip())
    section = SECTIONS[words]
    assert usage.removeprefix("Usage: ") in section
    plain = " ".join(section.replace("\\|", "|").split())
    for line in lines:
        # An option and its words, a command and its words.
        missing = [part.strip() for part in line.split("  ") if part.strip() not in plain]
        assert missing == [] or "--help" in line or line in ("Options:", "Commands:"), line


@pytest.mark.parametrize("words", [words for words in COMMANDS if len(words) > 1], ids=" ".join)
def test_a_command_says_in_a_line_what_it_is_for(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.short_help is not None
    assert command.short_help.endswith(".")
    assert len(command.short_help) <= 60
    unexplained = [one.name for one in command.params if isinstance(one, click.Option) and not one.help]
    assert unexplained == []
