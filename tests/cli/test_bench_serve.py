"""`alidade bench serve` against a server whose delays are known."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alidade_cli.main import alidade
from tests.cli.fake_server import Script, serving

# Between the server and the one who asks, on a busy machine with two cores, in seconds, in the mean.
SLACK_S = 0.25


def bench(url: str, *arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(alidade, ["bench", "serve", url, *map(str, arguments)], env=environment)


def numbers(url: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """The numbers of one load."""
    done = bench(url, *arguments, "-o", "json", **environment)
    assert done.exit_code in (0, 1), done.output
    (run,) = json.loads(done.stdout)["runs"]
    found: dict[str, Any] = run
    return found


@pytest.mark.parametrize("api", ["chat", "completions", "tgi"])
def test_measured_times_are_the_servers(api: str) -> None:
    script = Script(first_s=0.3, each_s=0.04)
    with serving(script) as url:
        run = numbers(url, "--api", api, "--rate", 8, "--duration", 2, "--answer-tokens", 11)
    assert run["offered"] == run["answered"] > 5
    # As the server's own clock has them, of answers of eleven tokens: a busy machine makes both longer.
    written = [times for times in script.written if len(times) == 12]
    assert run["ttftSeconds"]["mean"] == pytest.approx(fmean(at[1] - at[0] for at in written), abs=SLACK_S)
    assert run["e2eSeconds"]["mean"] == pytest.approx(fmean(at[11] - at[0] for at in written), abs=SLACK_S)
    each_s = fmean((at[11] - at[1]) / 10 for at in written)
    assert run["tpotSeconds"]["mean"] == pytest.approx(each_s, abs=0.02)
    assert run["gapSeconds"]["mean"] == pytest.approx(each_s, abs=0.02)
    # Eleven tokens an answer and prompts of 64, each as the server counts them: it has 7 tokens more than 2 a word.
    assert run["answerTokens"] == 11 * run["answered"]
    assert run["promptTokens"] == pytest.approx(64 * run["answered"], abs=run["answered"])
    assert run["gapSeconds"]["count"] == 10 * run["answered"]


@pytest.mark.parametrize("tokens", [20, 40, 300])
def test_prompts_have_the_length_in_the_mean_where_words_differ_in_tokens(tokens: int) -> None:
    with serving(Script(counts_letters=True)) as url:
        run = numbers(url, "--rate", 100, "--duration", 1, "--answer-tokens", 1, "--prompt-tokens", tokens)
    assert run["answered"] > 50
    # Whole words of 4.9 letters in the mean: what is asked for lies within half of one, and the measure adds its own.
    assert run["promptTokens"] / run["answered"] == pytest.approx(tokens, abs=max(4, 0.05 * tokens))


def test_a_stall_is_felt_by_every_request_that_arrives_meanwhile() -> None:
    """Nothing is written from 1 s to 3 s: the request that arrives at 1 + t waits 2 - t, half of all over 0.5 s.

    With one stream, the closed loop sends one request into the stall and sees one slow answer.
    """
    script = Script(first_s=0.01, stall=(1.0, 3.0))
    arguments = ("--duration", 4, "--answer-tokens", 1, "--prompt-tokens", 20)
    with serving(script) as url:
        open_loop = numbers(url, "--rate", 25, "--arrivals", "constant", *arguments)
    # The clock of the stall starts with the probes, a moment before the load.
    assert open_loop["offered"] == 100
    assert open_loop["ttftSeconds"]["max"] == pytest.approx(2, abs=0.3)
    assert open_loop["ttftSeconds"]["p50"] > 0.005
    assert open_loop["ttftSeconds"]["p90"] == pytest.approx(1.6, abs=0.35)
    with serving(Script(first_s=0.01, stall=(1.0, 3.0))) as url:
        closed = numbers(url, "--streams", 1, *arguments)
    assert closed["ttftSeconds"]["max"] == pytest.approx(2, abs=0.3)
    assert closed["ttftSeconds"]["p90"] < 0.1


def test_waiting_for_a_place_counts() -> None:
    """Two arrive at once, one is asked at a time, each takes 0.4 s: the second waits that long before it is sent."""
    arguments = ("--rate", 2, "--arrivals", "burst", "--burst-size", 2, "--duration", 2, "--max-in-flight", 1)
    with serving(Script(first_s=0.4)) as url:
        done = bench(url, *arguments, "--answer-tokens", 1)
        run = numbers(url, *arguments, "--answer-tokens", 1)
    assert run["mostInFlight"] == 1
    assert run["lateSeconds"]["max"] > 0.35
    assert run["ttftSeconds"]["max"] > 0.75
    assert "--max-in-flight was reached" in done.stdout


def test_requests_over_the_servers_limit_are_shed_and_told_from_failures() -> None:
    with serving(Script(first_s=0.5, places=3)) as url:
        run = numbers(url, "--rate", 20, "--duration", 2, "--answer-tokens", 1, "--objective", "ttft=0.8")
    assert run["shed"] > 5
    assert run["failed"] == 0
    assert run["answered"] + run["shed"] == run["offered"]
    assert run["errors"] == [{"reason": "429 Too Many Requests", "count": run["shed"], "message": "too many at once"}]
    assert run["goodput"] == pytest.approx(run["answered"] / run["offered"])


@pytest.mark.parametrize(
    ("script", "reason", "message"),
    [
        # Probes are answers of one token, before anything breaks.
        (Script(cut_after=3), "stream cut short", "the connection ended before the answer did"),
        (Script(error_after=3), "error in the stream", "it broke"),
        (Script(first_s=1), "timeout", "no whole answer 0.5 s after arrival"),
    ],
)
def test_answers_that_break_are_failures_with_a_reason(script: Script, reason: str, message: str) -> None:
    with serving(script) as url:
        done = bench(url, "--rate", 10, "--duration", 0.5, "--timeout", 0.5, "--answer-tokens", 9, "-o", "json")
    run = json.loads(done.stdout)["runs"][0]
    assert done.exit_code == 1
    assert run["failed"] == run["offered"] > 0
    assert [(error["reason"], error["message"]) for error in run["errors"]] == [(reason, message)]


def test_a_server_that_counts_no_tokens_is_asked_with_prompts_of_a_file_and_says_so(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('"one"\n"two"\n')
    with serving(Script(says_usage=False)) as url:
        refused = bench(url, "--duration", 0.2)
        done = bench(url, "--duration", 0.5, "--rate", 10, "--prompts", prompts)
    assert refused.exit_code == 1
    assert "does not say how many tokens a prompt has" in refused.output
    assert done.exit_code == 0
    assert "answers the server did not say how many tokens they have" in done.stdout


def test_a_load_is_the_same_again_for_the_same_seed() -> None:
    asked = []
    for _ in range(2):
        script = Script()
        with serving(script) as url:
            numbers(url, "--rate", 20, "--duration", 1, "--answer-tokens", "uniform:1-5", "--seed", 3)
        asked.append(Counter(json.dumps(body) for body in script.asked))
    assert asked[0] == asked[1]


def test_a_sweep_has_a_row_for_each_rate_and_asks_the_same_each_time(tmp_path: Path) -> None:
    chart, records = tmp_path / "chart.html", tmp_path / "records.jsonl"
    script = Script(first_s=0.02, each_s=0.001)
    with serving(script) as url:
        done = bench(
            url, "--rates", "5,10", "--duration", 1, "--answer-tokens", 3, "--objective", "ttft=30",
            "--chart", chart, "--records", records,
        )  # fmt: skip
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("5/s", "10/s"))]
    assert [(row[0], row[-1]) for row in rows] == [("5/s", "100.0%"), ("10/s", "100.0%")]
    assert chart.read_text().count("<svg") == 4
    kept = [json.loads(line) for line in records.read_text().splitlines()]
    assert {row["setting"] for row in kept} == {5, 10}
    # Questions that find out how long prompts are ask for one token.
    assert len(kept) == sum(body["max_tokens"] == 3 for body in script.asked)
    assert all(row["outcome"] == "answered" and row["answer_tokens"] == 3 for row in kept)
    assert "\x1b" not in done.output


def test_streams_keep_so_many_requests_going() -> None:
    script = Script(first_s=0.1)
    with serving(script) as url:
        run = numbers(url, "--streams", 3, "--duration", 1, "--answer-tokens", 1)
    assert run["mostInFlight"] == 3
    # Three streams of 0.1 s and a little each for 1 s.
    assert 15 <= run["answered"] <= 33


def test_the_key_is_sent_from_a_file_or_the_environment_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    with serving(Script(key="s3cret")) as url:
        without = bench(url, "--duration", 0.2)
        from_file = bench(url, "--duration", 0.5, "--rate", 10, "--key-file", file, "-o", "json")
        from_environment = bench(url, "--duration", 0.5, "--rate", 10, ALIDADE_ENDPOINT_KEY="s3cret")
    assert without.exit_code == 1
    assert "/v1/models answers 401: the key is wrong" in without.output
    assert (from_file.exit_code, from_environment.exit_code) == (0, 0)
    assert "s3cret" not in from_file.output + from_environment.output


def test_a_server_that_is_not_there_is_said_to_be_not_there() -> None:
    with serving(Script()) as url:
        pass
    done = bench(url, "--duration", 0.2)
    assert done.exit_code == 1
    assert "/v1/models does not answer: cannot connect to 127.0.0.1:" in done.output


def test_what_is_loaded_is_said_before_it_is() -> None:
    with serving(Script()) as url:
        done = bench(url, "--duration", 0.3, "--rate", 10)
    assert done.stderr.splitlines()[0] == (
        f"Load on {url} (chat completions of fake): 10 requests/s, Poisson arrivals, 0.3 s, seed 0"
    )


def test_ctrl_c_ends_the_load_and_prints_what_was_measured() -> None:
    script = Script()
    with serving(script) as url:
        command = [sys.executable, "-c", "from alidade_cli.main import main; main()"]
        command += ["bench", "serve", url, "--rate", "50", "--duration", "600"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            until = time.monotonic() + 30
            while len(script.asked) < 20:
                assert time.monotonic() < until
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "answered" in text
    assert "stopped after" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate", "2", "--streams", "3"), "--rate and --streams are two kinds of load"),
        (("--rate", "0"), "write numbers above 0"),
        (("--streams", "1.5"), "write numbers above 0"),
        (("--rate", "5000", "--duration", "3600"), "is 18000000 requests; at most 1000000"),
        (("--streams", "20", "--max-in-flight", "10"), "--streams is 20 and --max-in-flight 10"),
        (("--prompt-tokens", "long"), "write 64, uniform:32-128 or lognormal:64:0.5"),
        (("--objective", "speed=1"), "write seconds for ttft, tpot, e2e"),
    ],
)
def test_what_cannot_be_is_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = bench("http://127.0.0.1:9", *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_what_is_not_served_is_refused() -> None:
    done = bench("ftj/kbqa")
    assert done.exit_code == 1
    assert "FineTuneJob kbqa is not served; name a ModelServe" in done.output
