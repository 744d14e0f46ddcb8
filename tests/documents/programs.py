"""Whether a command could run: its program knows the verb and the flags, and the files that it names are there."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import click

from alidade_cli.main import alidade
from alidade_gateway import settings as gateway
from alidade_serving import settings as serving
from tests.documents.pages import ROOT, Command

_VALUES_SCHEMA = json.loads((ROOT / "charts/alidade/values.schema.json").read_text())
# Of other people's programs no more is known than that they are not ours.
_OTHERS = {
    ".", "az", "cosign", "cp", "curl", "docker", "eval", "export", "gcloud", "grep", "kind", "openssl", "pip", "printf",
    "python3", "xargs", "xdg-open",
}  # fmt: skip
_VERB_LENGTHS = {"auth": 2, "config": 2, "create": 2, "rollout": 2}
_SUBSTITUTION = re.compile(r"\$\(((?:'[^']*'|[^()'])*)\)")
_OURS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}


def simple_commands(text: str) -> list[list[str]]:
    """The words of each command that a line runs, those of substitutions first."""
    found = [words for inner in _SUBSTITUTION.findall(text) for words in simple_commands(inner)]
    text = _SUBSTITUTION.sub("SUBSTITUTED", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            while words and re.match(r"^\w+=", words[0]):
                words.pop(0)
            found += [words] if words else []
            words = []
        else:
            words.append(word)
    return found


def objections(command: Command) -> list[str]:
    """What is wrong with a command, whether or not it could run here."""
    return [
        objection
        for program, *arguments in simple_commands(command.text)
        for objection in _of_program(program, arguments)
    ]


def _missing_files(words: Sequence[str]) -> list[str]:
    named = [word.removeprefix("./") for word in words if "/" in word and "://" not in word]
    ours = [word for word in named if word.split("/")[0] in _OURS]
    return [f"there is no {word}" for word in ours if not (ROOT / word).exists()]


def _of_program(program: str, arguments: list[str]) -> list[str]:
    missing = [] if program == "alidade" else _missing_files([program, *arguments])
    if program in _CHECKS:
        return missing + _CHECKS[program](arguments)
    known = program in _OTHERS or (ROOT / program).exists()
    return missing if known else [*missing, f"{program} is a program that no check knows"]


def _of_alidade(arguments: list[str]) -> list[str]:
    command: click.Command = alidade
    context = click.Context(command, info_name="alidade")
    try:
        # A group by itself is what sentences speak of.
        while isinstance(command, click.Group) and arguments:
            _, found, arguments = command.resolve_command(context, arguments)
            assert found is not None
            command = found
            context = click.Context(command, parent=context)
        if not isinstance(command, click.Group):
            command.parse_args(context, arguments)
    except click.ClickException as error:
        return [error.format_message()]
    return []


def _of_settings(read: Callable[[Sequence[str], dict[str, str]], Any]) -> Callable[[list[str]], list[str]]:
    def check(arguments: list[str]) -> list[str]:
        try:
            read(arguments, {})
        except SystemExit as end:
            return [f"its flags are refused ({end.code})"]
        return []

    return check


def _of_kubectl(arguments: list[str]) -> list[str]:
    return _flags("kubectl", arguments, more=_help("kubectl", "options"))


def _of_helm(arguments: list[str]) -> list[str]:
    keys = [word.partition("=")[0] for flag, word in itertools.pairwise(arguments) if flag == "--set"]
    return [*_flags("helm", arguments), *(f"the chart has no value {key}" for key in keys if not _is_value(key))]


def _is_value(key: str) -> bool:
    schema = _VALUES_SCHEMA
    for part in key.split("."):
        if part not in schema.get("properties", {}):
            return False
        schema = schema["properties"][part]
    return True


def _flags(program: str, arguments: list[str], more: str = "") -> list[str]:
    """Objections to verb and flags, by what the program's own help says of them."""
    words = [*arguments]
    while words[0] in ("--namespace", "-n"):
        del words[:2]
    verb = words[: _VERB_LENGTHS.get(words[0], 1) if program == "kubectl" else 1]
    if verb[-1] == "secret":
        verb = words[:3]
    said = _help(program, *verb, "--help")
    if not re.search(rf"^ *{program} {' '.join(verb)}\b", said, re.MULTILINE):
        return [f"{program} has no {' '.join(verb)}"]
    known = set(re.findall(r"(?:^|[ ,])(--?[a-zA-Z][\w-]*)(?=[=, ]|$)", said + more, re.MULTILINE))
    used = [word.partition("=")[0] for word in arguments if re.match(r"^--?[a-zA-Z]", word)]
    return [f"{program} {' '.join(verb)} has no {flag}" for flag in used if flag not in known]


@functools.cache
def _help(program: str, *arguments: str) -> str:
    bundled = ROOT / ".tools" / "bin" / program
    path = str(bundled) if bundled.exists() else shutil.which(program)
    assert path is not None, f"these tests need {program}: make .tools/bin/{program}"
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False).stdout


def _of_make(arguments: list[str]) -> list[str]:
    makefile = (ROOT / "Makefile").read_text()
    known = {*re.findall(r"^([\w.-]+):", makefile, re.MULTILINE), ".venv/.ready", ".tools/.ready"}
    return [f"there is no target {target}" for target in arguments if target not in known]


def _of_docker(arguments: list[str]) -> list[str]:
    if arguments[:2] != ["buildx", "bake"]:
        return []
    known = re.findall(r'^(?:target|group) "([\w-]+)"', (ROOT / "docker-bake.hcl").read_text(), re.MULTILINE)
    return [f"docker-bake.hcl has no {target}" for target in arguments[2:] if target not in (*known, "--push")]


def _of_interpreter(arguments: list[str]) -> list[str]:
    """That the script is there is known already."""
    return [] if arguments and (ROOT / arguments[0]).is_file() else [f"{arguments[:1]} is no script of ours"]


def _of_pytest(arguments: list[str]) -> list[str]:
    return [] if any((ROOT / word).exists() for word in arguments) else ["no test is named"]


_CHECKS: dict[str, Callable[[list[str]], list[str]]] = {
    "alidade": _of_alidade,
    "alidade-serve": _of_settings(serving.read_settings),
    "alidade-gateway": _of_settings(gateway.read_settings),
    "docker": _of_docker,
    "helm": _of_helm,
    "kubectl": _of_kubectl,
    "make": _of_make,
    "pytest": _of_pytest,
    "python": _of_interpreter,
    "sh": _of_interpreter,
}
