"""Row 11: `ocimirror serve` beside the servers that do nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator

from bench.measure import Contender, Failed, Sample, environment, race, ratio, run
from bench.report import Line, failed_line, plain_line, show_ratio
from bench.sites import MIB, Image, Sites
from bench.tools import OCIMIRROR
from tests.support.servers import free_port

BLOB_BAR = 1 / 0.8
MANIFEST_BAR = 1 / 0.5
REQUESTS, AT_ONCE = 20_000, 8


def serve(sites: Sites) -> Iterator[Line]:
    """One large blob against nginx, many small manifests against docker-registry."""
    image = sites.one
    with _serving(sites, image) as (url, pid), _nginx(sites, image) as (other, other_pid):
        (digest,) = image.layers
        blob = f"{url}/v2/{image.repository}/blobs/{digest}"
        file = f"{other}/{digest.partition(':')[2]}"
        _curl(sites, blob, pid)  # (the first time it is hashed)
        yield from against(
            "11",
            sites,
            f"send {image.size_bytes // MIB} MiB",
            BLOB_BAR,
            Contender("ocimirror serve", lambda _: (_curl(sites, blob, pid),)),
            Contender("nginx", lambda _: (_curl(sites, file, other_pid),)),
        )
        source = sites.source
        path = f"/v2/{image.repository}/manifests/1"
        count = sites.part(REQUESTS)
        ours, theirs = f"{url}{path}", f"http://{source.host}{path}"
        yield from against(
            "11",
            sites,
            f"answer {count} manifest GETs, {AT_ONCE} at once",
            MANIFEST_BAR,
            Contender("ocimirror serve", lambda _: (_ab(sites, ours, pid, count),)),
            Contender("docker-registry", lambda _: (_ab(sites, theirs, source.pid, count),)),
        )


def against(
    row: str, sites: Sites, work: str, bar: float, ours: Contender, theirs: Contender
) -> Iterator[Line]:
    """Let two contenders race, and compare ours with theirs."""
    race(f"row {row}, {work}", [ours, theirs], sites.runs, sites.scratch)
    for one in (ours, theirs):
        if one.failure:
            yield failed_line(row, work, one.name, one.failure)
            return
    walls = [[sample.wall_s for sample in one.of(0)] for one in (ours, theirs)]
    found = ratio(*walls)
    assert found is not None
    yield plain_line(
        row, work, ours.name, f"{show_ratio(found)} × {theirs.name}", bar, found.median
    )


def _curl(sites: Sites, url: str, pid: int) -> Sample:
    command = ["curl", "-sSf", "-o", "/dev/null", url]
    return run(command, servers=[pid], scratch=sites.scratch)


def _ab(sites: Sites, url: str, pid: int, count: int) -> Sample:
    """Ask with ApacheBench: in C, so that it is not the slower end."""
    if shutil.which("ab") is None:
        raise Failed("ab (apache2-utils) is not on PATH")
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    command = ["ab", "-q", "-k", "-c", str(AT_ONCE), "-n", str(count), "-H", accept, url]
    return run(command, servers=[pid], scratch=sites.scratch)


@contextlib.contextmanager
def _serving(sites: Sites, image: Image) -> Iterator[tuple[str, int]]:
    command = [OCIMIRROR, "serve", "--json", "--listen", "127.0.0.1:0", str(image.layout)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(sites.scratch)
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            if not line:
                raise Failed("ocimirror serve did not start")
            text += line
        yield json.loads(text)["url"], process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _nginx(sites: Sites, image: Image) -> Iterator[tuple[str, int]]:
    """Run nginx with one process, as `serve` is one, over the same files."""
    if shutil.which("nginx") is None:
        raise Failed("nginx is not on PATH")
    directory = sites.scratch / "nginx"
    directory.mkdir()
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;"
        " events {} http { access_log off; sendfile on; tcp_nopush on;"
        f" {temporary} server {{ listen 127.0.0.1:{port}; root {image.layout}/blobs/sha256; }} }}"
    )
    process = subprocess.Popen(["nginx", "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        waiting = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"]
        subprocess.run([*waiting, "-o", "/dev/null", url], check=True)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()
