"""What failed below HTTP, as our errors: no URL with its query, and one reason."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

from urllib3.exceptions import ConnectTimeoutError, IncompleteRead, ProxyError

from ocimirror.errors import RegistryUnavailable, RemoteError, UntrustedCertificate
from ocimirror.registry.connections import Stalled
from ocimirror.registry.messages import Request
from ocimirror.registry.tls import NOT_TLS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        wrapped = (each for each in error.args if isinstance(each, BaseException))
        error = error.__cause__ or error.__context__ or next(wrapped, None)


def root_cause(error: BaseException) -> BaseException:
    """Return the innermost cause; what urllib3 wraps around it has the URL, query and all."""
    links = list(_chain(error))
    return next((link for link in links if isinstance(link, Stalled)), links[-1])


def translated(error: Exception, request: Request) -> RemoteError:
    """Return our error for one of requests, urllib3, http.client or the system."""
    root = root_cause(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return UntrustedCertificate(f"{request}: {root.verify_message}")
    if isinstance(root, ssl.SSLError) and root.reason in NOT_TLS:
        return UntrustedCertificate(f"{request}: it does not speak TLS")
    through = "the proxy: " if any(isinstance(link, ProxyError) for link in _chain(error)) else ""
    connecting = any(isinstance(link, ConnectTimeoutError) for link in _chain(error))
    unavailable = RegistryUnavailable(f"{request}: {through}{_reason(root, connecting)}")
    # Trying again within seconds is a waste where there is no host of that name.
    unavailable.exhausted = isinstance(root, socket.gaierror) and root.errno == socket.EAI_NONAME
    return unavailable


def _reason(root: BaseException, connecting: bool) -> str:
    match root:
        case socket.gaierror():
            return "the host name does not resolve"
        case Stalled():
            return f"stalled: no whole answer in {root.args[0]:.0f} s"
        case TimeoutError():
            return "no connection in time" if connecting else "silent for too long"
        case IncompleteRead() | http.client.IncompleteRead():
            return "the connection ended before the body did"
        case http.client.RemoteDisconnected():
            return "the connection was closed without an answer"
        case ssl.SSLError():
            return f"TLS failed: {root.reason or 'unexpected end'}"
        case OSError():
            return root.strerror or str(root)
        case _:
            return f"no HTTP answer ({type(root).__name__})"
