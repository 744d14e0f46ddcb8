"""Flags, environment and keys of a gateway."""

import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest

from alidade_gateway.settings import Settings, read_settings
from tests.gateway.running import Gateway, Upstream, ask

GUIDE = Path(__file__).resolve().parents[2] / "docs/how-to/gateway.md"
BASIC = ["--name=kbqa", "--stable=http://kbqa-stable.default.svc"]


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {
        "ALIDADE_GATEWAY_NAME": "kbqa",
        "ALIDADE_GATEWAY_STABLE": "http://kbqa-stable.default.svc/",
        "ALIDADE_GATEWAY_CANARY": "http://kbqa-canary.default.svc:8080",
        "ALIDADE_GATEWAY_CANARY_PERCENT": "20",
        "ALIDADE_GATEWAY_CHAT": "true",
        "ALIDADE_GATEWAY_HOLD_S": "5",
        "ALIDADE_GATEWAY_PORT": "9000",
    }
    settings = read_settings(["--port=9001"], environment)
    assert (settings.name, settings.port, settings.hold_s, settings.max_waiting) == ("kbqa", 9001, 5.0, 100)
    assert (settings.stable, settings.canary) == (
        "http://kbqa-stable.default.svc",
        "http://kbqa-canary.default.svc:8080",
    )
    assert (settings.canary_percent, settings.chat, settings.arena) == (20, True, False)


def test_the_flags_that_the_guide_names_are_there() -> None:
    named = set(re.findall(r"--([a-z][a-z-]+)", GUIDE.read_text()))
    assert named - {field.name.replace("_", "-") for field in fields(Settings)} == {"help"}


def test_an_empty_address_is_none() -> None:
    assert read_settings([*BASIC, "--canary="], {"ALIDADE_GATEWAY_ARENA_AGAINST": ""}).canary is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stable=http://a"], "--name is missing"),
        (["--name=kbqa"], "--stable is missing"),
        ([*BASIC, "--canary-percent=20"], "--canary does not say where the canary is"),
        ([*BASIC, "--canary=http://b", "--canary-percent=101"], "101 is not between 0 and 100"),
        ([*BASIC, "--canary=kbqa-canary"], "'kbqa-canary' is not a URL such as http://"),
        ([*BASIC, "--canary=http://u:p@b"], "is not a URL such as http://"),
        ([*BASIC, "--canary=http://b:port"], "is not a URL such as http://"),
        ([*BASIC, "--canary=http://b/v1"], "is not a URL such as http://"),
        ([*BASIC, "--chat=yes"], "'yes' is neither true nor false"),
        ([*BASIC, "--max-held-bytes=1024"], "Raise the first or lower the second."),
        ([*BASIC, "--arena=true", "--arena-against=http://b"], "--votes does not name the folder"),
        ([*BASIC, "--arena=true", "--votes=/votes"], "there is nothing to compare with"),
        ([*BASIC, "--hold-s=-1"], "-1 is not between 0 and 86400 seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(argv, {})
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_gateway_without_the_keys_it_was_promised_does_not_start(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "alidade_gateway.main", *BASIC, f"--keys-from={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr.count("holds no key")) == (1, 1)


def test_a_gateway_loads_no_library_that_models_need() -> None:
    told = "import sys, alidade_gateway.main; print({'torch', 'transformers', 'xllamacpp', 'numpy'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "set()\n"


def test_more_connections_are_served_than_a_shell_allows_files(stable: Upstream) -> None:
    """The limit is lowered to 64 for the gateway, which then serves 80 streams at once."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        gateway = Gateway(stable.url)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        with ThreadPoolExecutor(80) as crowd:
            streams = [crowd.submit(ask, gateway.url, "/stream?chunks=20&interval=0.1") for _ in range(80)]
            gateway.await_status(running=80)
            assert all(stream.result().whole for stream in streams)
    finally:
        gateway.end()


def test_without_the_key_no_request_reaches_a_replica(tmp_path: Path, stable: Upstream) -> None:
    (tmp_path / "a").write_text("right\n")
    (tmp_path / "b").write_text("other\n")
    gateway = Gateway(stable.url, keys_from=tmp_path)
    try:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}, {"Authorization": "Bearer "}):
            for path in ("/locked", "/v1/locked", "/health/../locked", "/%6Cocked"):
                reply = ask(gateway.url, path, headers=given)
                assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        for path in ("/health", "/internal/status", "/metrics"):
            assert ask(gateway.url, path, method="GET", body=None).status == 200
            for spelled in (path, path.replace("h", "%68").replace("m", "%6d")):
                assert ask(gateway.url, spelled).status in (401, 405)  # another method is nobody's
        assert not stable.seen("/locked")
        for key in ("right", "other"):
            reply = ask(gateway.url, "/echo", headers={"Authorization": f"Bearer {key}"})
            assert ["Authorization", f"Bearer {key}"] in reply.json()["headers"]  # replicas ask for it again
    finally:
        gateway.end()
