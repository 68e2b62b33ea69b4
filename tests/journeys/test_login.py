"""login and logout: checked with the registry, kept where docker, podman and skopeo look."""

from __future__ import annotations

import base64
import json
import os
import pty
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.faults import Respond
from tests.support.programs import require_program
from tests.support.proxy import Canary, Visit, run_canary
from tests.support.tokenserver import TokenServer
from tests.support.witness import Registry

USER, PASSWORD = "ada", "pa:ss word"
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
HUB = "https://index.docker.io/v1/"
CANARY = "canary-secret"

HELPER = """#!/bin/sh
# Keeps one login in a file, and notes how it was called.
state="${0%/*}/state"
echo "$@" >> "${0%/*}/calls"
case "$1" in
store) cat > "$state" ;;
get) cat > /dev/null; cat "$state" 2>/dev/null && exit 0
     echo "credentials not found in native keychain"; exit 1 ;;
erase) cat > "${0%/*}/erased"; rm -f "$state" ;;
esac
"""


def login(
    host: str,
    *options: str | Path,
    env: dict[str, str],
    password: str = PASSWORD,
    user: str = USER,
) -> Result:
    """Log ada in with a password on standard input, as scripts do, with all there is to log."""
    options = ("-u", user, "--password-stdin", "-vv", *options)
    result = ocimirror("login", host, *options, stdin=f"{password}\n", env=env)
    for secret in (password, base64.b64encode(f"{user}:{password}".encode()).decode()):
        assert secret not in result.stdout + result.stderr
    return result


def can_pull(name: str, directory: Path, env: dict[str, str], *options: str | Path) -> bool:
    """Whether a pull gets in, as whoever the credential files say."""
    return ocimirror("pull", name, directory, *options, env=env).code == 0


@pytest.fixture
def anywhere() -> Iterator[Canary]:
    """Be every registry, as a proxy: each lets in who has the password."""

    def script(visit: Visit) -> Respond:
        encoded = visit.headers.get("authorization", "").removeprefix("Basic ")
        if not base64.b64decode(encoded).decode().endswith(f":{PASSWORD}"):
            return Respond(401, {"WWW-Authenticate": 'Basic realm="x"'})
        return Respond(200, {}, b'{"name": "library/alpine", "tags": ["1.0"]}')

    with run_canary(script) as canary:
        yield canary


def by(proxy: Canary, registry: str) -> tuple[str, ...]:
    """Return the options that reach a registry through a proxy."""
    return ("--proxy", proxy.url, "--plain-http", registry)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def image(htpasswd_registry: Registry, repository: str) -> str:
    """Return the name of an image in the registry that wants a password."""
    images.push(htpasswd_registry, repository, "1.0", images.single())
    return f"{htpasswd_registry.host}/{repository}:1.0"


@pytest.fixture
def helper(tmp_path: Path) -> Callable[[dict[str, Any]], dict[str, str]]:
    """Install docker-credential-test, write docker's config.json; return the environment."""

    def install(config: dict[str, Any]) -> dict[str, str]:
        program = tmp_path / "bin" / "docker-credential-test"
        program.parent.mkdir()
        program.write_text(HELPER)
        program.chmod(0o755)
        env = environment(tmp_path)
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
        return {**env, "PATH": f"{program.parent}:{env['PATH']}"}

    return install


# --- where a login goes --------------------------------------------------------------------------


