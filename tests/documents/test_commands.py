"""Every command of the documents could run, and is run, here or by another test, unless its page says what it needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.documents.conftest import Desk, condition
from tests.documents.pages import ROOT, Block, Command, all_commands, blocks, commands, named_commands, pages
from tests.documents.programs import objections

# What runs these commands, and words of it by which one can tell.
ELSEWHERE = {
    r"alidade (up|down|status)": ("tests/local/test_cluster.py", "local_cluster.up"),
    r"alidade wait (ar|ftj|eval)/": ("tests/e2e/test_alignment.py", 'alidade("wait", "ar/whole"'),
    r"alidade wait ms/": ("tests/e2e/test_asking.py", '"wait", "ms/asked"'),
    r"alidade logs (ar|ftj)/": ("tests/e2e/test_alignment.py", 'alidade("logs", "ar/whole"'),
    r"alidade logs ms/": ("tests/e2e/test_asking.py", '"logs", "ms/asked"'),
    r"alidade report (ar|ftj|rm|eval)/": ("tests/e2e/test_alignment.py", 'alidade("report", "ar/whole"'),
    r"alidade report ms/": ("tests/e2e/test_asking.py", '"report", "ms/asked"'),
    r"alidade chat (ar|ftj)/": ("tests/e2e/test_alignment.py", 'alidade("chat", "ar/whole"'),
    r"(printf .* \| )?alidade chat kbqa": ("tests/e2e/test_asking.py", '"chat", "asked"'),
    r"alidade compare ": ("tests/cli/test_compare.py", '["compare", *arguments]'),
    r"alidade data show ": ("tests/cli/test_data_command.py", '["data", "show", *words]'),
    r"alidade doctor": ("tests/cli/test_doctor.py", '["doctor", *options]'),
    r"alidade bench serve kbqa": ("tests/cli/test_bench_serve.py", "--rates"),
    r"alidade-serve ": ("tests/serving/running.py", "alidade_serving"),
    r"alidade-gateway ": ("tests/gateway/running.py", "alidade_gateway"),
    r"curl .*/generate": ("tests/serving/test_tgi_api.py", "/generate"),
    r"(sh|python) examples/clients/": ("tests/serving/test_example_clients.py", "examples/clients"),
    r"python examples/nlpcc/study_data.py": ("tests/examples/test_nlpcc_study.py", "study_data"),
    r"python examples/nlpcc/nlpcc.py": ("tests/examples/test_nlpcc.py", "nlpcc.main"),
    r"helm install ": ("tests/charts/replicas.py", 'helm("install", "--create-namespace"'),
    r"helm .*test alidade": ("tests/charts/test_local_cluster.py", '"helm", "test", "alidade"'),
    r"helm upgrade ": ("tests/charts/test_install.py", 'helm("upgrade"'),
    r"helm rollback ": ("tests/charts/test_install.py", '"helm", "rollback"'),
    r"helm uninstall ": ("tests/charts/test_install.py", '"helm", "uninstall"'),
    r"kubectl .*rollout status": ("tests/charts/replicas.py", '"rollout", "status"'),
    r"kubectl auth can-i --list": ("tests/charts/test_account.py", '"can-i", "--list"'),
    r"kubectl port-forward": ("tests/local/test_port_forward.py", '"port-forward"'),
    r"kubectl proxy": ("tests/local/apiserver/test_proxy.py", "proxy"),
}
# The shell's own, and make's targets, which take minutes: that they are there is all that is looked at.
_NOT_RUN = r"(export|eval|cp|xdg-open|make) "


def where(command: Command) -> str:
    """What is done about a command: the reader's needs, a test, `here`, or nothing."""
    if command.block.needs:
        return command.block.needs
    if re.match(_NOT_RUN, command.text):
        return "looked at"
    file = next((file for pattern, (file, _) in ELSEWHERE.items() if re.match(pattern, command.text)), "")
    return file or ("here" if re.match(r"(\w+=\S*\$\()?kubectl ", command.text) else "")


def test_every_command_could_run() -> None:
    listed = all_commands()
    syntax = subprocess.run(
        ["bash", "-n"], input="\n".join(one.text for one in listed), capture_output=True, text=True, check=False
    )
    assert not syntax.stderr
    assert [f"{command}: {objection}" for command in listed for objection in objections(command)] == []


