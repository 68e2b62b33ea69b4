"""A real nginx that hands files out to whoever has a signed URL that has not ended.

It stands where registries keep their blobs: they redirect there, with a signature of a few minutes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import require_program
from tests.support.servers import free_port, launch, stop

SECRET = "kept by the registry and nginx"

CONFIGURATION = """
{user}
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
  log_format seen '$status $request_method $request_uri range="$http_range"'
                  ' auth="$http_authorization"';
  access_log {directory}/access.log seen;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    location / {{
      secure_link $arg_signature,$arg_expires;
      secure_link_md5 "$secure_link_expires$uri {secret}";
      if ($secure_link = "") {{ return 403; }}
      if ($secure_link = "0") {{ return 410; }}
      default_type application/octet-stream;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    host: str
    directory: Path

    @property
    def url(self) -> str:
        """Return scheme and host, without a slash at the end."""
        return f"http://{self.host}"

    def requests(self) -> list[str]:
        """Return a line a request: status, method, target, range and authorization."""
        log, before = self.directory / "access.log", -1
        while before != (size := log.stat().st_size):  # (a line comes after its answer)
            before = size
            time.sleep(0.2)
        return log.read_text().splitlines()


def signed(path: str, lifetime_s: int) -> str:
    """Return a path below nginx with a signature that ends."""
    expires = int(time.time()) + lifetime_s
    digest = hashlib.md5(f"{expires}{path} {SECRET}".encode()).digest()  # what nginx computes
    signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return f"{path}?signature={signature}&expires={expires}"


@contextmanager
def run_nginx(directory: Path, root: Path) -> Iterator[Nginx]:
    """Run nginx until the block ends; skip the test where it is not installed.

    Args:
        directory: its own, for its configuration and logs.
        root: what it hands out.
    """
    program = require_program("nginx", "nginx-light")
    directory.mkdir(parents=True)
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            # (root's files are not for others to read, and its test is not for others to run.)
            user="user root;" if os.geteuid() == 0 else "",
            directory=directory,
            root=root,
            port=port,
            secret=SECRET,
        )
    )
    command = [program, "-e", str(directory / "error.log"), "-p", str(directory)]
    process = launch([*command, "-c", str(configuration)], directory, port)
    if process is None:
        raise RuntimeError(f"nginx did not start: {(directory / 'error.log').read_text()}")
    try:
        yield Nginx(f"127.0.0.1:{port}", directory)
    finally:
        stop(process)
