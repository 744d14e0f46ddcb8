"""Certificates of the webhook: signed, renewed, shared, taken up."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from alidade_operator.certificates import CertificateError, Folder, load
from alidade_operator.selfsigned import Signed, is_good_for_long, signed

HOSTS = ("alidade-webhook.alidade-system.svc", "alidade-webhook.alidade-system.svc.cluster.local")
NOW = datetime.now(UTC)


def shown(server: ssl.SSLContext, authority: bytes, host: str = HOSTS[0]) -> int:
    """Serial number of the certificate that a client which trusts an authority is shown; SSLError when it does not."""
    client = ssl.create_default_context(cadata=authority.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(10):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client_side.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def serial(certificate: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate).serial_number


def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def write(folder: Path, own: Signed) -> None:
    (folder / "tls.crt").write_bytes(own.certificate)
    (folder / "tls.key").write_bytes(own.key)


def test_a_client_that_trusts_the_authority_trusts_the_certificate_for_its_names_only() -> None:
    own, server = signed(HOSTS, None), context()
    load(server, own.certificate, own.key)
    assert [shown(server, own.authority, host) for host in HOSTS] == [serial(own.certificate)] * 2
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(server, own.authority, "another.alidade-system.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(server, signed(HOSTS, None).authority)


def test_it_is_renewed_thirty_days_before_its_end_by_the_same_authority() -> None:
    own = signed(HOSTS, None, NOW)
    assert is_good_for_long(own, HOSTS, NOW + timedelta(days=59))
    assert not is_good_for_long(own, HOSTS, NOW + timedelta(days=61))
    later = signed(HOSTS, own, NOW + timedelta(days=61))
    assert later.authority == own.authority
    assert later.certificate != own.certificate
    assert is_good_for_long(later, HOSTS, NOW + timedelta(days=120))


def test_a_new_authority_is_told_together_with_the_one_before() -> None:
    """Another replica may still show the older certificate when the configuration is told of the new authority."""
    own, server = signed(HOSTS, None, NOW - timedelta(days=3600)), context()
    later = signed(HOSTS, signed(HOSTS, own, NOW - timedelta(days=3600)), NOW)
    assert len(x509.load_pem_x509_certificates(later.authority)) == 2
    load(server, later.certificate, later.key)
    assert shown(server, later.authority) == serial(later.certificate)
    assert own.authority in later.authority
    latest = signed(HOSTS, later, NOW + timedelta(days=3600))
    assert len(x509.load_pem_x509_certificates(latest.authority)) == 2, "of those before that only the last is kept"


@pytest.mark.parametrize("part", ["certificate", "authority"])
def test_what_cannot_be_read_or_does_not_belong_together_is_signed_anew(part: str) -> None:
    own, other = signed(HOSTS, None), signed(HOSTS, None)
    for wrong in (b"", b"no certificate", getattr(other, part)):
        fields = {name: getattr(own, name) for name in ("certificate", "key", "authority", "authority_key")}
        mixed = Signed(**fields | {part: wrong})
        assert not is_good_for_long(mixed, HOSTS)
        assert is_good_for_long(signed(HOSTS, mixed), HOSTS)
    assert not is_good_for_long(own, ("another.name.svc",))


def test_a_new_certificate_is_shown_to_the_next_client() -> None:
    first, second, server = signed(HOSTS, None), signed(HOSTS, None), context()
    load(server, first.certificate, first.key)
    load(server, second.certificate, second.key)
    assert shown(server, second.authority) == serial(second.certificate)


def test_a_pair_that_does_not_belong_together_leaves_the_one_before_in_use() -> None:
    first, second, server = signed(HOSTS, None), signed(HOSTS, None), context()
    load(server, first.certificate, first.key)
    for certificate, key in ((second.certificate, first.key), (b"", b""), (second.certificate, b"no key")):
        with pytest.raises(CertificateError, match="certificate and key cannot be used"):
            load(server, certificate, key)
        assert shown(server, first.authority) == serial(first.certificate)


async def test_a_folder_is_read_as_it_is_now(tmp_path: Path) -> None:
    source = Folder(tmp_path)
    with pytest.raises(CertificateError, match=r"tls\.crt cannot be read \(No such file or directory\)"):
        await source.read()
    own = signed(HOSTS, None)
    write(tmp_path, own)
    assert await source.read() == (own.certificate, own.key)


async def test_both_files_of_a_mounted_secret_are_of_one_version(tmp_path: Path) -> None:
    """The kubelet swaps the link ..data, behind which the files lie."""
    first, second = signed(HOSTS, None), signed(HOSTS, None)
    for name, own in (("..first", first), ("..second", second)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, own)
    link = tmp_path / "..data"
    link.symlink_to("..first")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert await Folder(tmp_path).read() == (first.certificate, first.key)
    (tmp_path / "..next").symlink_to("..second")
    (tmp_path / "..next").rename(link)
    assert await Folder(tmp_path).read() == (second.certificate, second.key)