def test_a_login_is_found_by_the_next_pull_until_the_logout(image: str, tmp_path: Path) -> None:
    host, env = image.split("/")[0], environment(tmp_path)
    file = tmp_path / ".docker" / "config.json"

    assert not can_pull(image, tmp_path / "before", env)
    done = login(host, "--json", env=env)
    assert can_pull(image, tmp_path / "between", env)

    assert done.document == {
        "schema": "ocimirror.login/v1",
        "exit_code": 0,
        "registry": host,
        "status": "logged_in",
        "username": USER,
        "stored_in": str(file),
    }
    assert json.loads(file.read_text()) == {"auths": {host: {"auth": AUTH}}}
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert os.listdir(file.parent) == ["config.json"]

    out = ocimirror("logout", host, "--json", env=env)
    again = ocimirror("logout", host, "--json", env=env)

    assert out.document == {
        "schema": "ocimirror.logout/v1",
        "exit_code": 0,
        "registry": host,
        "status": "logged_out",
        "erased_from": str(file),
        "still_in": None,
    }
    assert (again.code, again.document["status"]) == (0, "not_logged_in")
    assert not can_pull(image, tmp_path / "after", env)
    assert json.loads(file.read_text()) == {"auths": {}}


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, (), ".docker/config.json"),
        ({"DOCKER_CONFIG": "d"}, (), "d/config.json"),
        ({"DOCKER_CONFIG": "d", "XDG_RUNTIME_DIR": "run"}, (), "d/config.json"),
        ({"DOCKER_CONFIG": "d", "REGISTRY_AUTH_FILE": "r.json"}, (), "r.json"),
        ({"REGISTRY_AUTH_FILE": "r.json"}, ("--auth-file", "new/a.json"), "new/a.json"),
        ({"OCIMIRROR_AUTH_FILE": "a.json"}, (), "a.json"),
        # Podman's own file is read first: what it knows of the registry would be believed.
        ({"XDG_RUNTIME_DIR": "run"}, (), "run/containers/auth.json"),
        ({"XDG_RUNTIME_DIR": "elsewhere"}, (), ".docker/config.json"),
    ],
)
def test_a_login_goes_to_the_file_in_which_it_is_found_again(
    settings: dict[str, str], options: tuple[str, ...], expected: str, image: str, tmp_path: Path
) -> None:
    host = image.split("/")[0]
    podmans = tmp_path / "run" / "containers" / "auth.json"
    podmans.parent.mkdir(parents=True)
    podmans.write_text(json.dumps({"auths": {host: {"auth": "b2xkOm9sZA=="}}}))
    env = environment(tmp_path, **{name: str(tmp_path / at) for name, at in settings.items()})
    options = tuple(str(tmp_path / o) if o.endswith(".json") else o for o in options)

    done = login(host, *options, "--json", env=env)

    assert done.document["stored_in"] == str(tmp_path / expected)
    assert json.loads((tmp_path / expected).read_text()) == {"auths": {host: {"auth": AUTH}}}
    assert can_pull(image, tmp_path / "layout", env, *options)


