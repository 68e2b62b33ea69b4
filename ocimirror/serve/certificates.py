"""The server's certificate: read from files and swapped when they change, or made here."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ocimirror.errors import UsageError, storage_errors
from ocimirror.serve.watch import Reloaded

_VALID_DAYS = 365
_RENEWED_DAYS = 30


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Paths of PEM files.

    Attributes:
        certificate: the certificate, then what it was signed with.
        key: its private key, without a password.
        ca: what clients have to trust; empty where they do already.
    """

    certificate: str
    key: str
    ca: str = ""


class ServerCertificate:
    """The TLS side of a server; `refresh` swaps the certificate for new connections.

    Raises:
        UsageError: the files are no certificate with its key.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._current = Reloaded((files.certificate, files.key), self._make)
        self.context = self._current.value
        # (A context made whole each time: loading into a live one could leave it half changed.)
        self.context.sni_callback = self._swap

    def refresh(self, force: bool = False) -> bool:
        """Take the files again where they changed; those that do not fit leave the old in force."""
        return self._current.refresh(force)

    def _swap(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = self._current.value

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._files.certificate, self._files.key, _no_password)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self._files.certificate} and {self._files.key} are not a certificate with its"
                f" key: {error}"
            ) from error
        return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def generate_certificate(directory: str, names: Sequence[str]) -> CertificateFiles:
    """Return a certificate for these names, made in the directory or kept there from before.

    It is signed by a CA of its own, whose key is thrown away: whoever trusts `ca.pem` trusts this
    server and nothing else. It is valid for a year; a new one is made 30 days before its end.

    Args:
        directory: made if absent, for its owner only.
        names: DNS names and IP addresses.

    Raises:
        UsageError: not a name.
        LocalStorageError: the directory cannot be written.
    """
    alternatives = [_alternative(name) for name in names]
    files = CertificateFiles(
        *(os.path.join(directory, name) for name in ("server.pem", "server.key", "ca.pem"))
    )
    if _still_good(files, alternatives):
        return files
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _named(f"ocimirror serve {secrets.token_hex(4)}")
    ca = (
        _begun(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _begun(_named(names[0][:64]), ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName(alternatives), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .sign(ca_key, hashes.SHA256())
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with storage_errors(f"cannot write a certificate into {directory}"):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _write(files.ca, ca_pem, 0o644)
        _write(files.key, key_pem, 0o600)
        _write(files.certificate, leaf.public_bytes(serialization.Encoding.PEM) + ca_pem, 0o644)
    return files


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.encode("ascii").decode())
    except ValueError as error:
        raise UsageError(f"not a name for a certificate: {name!r}") from error


def _still_good(files: CertificateFiles, alternatives: Sequence[x509.GeneralName]) -> bool:
    """Whether the files are there, fit, name the same and last."""
    try:
        ServerCertificate(files)
        with open(files.ca, "rb") as ca, open(files.certificate, "rb") as certificate:
            issuer = x509.load_pem_x509_certificate(ca.read(1 << 16))
            leaf = x509.load_pem_x509_certificate(certificate.read(1 << 16))
        named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf.verify_directly_issued_by(issuer)
    except (UsageError, OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    left = leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return list(named) == list(alternatives) and left.days > _RENEWED_DAYS


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # (clients' clocks differ)
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: str, content: bytes, mode: int) -> None:
    """Write a file whole, readable by whom it is for from its first byte on."""
    temporary = f"{path}.{secrets.token_hex(4)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
