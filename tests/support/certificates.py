"""Certificates for servers on loopback, signed by a CA that exists only for one test run."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of one server certificate and of the CA that signed it (PEM)."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a context for the server's side of a connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a context for a client that trusts this CA and no other."""
        return ssl.create_default_context(cafile=str(self.ca_file))


def write_certificates(
    directory: Path,
    *,
    names: tuple[str, ...] = ("127.0.0.1", "localhost"),
    not_after: datetime.datetime | None = None,
) -> Certificates:
    """Make a CA and a server certificate for the names; an expired one by `not_after`."""
    import trustme  # not at the top: the registry runs without the development packages

    directory.mkdir(parents=True, exist_ok=True)
    files = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    ca = trustme.CA()
    leaf = ca.issue_cert(*names, not_after=not_after)
    ca.cert_pem.write_to_path(str(files.ca_file))
    leaf.private_key_pem.write_to_path(str(files.key_file))
    files.certificate_file.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    return files
