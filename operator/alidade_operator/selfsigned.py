"""Certificates that the operator signs itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

_AUTHORITY_FOR = timedelta(days=3650)
_CERTIFICATE_FOR = timedelta(days=90)
# cert-manager renews with a third of the time left, and so do we; an authority must outlive what it signs.
_RENEWED_BEFORE = timedelta(days=30)
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Signed:
    """All in PEM. authority: of the one in use, then of the one before while that may still be shown."""

    certificate: bytes
    key: bytes
    authority: bytes
    authority_key: bytes


def is_good_for_long(known: Signed, hosts: tuple[str, ...], now: datetime | None = None) -> bool:
    """Whether a certificate is for these hosts, is of its authority, and has time left."""
    from cryptography import x509  # 10 MB that only a webhook with its own certificate needs

    soon = (now or datetime.now(UTC)) + _RENEWED_BEFORE
    try:
        certificate = x509.load_pem_x509_certificate(known.certificate)
        authority = x509.load_pem_x509_certificates(known.authority)[0]
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with it, a new one is signed
        return False
    named = set(names.get_values_for_type(x509.DNSName))
    return set(hosts) <= named and min(certificate.not_valid_after_utc, authority.not_valid_after_utc) > soon


def signed(hosts: tuple[str, ...], known: Signed | None, now: datetime | None = None) -> Signed:
    """A certificate for hosts, of the authority of the one before where that lives long enough, else of a new one."""
    from cryptography.hazmat.primitives import serialization

    now = now or datetime.now(UTC)
    found = _authority_of(known, now) if known is not None else None
    authority_key, authority = found or _new_authority(now)
    before = known.authority if known is not None else b""
    new = authority.public_bytes(serialization.Encoding.PEM)
    key, certificate = _certificate(hosts, authority_key, authority, now)
    return Signed(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=_pem(key),
        authority=before if found is not None else new + _first(before),
        authority_key=_pem(authority_key),
    )


def _first(bundle: bytes) -> bytes:
    """The first certificate of a bundle, when there is one that can be read."""
    end = b"-----END CERTIFICATE-----\n"
    first, found, _ = bundle.partition(end)
    return first + found if found else b""


def _authority_of(known: Signed, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        authority = x509.load_pem_x509_certificates(known.authority)[0]
        key = serialization.load_pem_private_key(known.authority_key, password=None)
    except (ValueError, IndexError):
        return None
    lives = authority.not_valid_after_utc > now + _CERTIFICATE_FOR + _RENEWED_BEFORE
    fits = isinstance(key, ec.EllipticCurvePrivateKey) and authority.public_key() == key.public_key()
    return (key, authority) if lives and fits and isinstance(key, ec.EllipticCurvePrivateKey) else None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _new_authority(now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: of two authorities of one name, programs may try the wrong one only.
    name = _name(f"alidade webhook {serial:x}"[:64])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _AUTHORITY_FOR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _certificate(
    hosts: tuple[str, ...], authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, now: datetime
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(hosts[0][:64]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _CERTIFICATE_FOR)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return key, certificate


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
