"""What deploy/ ships is what systemd, Kubernetes and the command line take."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.programs import require_program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
FINAL = {2, 4, 5, 6, 8, 9}
"""Exit codes that a scheduler does not try again (6 comes with trust policies); and 1, a bug."""
INDEX = "JOB_COMPLETION_INDEX"


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a manifest."""
    return list(yaml.safe_load_all(path.read_text()))


def jobs() -> Iterator[dict[str, Any]]:
    """Yield what each job of Kubernetes says."""
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "CronJob":
                yield document["spec"]["jobTemplate"]["spec"]
            elif document["kind"] == "Job":
                yield document["spec"]


def units() -> dict[str, list[str]]:
    """Return the settings of the service: every value of each key."""
    found: dict[str, list[str]] = {}
    text = (UNITS / "ocimirror-sync.service").read_text().replace("\\\n", " ")
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield each command line of ocimirror that is shipped, without the program's name."""
    for line in units()["ExecStart"]:
        yield "systemd", shlex.split(line)[1:]
    for line in (DEPLOY / "crontab").read_text().splitlines():
        if "/ocimirror " in line:
            yield "cron", shlex.split(line.partition("/ocimirror ")[2])
    for job in jobs():
        for container in job["template"]["spec"]["containers"]:
            if container.get("command") == ["sh", "-c"]:
                (script,) = container["args"]
                script = (
                    script.replace(f"$(({INDEX} + 1))", "1")
                    .replace(f"${INDEX}", "0")
                    .replace("$RUN", "1")
                )
                words = shlex.split(script)
                yield "kubernetes, a shell", words[words.index("ocimirror") + 1 :]
            else:
                yield "kubernetes", container["args"]
    for path in MANIFESTS:
        for line in re.findall(
            r"^# +(?:cd \S+ && )?ocimirror (.*)$", path.read_text(), re.MULTILINE
        ):
            yield path.name, shlex.split(line)


LINES = list(command_lines())
NIGHTS = [line for line in LINES if line[1][0] == "sync" and line[1][1] != "merge"]


def test_all_the_files_are_looked_at() -> None:
    assert [place for place, _ in LINES] == [
        "systemd",
        "cron",
        "kubernetes",
        "kubernetes, a shell",
        "shards.yaml",
    ]


@pytest.mark.parametrize(("place", "words"), LINES, ids=[place for place, _ in LINES])
def test_every_option_that_is_shipped_exists(place: str, words: list[str]) -> None:
    command = words[:2] if words[:2] == ["sync", "merge"] else words[:1]
    said = ocimirror(*command, "--help")
    assert said.code == 0
    known = set(re.findall(r"--[a-z-]+", said.stdout))
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(("place", "words"), NIGHTS, ids=[place for place, _ in NIGHTS])
def test_every_command_line_that_is_shipped_runs(
    place: str, words: list[str], registry, repository, tmp_path
) -> None:
    """With the files moved into a directory of the test: a mirror of nothing, done in a moment."""
    registry.put_manifest(repository, "1", *_empty_index())
    text = " ".join(shlex.quote(word) for word in words)
    for directory in ("/etc/ocimirror", "/var/lib/ocimirror"):
        text = text.replace(directory, str(tmp_path))
    (tmp_path / "sync.yaml").write_text(
        f"mirrors:\n  - from: {registry.host}/{repository}\n    to: oci:{tmp_path}/layout\n"
    )
    result = ocimirror(*shlex.split(text))
    assert result.code == 0, result.stderr
    assert list(tmp_path.glob("*.lock"))


def _empty_index() -> tuple[bytes, str]:
    media_type = "application/vnd.oci.image.index.v1+json"
    raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % media_type.encode()
    return raw, media_type


def test_the_documented_exit_codes_are_final_and_the_others_are_tried_again() -> None:
    """And 7, another run at work, is no failure to systemd, and may be tried again elsewhere."""
    service = units()
    final = {int(code) for code in service["RestartPreventExitStatus"][0].split()}
    assert final == FINAL | {1}
    assert service["SuccessExitStatus"] == ["7"]
    assert service["Restart"] == ["on-failure"]
    for job in jobs():
        rules = job["podFailurePolicy"]["rules"]
        codes = [set(rule["onExitCodes"]["values"]) for rule in rules if "onExitCodes" in rule]
        assert codes == [FINAL | {1}]
        assert job["template"]["spec"]["restartPolicy"] == "Never"
        assert job.get("backoffLimit", job.get("backoffLimitPerIndex")) > 0


def test_the_reference_has_these_exit_codes_too() -> None:
    text = (ROOT / "docs/reference/commands.md").read_text()
    assert FINAL - {6} | {3, 7} <= {
        int(code) for code in re.findall(r"^\| (\d) \|", text, re.MULTILINE)
    }


def test_what_a_pod_mounts_is_a_volume_and_what_it_names_is_shipped_or_optional() -> None:
    shipped = {(d["kind"], d["metadata"]["name"]) for path in MANIFESTS for d in documents(path)}
    for job in jobs():
        pod = job["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in shipped
            elif "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in shipped
            else:
                assert "emptyDir" in volume or volume["secret"]["optional"]


def test_the_configuration_that_is_shipped_is_valid(tmp_path: Path) -> None:
    maps = [d for path in MANIFESTS for d in documents(path) if d["kind"] == "ConfigMap"]
    for number, document in enumerate(maps):
        file = tmp_path / f"{number}.yaml"
        file.write_text(document["data"]["sync.yaml"])
        checked = ocimirror("config", "check", file)
        assert checked.code == 0, checked.stderr
    assert maps


def test_the_containerfile_copies_what_there_is() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = [words[1:-1] for line in text.splitlines() if (words := line.split())[:1] == ["COPY"]]
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"/source\[([\w,-]+)\]", text)
    assert "sync" in extras.split(",")
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert project["readme"] in copied[0]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they are after installation, where the program is at another place."""
    program = tmp_path / "ocimirror"
    program.symlink_to(PROGRAM)
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/local/bin/ocimirror", str(program))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Ask systemd what it thinks."""
    program = require_program("systemd-analyze", "systemd")
    return subprocess.run(
        [program, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_systemd_has_nothing_to_say_against_the_units(installed: Path) -> None:
    said = analyze("verify", "--man=no", *sorted(installed.glob("ocimirror-sync.*")))
    assert (said.returncode, said.stderr.strip(), said.stdout.strip()) == (0, "", "")


def test_the_service_is_sandboxed(installed: Path) -> None:
    """Exposure is at most 1.5 of 10; what is left is mostly the network."""
    said = analyze("security", "--offline=true", "--threshold=15", installed / UNIT)
    assert said.returncode == 0, said.stdout


UNIT = "ocimirror-sync.service"


def test_the_timer_has_a_time(installed: Path) -> None:
    (when,) = re.findall(
        r"^OnCalendar=(.*)$", (UNITS / "ocimirror-sync.timer").read_text(), re.MULTILINE
    )
    assert analyze("calendar", when).returncode == 0