@pytest.mark.parametrize("section", ["credHelpers", "credsStore"])
def test_a_login_goes_to_the_helper_that_the_file_names(
    section: str, image: str, helper: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    host = image.split("/")[0]
    config = {section: {host: "test"} if section == "credHelpers" else "test"}
    env = helper(config)

    done = login(host, "--json", env=env)

    assert done.document["stored_in"] == "docker-credential-test"
    kept = json.loads((tmp_path / "bin" / "state").read_text())
    assert kept == {"ServerURL": host, "Username": USER, "Secret": PASSWORD}
    assert can_pull(image, tmp_path / "between", env)
    assert json.loads((tmp_path / ".docker" / "config.json").read_text()) == config

    out = ocimirror("logout", host, env=env)

    assert out.stdout == f"logged out  {host}, erased from docker-credential-test\n"
    assert (tmp_path / "bin" / "erased").read_text() == host
    assert not can_pull(image, tmp_path / "after", env)
    calls = (tmp_path / "bin" / "calls").read_text().splitlines()
    assert set(calls) == {"get", "store", "erase"}


def test_a_helper_that_cannot_store_is_named(
    image: str, helper: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    env = helper({"credsStore": "test"})
    (tmp_path / "bin" / "docker-credential-test").write_text(f"#!/bin/sh\necho {CANARY}; exit 1\n")

    result = login(image.split("/")[0], env=env)

    assert result.code == 2
    assert "docker-credential-test" in result.stderr
    assert CANARY not in result.stdout + result.stderr


def test_logout_says_which_other_file_still_has_credentials(tmp_path: Path) -> None:
    env = environment(tmp_path, REGISTRY_AUTH_FILE=str(tmp_path / "first.json"))
    document = json.dumps({"auths": {"r.example.com": {"auth": AUTH}}})
    (tmp_path / "first.json").write_text(document)
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(document)

    out = ocimirror("logout", "https://R.example.com/v1/", env=env)

    assert out.code == 0
    assert str(tmp_path / ".docker" / "config.json") in out.stdout
    assert (tmp_path / ".docker" / "config.json").read_text() == document


# --- what happens to the file --------------------------------------------------------------------


def test_everything_else_in_the_file_survives_and_its_link_too(
    htpasswd_registry: Registry, tmp_path: Path
) -> None:
    host = htpasswd_registry.host
    before = {
        "HttpHeaders": {"X-Meta": "é"},
        "auths": {"other.example.com": {"auth": AUTH}, f"http://{host}/v2/": {"auth": "b2xkOng="}},
        "psFormat": "table {{.ID}}",
        "detachKeys": "ctrl-e,e",
    }
    real = tmp_path / "dotfiles" / "docker.json"
    real.parent.mkdir()
    real.write_text(json.dumps(before))
    real.chmod(0o644)
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").symlink_to(real)

    assert login(host, env=environment(tmp_path)).code == 0

    after = json.loads(real.read_text())
    auths = {"other.example.com": {"auth": AUTH}, host: {"auth": AUTH}}
    assert after == {**before, "auths": auths}
    assert list(after) == list(before)
    assert (tmp_path / ".docker" / "config.json").is_symlink()
    assert mode(real) == 0o600


def test_logins_at_the_same_time_keep_each_other(
    htpasswd_registry: Registry, token_registry: Registry, anywhere: Canary, tmp_path: Path
) -> None:
    file = tmp_path / "auth.json"
    names = [f"r{number}.example.com" for number in range(6)]
    hosts = [htpasswd_registry.host, token_registry.host]
    together = threading.Barrier(len(names), timeout=60)
    answer = anywhere.script
    assert callable(answer)

    def admitting(visit: Visit) -> Respond:
        """Admit all of them at the same time: each stores its login right after that."""
        admitted: Respond = answer(visit)
        if admitted.status == 200:
            together.wait()
        return admitted

    anywhere.script = admitting

    def log_in(host: str) -> int:
        way = () if host in hosts else by(anywhere, host)
        return login(host, "--auth-file", file, *way, env=environment(tmp_path)).code

    with ThreadPoolExecutor(len(names + hosts)) as pool:
        assert set(pool.map(log_in, names + hosts)) == {0}

    assert set(json.loads(file.read_text())["auths"]) == {*names, *hosts}


@pytest.mark.parametrize("kind", ["docker", "containers"])
def test_docker_hub_is_kept_under_dockers_own_name_only(
    kind: str, anywhere: Canary, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    old = {"auth": "b2xkOm9sZA=="}
    path.write_text(json.dumps({"auths": {"docker.io": old, "index.docker.io": old}}))
    which = {"docker": {"DOCKER_CONFIG": tmp_path}, "containers": {"REGISTRY_AUTH_FILE": path}}
    env = environment(tmp_path, **{name: str(value) for name, value in which[kind].items()})
    proxied = by(anywhere, "docker.io")
    image = ("list", "docker://docker.io/library/alpine", *proxied)

    assert login("docker.io", *proxied, env=env).code == 0
    assert json.loads(path.read_text()) == {"auths": {HUB: {"auth": AUTH}}}
    assert ocimirror(*image, env=env).stdout.split() == ["1.0"]
    assert ocimirror("logout", "docker.io", env=env).code == 0
    assert json.loads(path.read_text()) == {"auths": {}}
    assert ocimirror(*image, env=env).code == 4


def test_a_directory_that_cannot_be_written_is_exit_8(image: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "auth.json"
    assert login(image.split("/")[0], "--auth-file", file, env=environment(tmp_path)).code == 8


# --- what the registry says ----------------------------------------------------------------------


def test_a_token_service_is_asked_without_a_scope(
    token_registry: Registry, token_server: TokenServer, tmp_path: Path
) -> None:
    done = login(token_registry.host, env=environment(tmp_path))

    assert done.code == 0, done.stderr
    (asked,) = token_server.requests
    assert (asked.user, asked.scopes) == (USER, [])


@pytest.mark.parametrize("kind", ["htpasswd", "token"])
@pytest.mark.parametrize("before", [False, True])
def test_a_wrong_password_is_exit_4_and_nothing_is_stored(
    kind: str,
    before: bool,
    htpasswd_registry: Registry,
    token_registry: Registry,
    token_server: TokenServer,
    tmp_path: Path,
) -> None:
    host = (htpasswd_registry if kind == "htpasswd" else token_registry).host
    env = environment(tmp_path)
    if before:
        assert login(host, env=env).code == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}

    result = login(host, "--json", env=env, password=CANARY)

    assert result.code == 4
    assert result.document["schema"] == "ocimirror.login/v1"
    assert result.document["error"]["code"] == "authentication_failed"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == kept


def test_a_registry_that_asks_for_nothing_gets_nothing(
    docker_registry: Registry, tmp_path: Path
) -> None:
    done = login(docker_registry.host, env=environment(tmp_path))
    document = login(docker_registry.host, "--json", env=environment(tmp_path)).document

    assert done.code == 0
    assert "asks for no login" in done.stdout
    assert (document["status"], document["stored_in"]) == ("not_needed", None)
    assert list(tmp_path.iterdir()) == []


def test_a_password_that_nobody_asked_for_is_not_sent(tmp_path: Path) -> None:
    with run_canary() as canary:
        login(canary.host, env=environment(tmp_path))
        assert canary.visits
        assert not canary.saw(AUTH)


def test_a_registry_that_is_not_there_is_exit_3(tmp_path: Path) -> None:
    result = login("127.0.0.1:1", "--retries", "0", env=environment(tmp_path))
    assert result.code == 3
    assert list(tmp_path.iterdir()) == []


# --- how it is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (("r.example.com",), PASSWORD, "--password-stdin"),
        (("r.example.com", "-u", USER), PASSWORD, "--password-stdin"),
        (("r.example.com", "--password-stdin"), PASSWORD, "--username"),
        (("r.example.com", "-u", USER, "--password-stdin"), "", "empty"),
        (("r.example.com", "-u", f"{USER}:{CANARY}", "--password-stdin"), "x", "colon"),
        (("r.example.com", "-u", USER, "--password-stdin"), "x" * 70_000, "longer"),
        (("r.example.com", "-u", USER, f"--password={CANARY}"), "", "--password"),
        (("r.example.com/team", "-u", USER, "--password-stdin"), "x", "not a registry"),
    ],
)
def test_what_cannot_be_a_login_is_exit_2_with_advice(
    arguments: tuple[str, ...], stdin: str, told: str, tmp_path: Path
) -> None:
    result = ocimirror("login", *arguments, stdin=stdin, env=environment(tmp_path))
    assert result.code == 2
    assert told in result.stderr
    assert CANARY not in result.stderr + result.stdout


def test_a_broken_file_is_said_before_the_password_is_sent(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{")
    with run_canary() as canary:
        file = tmp_path / "auth.json"
        result = login(canary.host, "--auth-file", file, env=environment(tmp_path))
        assert (result.code, len(canary.visits)) == (2, 0)
    assert file.read_text() == "{"


def test_a_terminal_is_asked_without_echo(htpasswd_registry: Registry, tmp_path: Path) -> None:
    answers = [("Username:", USER), ("Password:", PASSWORD)]
    code, shown = at_a_terminal(tmp_path, answers, "login", htpasswd_registry.host)

    assert code == 0, shown
    assert USER in shown
    assert PASSWORD not in shown
    kept = json.loads((tmp_path / ".docker" / "config.json").read_text())
    assert kept == {"auths": {htpasswd_registry.host: {"auth": AUTH}}}


def at_a_terminal(home: Path, answers: list[tuple[str, str]], *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal of its own, answer what it asks; return what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PROGRAM, [PROGRAM, *arguments], environment(home))
    shown = b""
    signal.alarm(60)
    try:
        while chunk := os.read(terminal, 1024):
            shown += chunk
            if answers and shown.rstrip().endswith(answers[0][0].encode()):
                os.write(terminal, answers.pop(0)[1].encode() + b"\n")
    except OSError:  # (how Linux says that the other side is gone)
        pass
    finally:
        signal.alarm(0)
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


# --- the others ----------------------------------------------------------------------------------


def run(*command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run another tool with an empty home."""
    home.mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
    done = subprocess.run(
        [*map(str, command)], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("tool", ["podman", "skopeo"])
def test_podman_and_skopeo_see_the_login(
    tool: str, image: str, anywhere: Canary, tmp_path: Path
) -> None:
    require_program(tool, tool)
    host, file = image.split("/")[0], tmp_path / "auth.json"
    assert login(host, "--auth-file", file, env=environment(tmp_path)).code == 0
    hub = ("docker.io", "--auth-file", file, *by(anywhere, "docker.io"))
    assert login(*hub, env=environment(tmp_path), user="hub-ada").code == 0

    for registry, user in ((host, USER), ("docker.io", "hub-ada")):
        command = (tool, "login", "--get-login", "--authfile", file, registry)
        assert run(*command, home=tmp_path / "home").stdout.strip() == user


def test_skopeo_copies_with_our_file(image: str, tmp_path: Path) -> None:
    require_program("skopeo", "skopeo")
    file = tmp_path / "auth.json"
    assert login(image.split("/")[0], "--auth-file", file, env=environment(tmp_path)).code == 0

    run(
        *("skopeo", "--insecure-policy", "copy", "--authfile", file, "--src-tls-verify=false"),
        *(f"docker://{image}", f"dir:{tmp_path / 'copied'}"),
        home=tmp_path / "home",
    )

    assert (tmp_path / "copied" / "manifest.json").read_bytes() == images.single().raw


def test_docker_reads_a_manifest_with_our_file(image: str, tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed (Debian package: docker.io)")
    env = environment(tmp_path, DOCKER_CONFIG=str(tmp_path / "docker"))
    assert login(image.split("/")[0], env=env).code == 0

    told = run(
        *("docker", "--config", tmp_path / "docker", "manifest", "inspect", "--insecure", image),
        home=tmp_path / "home",
    )

    assert json.loads(told.stdout)["layers"]


def test_we_see_and_erase_the_login_of_podman(image: str, tmp_path: Path) -> None:
    require_program("podman", "podman")
    host, file = image.split("/")[0], tmp_path / "auth.json"
    run(
        *("podman", "login", "--tls-verify=false", "--authfile", file),
        *("-u", USER, "-p", PASSWORD, host),
        home=tmp_path / "home",
    )

    assert can_pull(image, tmp_path / "layout", environment(tmp_path), "--auth-file", file)
    assert ocimirror("logout", host, "--auth-file", file, env=environment(tmp_path)).code == 0
    assert json.loads(file.read_text()) == {"auths": {}}