@pytest.mark.parametrize(
    ("text", "objection"),
    [
        ("alidade chat kbqa --promt x", "No such option '--promt'"),
        ("alidade wat ftj/a", "No such command 'wat'"),
        ("kubectl gett pods", "kubectl has no gett"),
        ("kubectl -n a get pods --wach", "kubectl get has no --wach"),
        ("kubectl get x -o jsonpath='{.a}' | frobnicate", "frobnicate is a program that no check knows"),
        ("echo $(make everything)", "there is no target everything"),
        ("helm upgrade a charts/alidade --set webhok.enabled=true", "the chart has no value webhok.enabled"),
        ("helm install a charts/other", "there is no charts/other"),
        ("A=b docker buildx bake trainers", "docker-bake.hcl has no trainers"),
        ("alidade-gateway --name a --stabel http://a", "its flags are refused"),
        ("python examples/nothing.py", "there is no examples/nothing.py"),
        ("pytest -q", "no test is named"),
    ],
)
def test_what_could_not_run_is_found(text: str, objection: str) -> None:
    block = Block("page.md", 1, "console", "", "", "")
    assert objection in " ".join(objections(Command(block, text)))


def test_a_need_holds_for_a_section_or_for_the_next_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fence = "```console\n$ true\n```\n"
    section = f"## B\n\n*Needs b.*\n\n{fence}\n### C\n\n{fence}\n"
    (tmp_path / "page.md").write_text(f"# A\n\n{fence}\n{section}## D\n\nSo:\n\n*Needs d.*\n\n{fence}\n{fence}")
    monkeypatch.setattr("tests.documents.pages.ROOT", tmp_path)
    assert [block.needs for block in blocks("page.md")] == ["", "Needs b.", "Needs b.", "Needs d.", ""]


def test_commands_in_sentences_are_there() -> None:
    listed = [command for page in pages() for command in named_commands(page)]
    assert len(listed) > 50
    found = [f"{command}: {objection}" for command in listed for objection in objections(command)]
    # A sentence may name a command without all that it takes; the plugin is no verb of kubectl's own.
    assert [one for one in found if "Missing argument" not in one and "kubectl alidade:" not in one] == []


def test_every_command_is_run_or_says_what_it_needs() -> None:
    listed = all_commands()
    assert len(listed) > 150
    assert [str(command) for command in listed if not where(command)] == []
    unused = [pattern for pattern in ELSEWHERE if not any(re.match(pattern, command.text) for command in listed)]
    assert unused == []


def test_what_runs_them_is_there() -> None:
    named = sorted(set(ELSEWHERE.values()))
    assert [one for one in named if one[1] not in (ROOT / one[0]).read_text(encoding="utf-8")] == []


def shown(block: Block, command: Command) -> str:
    """The first line that a page shows below a command, if it is the API server's refusal."""
    after = block.text.partition(command.text.split("'")[0])[2].partition("\n")[2]
    first = after.partition("\n")[0]
    return first if re.match(r"Error from server|The \w+ \"", first) else ""


def complaint(desk: Desk, command: Command) -> str:
    """What is wrong with what a command does, or nothing."""
    text = command.text
    if text.startswith("kubectl wait"):
        kind, target = re.search(r"condition=(\w+)(?:=(\w+))?", text), re.search(r" ([a-z]+/[\w-]+)", text)
        assert kind is not None, text
        assert target is not None, text
        desk.set_status(target[1], {"conditions": [condition(kind[1], kind[2] or "True")]})
    if "--watch" in text:
        return desk.watch(text)
    done = desk.run(text)
    refusal = shown(command.block, command)
    if refusal:
        return "" if done.returncode and refusal in done.stderr else f"it does not say {refusal!r}: {done.stderr}"
    if done.returncode:
        return done.stderr or done.stdout
    return (
        "it prints nothing"
        if "jsonpath" in text and not text.startswith("address=") and not done.stdout.strip()
        else ""
    )


def test_commands_of_kubectl_work(desk: Desk) -> None:
    wrong, seen = [], set[str]()
    # Tutorials are followed as they are, at the end, since they delete what they have made.
    for page in sorted(pages(), key=lambda page: page.startswith("docs/tutorial")):
        desk.save(page)
        for command in (one for block in blocks(page) if block.language == "console" for one in commands(block)):
            if where(command) != "here" or (command.text in seen and not page.startswith("docs/tutorial")):
                continue
            seen.add(command.text)
            if said := complaint(desk, command):
                wrong.append(f"{command}: {said}")
    assert wrong == []
