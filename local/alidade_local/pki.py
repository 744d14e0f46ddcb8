"""A certificate authority for one machine, and the kubeconfig that trusts it."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_FOR = timedelta(days=3650)
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Certificates:
    """Files of the authority's certificate, of the server's certificate and key, and of those of a client.

    client: who kube-apiserver is to the kubelet; the API server of this project needs none.
    """

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


def ensure_certificates(folder: Path, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")) -> Certificates:
    """The certificates in a folder, made there with their authority when one is absent or about to expire."""
    names = ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
    files = Certificates(*(folder / name for name in names))
    if all((folder / name).exists() for name in names) and _still_good(files.cert, hosts):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    authority = _authority()
    files.ca.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    alternatives = x509.SubjectAlternativeName(_names(hosts))
    server = _issue(authority, "alidade api server", ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
    client = _issue(authority, "kube-apiserver-kubelet-client", ExtendedKeyUsageOID.CLIENT_AUTH)
    _write(server, files.cert, files.key)
    _write(client, files.client_cert, files.client_key)
    return files


def ensure_signing_key(path: Path) -> Path:
    """The file of a key that signs service accounts' tokens, made when it is absent (kube-apiserver reads SEC 1)."""
    if not path.exists():
        _write_secret(path, _pem(ec.generate_private_key(ec.SECP256R1())))
    return path


@dataclass(frozen=True)
class _Pair:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(pair: _Pair, certificate: Path, key: Path) -> None:
    _write_secret(key, _pem(pair.key))
    certificate.write_bytes(pair.certificate.public_bytes(serialization.Encoding.PEM))


def _still_good(path: Path, hosts: tuple[str, ...]) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    month = timedelta(days=30)
    return certificate.not_valid_after_utc > datetime.now(UTC) + month and set(_names(hosts)) <= set(names)


def _names(hosts: tuple[str, ...]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALID_FOR)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
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


def _authority() -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alidade local cluster")])
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Pair(key, certificate)


def _issue(authority: _Pair, name: str, usage: x509.ObjectIdentifier, *extensions: x509.ExtensionType) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(subject, authority.certificate.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
    )
    for extension in (x509.ExtendedKeyUsage([usage]), issuer_key, *extensions):
        builder = builder.add_extension(extension, critical=False)
    return _Pair(key, builder.sign(authority.key, hashes.SHA256()))


def write_kubeconfig(path: Path, server: str, ca_file: Path, token: str) -> None:
    """Write a kubeconfig with one context, `alidade`, readable by its owner only."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "alidade", "cluster": {"server": server, "certificate-authority": str(ca_file.resolve())}}
        ],
        "users": [{"name": "alidade-admin", "user": {"token": token}}],
        "contexts": [
            {
                "name": "alidade",
                "context": {"cluster": "alidade", "user": "alidade-admin", "namespace": "default"},
            }
        ],
        "current-context": "alidade",
    }
    _write_secret(path, yaml.safe_dump(config, sort_keys=False).encode())


def _write_secret(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_bytes(content)
    partial.replace(path)
