"""TLS: whom we trust, and whether a loopback host speaks it at all."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from ocimirror.errors import UsageError
from ocimirror.registry.connections import TlsSocket
from ocimirror.registry.options import NetworkOptions
from ocimirror.registry.url import Origin

PROBE_TIMEOUT_S = 2.0
# Reasons that OpenSSL gives when a peer answers with something else.
NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})


def client_context(options: NetworkOptions, host: Origin | None = None) -> ssl.SSLContext:
    """Return the TLS policy of a run: the system's CAs, those of `ca_file`, always verified.

    Args:
        options: of the run.
        host: adds what docker and containers keep for this host in their certs.d: `*.crt` are
            CAs, `NAME.cert` with `NAME.key` is for servers that ask for a certificate.

    Raises:
        UsageError: a certificate file cannot be read.

    Spec: containers-certs.d(5).
    """
    context = ssl.create_default_context()
    context.sslsocket_class = TlsSocket
    if not _system_has_cas():
        import certifi

        context.load_verify_locations(certifi.where())
    if options.ca_file is not None:
        try:
            context.load_verify_locations(options.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(f"--ca-file {options.ca_file}: {_why(error)}") from error
    if options.client_cert is not None:
        try:
            context.load_cert_chain(options.client_cert, options.client_key, password=_no_password)
        except OSError as error:
            files = f"{options.client_cert}, {options.client_key or options.client_cert}"
            raise UsageError(f"--client-cert, --client-key: {files}: {_why(error)}") from error
    if host is not None:
        for directory in certificates_of(host, options.certs_dirs):
            _take(context, directory)
    return context


def certificates_of(host: Origin, certs_dirs: Sequence[Path]) -> list[Path]:
    """Return the directories there are for a host; at port 443, also that of its bare name."""
    name = f"[{host.host}]" if ":" in host.host else host.host
    names = [f"{name}:{host.port}", *([name] if host.port == 443 else [])]
    if host.host == "registry-1.docker.io":
        names.append("docker.io")
    return [path for base in certs_dirs for each in names if (path := base / each).is_dir()]


def _take(context: ssl.SSLContext, directory: Path) -> None:
    for path in sorted(directory.iterdir()):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, path.with_suffix(".key"), password=_no_password)
        except OSError as error:
            raise UsageError(f"{path}: {_why(error)}") from error


def speaks_tls(host: Origin) -> bool:
    """Whether a host answers a TLS handshake; only a clear no within 2 seconds is a no.

    No certificate is looked at and nothing is sent: an untrusted one means that TLS is spoken.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no one
    # Two line ends: a server that reads lines answers the hello at once, instead of waiting.
    context.set_alpn_protocols(["\r\n\r\n"])
    try:
        with socket.create_connection((host.host, host.port), PROBE_TIMEOUT_S) as connection:
            connection.settimeout(PROBE_TIMEOUT_S)
            with context.wrap_socket(connection, server_hostname=host.host):
                return True
    except (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError):
        return False
    except ssl.SSLError as error:
        return error.reason not in NOT_TLS
    except OSError:
        return True  # refused or silent: the first request will say so


def _system_has_cas() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())))


def _no_password() -> str:
    """Stand in for the prompt that OpenSSL would show for an encrypted key."""
    return ""


def _why(error: OSError) -> str:
    return error.strerror or (error.reason if isinstance(error, ssl.SSLError) else "") or "unusable"
