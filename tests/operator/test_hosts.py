"""Which hosts an address may point to, in whatever way it is written."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_crds.hosts import HostPolicy, entry_error, read_address
from alidade_operator.config import ConfigError, OperatorConfig, read_config
from tests.operator.builders import CONFIG, condition, evaluation, observed, plan

STRICT = HostPolicy()
OPEN = HostPolicy(allow_private=True)
NOT_PUBLIC = [ip_network(text) for text in (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8",
    "224.0.0.0/4", "168.63.129.16/32",
)]  # fmt: skip


def addresses_of(network: Any) -> st.SearchStrategy[IPv4Address]:
    low, high = int(network.network_address), int(network.broadcast_address)
    return st.integers(low, high).map(IPv4Address)


not_public = st.sampled_from(NOT_PUBLIC).flatmap(addresses_of)


@st.composite
def written(draw: st.DrawFn, address: IPv4Address) -> str:
    """An address as inet_aton(3) also reads it: fewer parts, octal, hexadecimal, leading zeros, other digits."""
    whole, count = int(address), draw(st.integers(1, 4))
    values = [whole >> (8 * (3 - place)) & 255 for place in range(count - 1)]
    values.append(whole & (256 ** (5 - count) - 1))
    forms = [draw(st.sampled_from(["{:d}", "0{:o}", "0x{:x}", "0X{:X}", "0x00{:x}", "000{:o}"])) for _ in values]
    text = ".".join(form.format(value) for form, value in zip(forms, values, strict=True))
    if draw(st.booleans()):
        text = text.translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)})
    return text.replace(".", draw(st.sampled_from([".", "。", "．"]))) + draw(st.sampled_from(["", "."]))


@given(data=st.data(), address=not_public)
def test_no_notation_of_an_address_that_is_not_public_gets_through(data: st.DataObject, address: IPv4Address) -> None:
    host = data.draw(written(address))
    port = data.draw(st.sampled_from(["", ":", ":80", ":8080"]))
    found = STRICT.objection(f"{data.draw(st.sampled_from(['http', 'https', 'HTTP']))}://{host}{port}/v1?a=b#c")
    assert found is not None, host


@given(value=st.integers(0, 2**32 - 1), data=st.data())
def test_addresses_are_read_as_the_c_library_reads_them(value: int, data: st.DataObject) -> None:
    host = data.draw(written(IPv4Address(value)))
    plain = host.translate({0xFF10 + digit: str(digit) for digit in range(10)}).replace("。", ".").replace("．", ".")
    plain = plain.rstrip(".").casefold()
    assert read_address(plain) == IPv4Address(socket.inet_aton(plain)) == IPv4Address(value)


@given(address=not_public, form=st.sampled_from(["mapped", "compatible", "nat64", "6to4"]))
def test_no_ipv6_that_leads_to_such_an_address_gets_through(address: IPv4Address, form: str) -> None:
    whole = int(address)
    value = {
        "mapped": 0xFFFF << 32 | whole,
        "compatible": whole,
        "nat64": 0x64FF9B << 96 | whole,
        "6to4": 0x2002 << 112 | whole << 80,
    }[form]
    for text in (str(IPv6Address(value)), IPv6Address(value).exploded.upper()):
        assert STRICT.objection(f"http://[{text}]:8080/") is not None


@given(st.from_regex(r"\A[a-z][a-z0-9-]{0,20}[a-z0-9](\.[a-z][a-z0-9]{0,10}){0,2}\.(com|org|example|ai|dev)\Z"))
def test_public_names_get_through(host: str) -> None:
    assert STRICT.objection(f"https://{host}/v1") is None
    assert STRICT.objection(f"https://{host.upper()}.:443") is None


@given(st.text(max_size=60))
def test_whatever_is_written_is_judged(text: str) -> None:
    for scheme in ("http", "https", "s3", "gs", "hf", "pvc"):
        STRICT.objection(f"{scheme}://{text}")
    STRICT.objection(text)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://localhost/", "points to localhost, this machine itself"),
        ("http://LocalHost.:80", "points to localhost, this machine itself"),
        ("http://loc\u00adal\u200bhost/", "points to localhost, this machine itself"),
        ("http://ⓛocalhost/", "points to localhost, this machine itself"),
        ("http://a.localhost", "points to a.localhost, this machine itself"),
        ("http://[::1]:8080/", "points to ::1, a loopback address"),
        ("http://[::]", "points to ::, a loopback address"),
        ("http://0.0.0.0", "points to 0.0.0.0, a loopback address"),
        ("http://10.1.2.3/v1", "points to 10.1.2.3, a private address"),
        ("http://[fd12::1]", "points to fd12::1, a private address"),
        ("http://[fe80::1]", "points to fe80::1, a link-local address"),
        ("http://169.254.169.254/latest/meta-data", "the metadata service of a cloud"),
        ("http://[fd00:ec2::254]/", "the metadata service of a cloud"),
        ("http://168.63.129.16", "the metadata service of a cloud"),
        ("http://metadata.google.internal", "the metadata service of a cloud"),
        ("http://metadata", "the metadata service of a cloud"),
        ("http://kubernetes", "a name of the cluster or of a private network"),
        ("https://kubernetes.default", "a name of the cluster or of a private network"),
        ("https://prometheus.monitors", "a name of the cluster or of a private network"),
        ("http://a.team.svc", "a name of the cluster or of a private network"),
        ("http://a.team.svc.cluster.local:8080", "a name of the cluster or of a private network"),
        ("http://a.team.svc.corp.example", "a name of the cluster or of a private network"),
        ("http://printer.local", "a name of the cluster or of a private network"),
        ("http://ip-10-0-0-1.ec2.internal", "a name of the cluster or of a private network"),
        ("http://0x7f.1", "writes 127.0.0.1 in a way that programs read differently"),
        ("http://2130706433", "writes 127.0.0.1 in a way that programs read differently"),
        ("http://010.8.8.8", "writes 8.8.8.8 in a way that programs read differently"),
        ("http://8.8.8.08", "8.8.8.08 is neither a name nor an address"),
        ("http://models.example.1", "models.example.1 is neither a name nor an address"),
        ("http://models.example\\@127.0.0.1", "holds a blank or a backslash"),
        ("http://models.example@127.0.0.1", "has a user name before its host"),
        ("http://127.0.0.1@models.example", "has a user name before its host"),
        ("http://models.example\t/", "holds a blank or a backslash"),
        ("http://%31%32%37.0.0.1", "has a host that cannot be read"),
        ("http://[fe80::1%25eth0]", "has a host that cannot be read"),
        ("http://::1/", "has a host that cannot be read"),
        ("http:///v1", "has a host that cannot be read"),
        ("s3://169.254.169.254/key", "the metadata service of a cloud"),
        ("s3://127.0.0.1:9000/bucket", "a loopback address"),
    ],
)
def test_what_is_not_public_is_refused(url: str, why: str) -> None:
    found = HostPolicy(namespaces=frozenset({"monitors"})).objection(url)
    assert found is not None
    assert why in found.why


@pytest.mark.parametrize(
    "uri",
    [
        "https://models.example/v1",
        "http://8.8.8.8:8000",
        "https://[2606:4700::1111]/",
        "https://bücher.example",
        "https://monitors.example",
        "https://svc.example.com",
        "hf://127.0.0.1/localhost",
        "pvc://localhost/x",
        "s3://localhost/key",
        "s3://2024/key",
        "gs://bucket.internal/key",
        "not an address",
    ],
)
def test_what_is_public_or_no_host_gets_through(uri: str) -> None:
    assert STRICT.objection(uri) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://[::1]", "http://10.0.0.1", "http://a.b.svc", "http://a"])
def test_private_hosts_may_be_allowed_all_at_once(url: str) -> None:
    assert STRICT.objection(url) is not None
    assert OPEN.objection(url) is None


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254", "http://metadata.google.internal", "http://[fe80::1]", "http://0x7f.1", "http://a@b"],
)
def test_metadata_and_what_is_read_differently_are_not_allowed_with_them(url: str) -> None:
    assert OPEN.objection(url) is not None


def test_hosts_may_be_allowed_one_by_one() -> None:
    policy = HostPolicy(allowed=("10.1.0.0/16", "judge.team.svc", "*.corp", "169.254.169.254", "fd12::/16"))
    for allowed in ("10.1.2.3", "[::ffff:10.1.2.3]", "judge.team.svc", "JUDGE.team.svc.", "a.b.corp", "[fd12::5]"):
        assert policy.objection(f"http://{allowed}:80/") is None, allowed
    assert policy.objection("http://169.254.169.254") is None
    for refused in ("10.2.0.1", "[::ffff:10.2.0.1]", "other.team.svc", "xjudge.team.svc", "corp", "127.0.0.1"):
        assert policy.objection(f"http://{refused}/") is not None, refused


@pytest.mark.parametrize("entry", ["http://a", "a:80", "*", "a.*", "10.1.2.3/8", "1.2.3", "", "a b", "*.*.a"])
def test_an_entry_that_is_no_host_is_refused_at_the_start(entry: str, tmp_path: Path) -> None:
    assert entry_error(entry) is not None
    path = tmp_path / "operator.yaml"
    path.write_text(f"allowedHosts: ['{entry}']")
    with pytest.raises(ConfigError, match=r"\*\.DOMAIN, an address, a network"):
        read_config(path)


def test_an_evaluation_of_a_private_endpoint_is_not_accepted() -> None:
    job = evaluation(models=[], endpoint={"url": "http://10.0.0.1:8080"})
    assert condition(plan(job, observed()), "Accepted") == (
        "False",
        "HostNotAllowed",
        "spec.endpoint.url points to 10.0.0.1, a private address. Name a public host, or have 10.0.0.1 added to "
        "allowedHosts of the operator's configuration.",
    )
    allowing = CONFIG.model_copy(update={"allowed_hosts": ["10.0.0.0/8"]})
    assert condition(plan(job, observed(), config=allowing), "Accepted")[0] == "True"


def test_a_password_in_an_address_is_not_repeated() -> None:
    judge = {"url": "https://user:secret@judge.example"}
    job = evaluation(suites=[{"type": "arena", "dataset": "pvc://data/a.json", "judge": judge}])
    status, reason, message = condition(plan(job, observed()), "Accepted")
    assert (status, reason) == ("False", "HostNotAllowed")
    assert message.startswith("spec.suites[0].judge.url has a user name before its host, which belongs into a Secret.")
    assert "secret@" not in message


def test_what_the_user_has_to_change_is_said_before_what_may_come_by_itself() -> None:
    job = evaluation(
        models=[{"name": "a", "model": {"uri": "pvc://nowhere/a"}}, {"name": "b", "model": {"uri": "s3://127.0.0.1/b"}}]
    )
    assert condition(plan(job, observed()), "Accepted")[1] == "HostNotAllowed"
    job = evaluation(models=[{"name": "a", "model": {"uri": "pvc://nowhere/a"}}])
    assert condition(plan(job, observed()), "Accepted")[1] == "VolumeMissing"


def test_by_default_nothing_private_is_allowed() -> None:
    assert OperatorConfig().hosts == HostPolicy(namespaces=frozenset({"alidade-system", "monitoring"}))
