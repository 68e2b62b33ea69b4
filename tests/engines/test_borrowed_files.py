"""load --route alias changes files for a moment: whatever happens, they come back as they were."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, Result
from tests.support.dockermachine import Machine, run_machine
from tests.support.engines import remove, short_directory
from tests.support.traced import FirstThread, Step

HUB, ALIASED = "docker.io/team/x:1", "reg.example.com:5443/x:1"
HOSTS = b"127.0.0.1 localhost\n" * 400
SETTINGS = b'{"debug":   true}\n' + b" " * 9000
JOURNAL = "docker/ocimirror-undo.json"
ETC = Path("/etc")
# (The docker of these machines says that it has pulled an image, and has none: exit code 9.)
CAME_THROUGH = 9


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a hosts file and a configuration of some size."""
    directory = short_directory(tmp_path_factory, "m")
    (directory / "etc" / "docker").mkdir(parents=True)
    with run_machine(directory) as machine:
        (machine.etc / "hosts").write_bytes(HOSTS)
        (machine.etc / "docker" / "daemon.json").write_bytes(SETTINGS)
        yield machine
    remove(directory)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory):
    """Make a layout of one image under these names: `layouts(HUB, ALIASED)`."""
    made: dict[Sequence[str], Path] = {}

    def make(*names: str) -> Path:
        if names not in made:
            path = tmp_path_factory.mktemp("L")
            made[names] = images.write_layout(path, dict.fromkeys(names, images.single()))
        return made[names]

    return make


@pytest.fixture(scope="module")
def layout(layouts) -> Path:
    """A layout whose images need the hosts file, certs.d and daemon.json."""
    return layouts(HUB, ALIASED)


def words(layout: Path, *options: str) -> list[str]:
    """Return what loads by an alias."""
    return ["load", str(layout), "--into", "docker", "--route", "alias", *options]


def undo(machine: Machine) -> Result:
    """Undo what a killed run left."""
    return machine.run("load", "--undo", "--json")


# --- killed -----------------------------------------------------------------------------------


def visible(steps: Sequence[Step], sizes: dict[str, int]) -> list[Step]:
    """Return the steps before which the files are other ones than before the step ahead."""
    found = []
    for step in steps:
        if step.operation == "truncate":
            shrinks = sizes.get(step.path, 0) > sizes["written"]
            sizes[step.path] = sizes["written"]
            if not shrinks:
                continue
        elif step.operation == "write":
            sizes["written"] = len(step.content)
        elif step.operation in ("create", "begin", "sync"):
            continue
        found.append(step)
    return found


def tear(machine: Machine, step: Step, number: int) -> None:
    """Write half of what a killed write would have written."""
    content = step.content
    journal = machine.etc / JOURNAL
    if step.path != str(ETC / JOURNAL):
        changes = json.loads(journal.read_bytes())["changes"]
        (change,) = (c for c in changes if step.path in (c["path"], f"{c['path']}.ocimirror-new"))
        contents = [change["after"], *filter(None, [change["between"]]), change["before"]]
        content = base64.b64decode(contents[number])
    path = machine.etc / Path(step.path).relative_to(ETC)
    with path.open("r+b") as file:
        file.write(content[: len(content) // 2])


def kill_at_each_step(machine: Machine, layout: Path, file: Path, what: str = "/etc") -> int:
    """Kill a load before each step that changes a file; return how often it was killed.

    `what` is how the paths begin of the files that are meant.
    """
    before = machine.state()
    command = FirstThread(words(layout), file, machine.env(), machine.namespace)
    trace = command.traced(ETC)
    assert trace.result.code == CAME_THROUGH, trace.result
    assert machine.state() == before
    files = {ETC / p.relative_to(machine.etc): p for p in machine.etc.rglob("*") if p.is_file()}
    sizes = {str(name): path.stat().st_size for name, path in files.items()}
    configuration = machine.etc / "docker" / "daemon.json"
    is_new = not configuration.exists()
    killed, writes = 0, Counter[str]()
    for step in visible([step for step in trace.steps if step.path.startswith(what)], sizes):
        died = command.is_killed_before(step)
        killed += died
        if died and step.operation == "write" and "ocimirror-" not in Path(step.path).name:
            tear(machine, step, writes[step.path])
            writes[step.path] += 1
        if is_new and configuration.exists():
            json.loads(configuration.read_bytes())  # (dockerd does not start with half of it)
        undone = undo(machine)
        assert undone.code == 0, (step, undone)
        assert machine.state() == before, step
    return killed


def test_killed_before_any_step_or_within_it_everything_can_be_put_back(
    machine: Machine, layout: Path, tmp_path: Path
) -> None:
    assert kill_at_each_step(machine, layout, tmp_path / "trace") >= 16


def test_a_new_configuration_is_never_seen_half_written(
    machine: Machine, layouts, tmp_path: Path
) -> None:
    (machine.etc / "docker" / "daemon.json").unlink()
    configuration = "/etc/docker/daemon.json"
    assert kill_at_each_step(machine, layouts(HUB), tmp_path / "trace", configuration) >= 4


def killed_in_the_middle(machine: Machine, layout: Path) -> None:
    """Kill a load while docker pulls, when everything is changed."""
    began = machine.directory / "began"
    env = machine.env(pull=f"touch {began}; exec sleep 1")
    process = subprocess.Popen(
        [*machine.namespace, PROGRAM, *words(layout)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not began.exists():
        assert process.poll() is None
    process.kill()
    process.wait()


def undone_without_docker(machine: Machine, env: dict[str, str]) -> Result:
    """Undo by what runs on this machine, once no other test's dockerd is being loaded into."""
    for _ in range(120):
        done = machine.run("load", "--undo", "--json", env=env)
        if done.code != 7 or str(machine.directory) in done.stderr:
            break
        time.sleep(1)
    return done


def test_without_docker_undo_still_puts_files_back(machine: Machine, layout: Path) -> None:
    before = machine.state()
    killed_in_the_middle(machine, layout)
    assert b"http://127.0.0.1:" in (machine.etc / "docker" / "daemon.json").read_bytes()
    env = machine.env(info="echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    for expected in (True, False):
        done = undone_without_docker(machine, env)
        assert done.code == 0, done.stderr
        assert done.document["undone"] is expected
        assert machine.state() == before


def test_the_directory_of_the_journal_is_made_and_goes_again(machine: Machine, layouts) -> None:
    (machine.etc / "docker" / "daemon.json").unlink()
    (machine.etc / "docker").rmdir()
    before, layout = machine.state(), layouts(HUB)
    assert machine.run(*words(layout)).code == CAME_THROUGH
    assert machine.state() == before
    killed_in_the_middle(machine, layout)
    assert (machine.etc / JOURNAL).exists()
    assert undo(machine).code == 0
    assert machine.state() == before


# --- while dockerd pulls ----------------------------------------------------------------------


def test_only_while_docker_pulls_the_files_are_other_ones(machine: Machine, layout: Path) -> None:
    before, seen = machine.state(), machine.directory / "seen"
    seen.mkdir()
    result = machine.run(*words(layout), env=machine.env(pull=f"cp -r /etc/. {seen}"))
    assert result.code == CAME_THROUGH
    assert machine.state() == before
    hosts = (seen / "hosts").read_bytes()
    assert hosts.startswith(HOSTS)
    assert b"127.0.0.1 reg.example.com " in hosts.removeprefix(HOSTS)
    (certificate,) = (seen / "docker" / "certs.d" / "reg.example.com:5443").glob("*.crt")
    assert certificate.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    settings = json.loads((seen / "docker" / "daemon.json").read_bytes())
    assert settings["debug"] is True
    (mirror,) = settings["registry-mirrors"]
    assert mirror.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("pulls", ["kill -9 $(cat PID)", "touch SAID"])
def test_an_engine_that_fails_meanwhile_does_not_keep_files_changed(
    machine: Machine, layout: Path, pulls: str
) -> None:
    before, said = machine.state(), machine.directory / "said"
    pid = machine.directory / "pid"
    pid.write_text(str(machine.pid))
    pull = pulls.replace("PID", str(pid)).replace("SAID", str(said))
    env = machine.env(pull=pull, info=f"if [ -e {said} ]; then echo nonsense; exit; fi")
    failed = machine.run(*words(layout), env=env)
    after = machine.state()
    files = {name: content for name, content in before.items() if name != "mirrors"}
    assert {name: content for name, content in after.items() if name != "mirrors"} == files
    assert failed.code == CAME_THROUGH
    assert ("not put back: what was in force" in failed.stderr) == ("SAID" in pulls)


# --- what is refused --------------------------------------------------------------------------


def refused(machine: Machine, layout: Path, code: int, words_of_it: str, *options: str) -> None:
    """Assert that a load is refused with these words, and changes nothing."""
    before = machine.state()
    result = machine.run(*words(layout, *options))
    assert result.code == code, result.stderr
    assert words_of_it in result.stderr
    assert machine.state() == before


def test_a_file_that_is_too_large_is_left_alone(machine: Machine, layout: Path) -> None:
    line = b"0.0.0.0 advertisement.example\n"
    (machine.etc / "hosts").write_bytes(line * (4 * 1024 * 1024 // len(line) + 1))
    refused(machine, layout, 8, "larger than")


def test_without_a_hosts_file_a_name_cannot_be_made_to_lead_here(
    machine: Machine, layout: Path
) -> None:
    (machine.etc / "hosts").unlink()
    refused(machine, layout, 2, "/etc/hosts")


def test_a_journal_of_another_version_is_kept(machine: Machine, layout: Path) -> None:
    (machine.etc / JOURNAL).write_text('{"version": 2}')
    refused(machine, layout, 4, "version 2")
    assert undo(machine).code == 4
    assert (machine.etc / JOURNAL).read_text() == '{"version": 2}'


@pytest.mark.parametrize("text", ["// why\n{}", '{"debug": true, "debug": false}', "[]", "{"])
def test_a_configuration_that_would_not_come_back_the_same_is_refused(
    machine: Machine, layout: Path, text: str
) -> None:
    (machine.etc / "docker" / "daemon.json").write_text(text)
    refused(machine, layout, 2, "/etc/docker/daemon.json", "--dry-run")


def test_two_names_of_one_place_are_refused(machine: Machine, layouts) -> None:
    hosts = ("reg.example.com", "reg.example.com:443")
    refused(machine, layouts(*(f"{host}/x:1" for host in hosts)), 2, "same place", "--dry-run")
    hosts = ("reg.example.com", "reg.example.com:5000", "docker.io")
    planned = machine.run(*words(layouts(*(f"{host}/x:1" for host in hosts)), "--dry-run"))
    assert planned.code == 0, planned.stderr


@pytest.mark.parametrize("registry", ["[::1]", "[::1]:5000"])
def test_a_registry_at_an_ipv6_address_of_this_machine_is_served_there(
    machine: Machine, layouts, registry: str
) -> None:
    port = 80 if registry == "[::1]" else 5000
    try:
        socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"nothing can listen on ::1, port {port}: {error}")
    path, answer = layouts(f"{registry}/x:1"), machine.directory / "answer"
    planned = machine.run(*words(path, "--dry-run"))
    assert planned.code == 0, planned.stderr
    pull = f"curl -sg -o /dev/null -w '%{{http_code}}' 'http://[::1]:{port}/v2/' > {answer}"
    machine.run(*words(path), env=machine.env(pull=pull))
    assert answer.read_text() == "200"


# --- other files ------------------------------------------------------------------------------


def test_a_hosts_file_may_be_a_link(machine: Machine, layout: Path) -> None:
    (machine.etc / "hosts").rename(machine.etc / "real")
    (machine.etc / "hosts").symlink_to("real")
    before = machine.state()
    seen = machine.directory / "seen"
    env = machine.env(pull=f"cp /etc/real {seen}; test -L /etc/hosts")
    assert machine.run(*words(layout), env=env).code == CAME_THROUGH
    assert b"reg.example.com" in seen.read_bytes()
    assert machine.state() == before


def test_a_list_of_mirrors_may_be_null(machine: Machine, layouts) -> None:
    (machine.etc / "docker" / "daemon.json").write_text('{"registry-mirrors": null}')
    before, seen = machine.state(), machine.directory / "seen"
    env = machine.env(pull=f"cp /etc/docker/daemon.json {seen}")
    assert machine.run(*words(layouts(HUB)), env=env).code == CAME_THROUGH
    assert "http://127.0.0.1:" in seen.read_text()
    assert machine.state() == before


def test_what_somebody_else_wrote_is_not_ours(machine: Machine) -> None:
    """Any mixture that a torn write of ours can leave is put back; anything else stays."""
    ours = [b"one\ntw", b"thr\ntwo\n", b"three\no\n"]
    others = [b"", b"on", b"one\nten\n", b"three\nfour"]

    def text(content: bytes) -> str:
        return base64.b64encode(content).decode()

    changes = []
    for number, content in enumerate([*ours, *others]):
        (machine.etc / f"file{number}").write_bytes(content)
        changes.append(
            {
                "path": f"/etc/file{number}",
                "before": text(b"one\n"),
                "after": text(b"one\ntwo\n"),
                "added": "",
                "between": text(b"three\n"),
            }
        )
    journal = {"version": 1, "changes": changes, "directories": []}
    (machine.etc / JOURNAL).write_text(json.dumps(journal))
    undone = undo(machine)
    assert undone.code == 4
    left = [(machine.etc / f"file{number}").read_bytes() for number in range(len(changes))]
    assert left == [*[b"one\n"] * len(ours), *others]
    told = " ".join(undone.document["left"])
    assert [f"/etc/file{n} was" in told for n in range(len(changes))] == [False] * 3 + [True] * 4


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose /etc is a file system of 64 KiB."""
    directory = short_directory(tmp_path_factory, "m")
    etc = directory / "etc"
    etc.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(etc)]
    subprocess.run(mount, check=True)
    try:
        with run_machine(directory) as machine:
            (etc / "docker").mkdir()
            (etc / "hosts").write_bytes(HOSTS)
            (etc / "docker" / "daemon.json").write_bytes(SETTINGS)
            yield machine
    finally:
        remove(directory)


@pytest.mark.parametrize("free_kib", range(0, 45, 4))
def test_on_a_full_disk_everything_comes_back(
    small_disk: Machine, layout: Path, free_kib: int
) -> None:
    free = os.statvfs(small_disk.etc)
    filler = free.f_bavail * free.f_frsize - free_kib * 1024
    (small_disk.etc / "filler").write_bytes(b"x" * max(0, filler))
    before = small_disk.state()
    assert small_disk.run(*words(layout)).code in (8, CAME_THROUGH)
    assert small_disk.state() == before
