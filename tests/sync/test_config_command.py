"""ocimirror config: check, schema, import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.support.command import environment, ocimirror

NIGHTLY = """\
tags: {newest: 3}
registries:
  mirror.local: {plain_http: true, auth: {username: robot, password: "${PASSWORD}"}}
mirrors:
  - from: quay.io/org/*
    to: [mirror.local/{repository}, oci:/srv/mirror]
    prune: true
  - from: alpine:3.19
    to: mirror.local/alpine
"""


def test_check_says_what_a_file_means(tmp_path: Path) -> None:
    (tmp_path / "nightly.yaml").write_text(NIGHTLY.replace("[mirror.local/{repository}, ", "["))
    result = ocimirror(
        "config", "check", "nightly.yaml", cwd=tmp_path, env=environment(PASSWORD="s3cret")
    )
    assert result.code == 0
    assert result.stdout == (
        "nightly.yaml:5  quay.io/org/* -> oci:/srv/mirror\n"
        "  newest 3 by semver; prune at most 10 after 7d\n"
        "nightly.yaml:8  docker.io/library/alpine:3.19 -> mirror.local/alpine\n"
        "mirror.local: plain_http; username robot\n"
        "entries: 2, registries: 1, files: 1\n"
    )


def test_check_has_a_document_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(NIGHTLY.replace("[mirror.local/{repository}", "['mirror.local/{repository}'"))
    result = ocimirror("config", "check", path, "--json", env=environment(PASSWORD="s3cret"))
    assert result.code == 0
    document = result.document
    assert (document["schema"], document["action"]) == ("ocimirror.config/v1", "check")
    assert document["files"] == [str(path)]
    first, second = document["mirrors"]
    assert first["to"] == ["mirror.local/{repository}", "oci:/srv/mirror"]
    assert first["tags"]["newest"] == {"count": 3, "by": "semver"}
    assert first["prune"] == {"max_delete": 10, "grace": 604800.0}
    assert second["tags"]["explicit"] == [{"tag": "3.19", "digest": None}]
    assert document["registries"]["mirror.local"]["username"] == "robot"
    assert "s3cret" not in result.stdout + result.stderr


def test_check_lists_every_fault_and_exits_2(tmp_path: Path) -> None:
    (tmp_path / "nightly.yaml").write_text("mirrors:\n  - form: a\n    to: 1.10\n")
    result = ocimirror("config", "check", "nightly.yaml", cwd=tmp_path)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: nightly.yaml: 3 faults\n"
        "  nightly.yaml:2:5: 'form' is no key of an entry of mirrors (Did you mean 'from'?)\n"
        "  nightly.yaml:2:5: an entry of mirrors has no 'from'\n"
        "  nightly.yaml:3:9: 1.10 without quotes is a number, and a destination is wanted"
        " (A destination is HOST/REPOSITORY, with its host (docker.io too), or oci:DIRECTORY.)\n"
    )
    document = ocimirror("config", "check", "nightly.yaml", "--json", cwd=tmp_path).document
    assert (document["exit_code"], document["error"]["code"]) == (2, "invalid_configuration")
    assert [fault["line"] for fault in document["faults"]] == [2, 2, 3]


def test_check_is_quiet_where_all_is_well(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text("mirrors: [{from: a.b/c, to: d.e/f}]\n")
    result = ocimirror("config", "check", path, "-q")
    assert (result.code, result.stdout, result.stderr) == (0, "", "")


def test_schema_is_printed_for_editors() -> None:
    result = ocimirror("config", "schema")
    assert result.code == 0
    schema = json.loads(result.stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_import_prints_a_file_that_check_takes(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "sync.yaml", tmp_path / "nightly.yaml"
    theirs.write_text("quay.io:\n  tls-verify: false\n  images: {coreos/etcd: [latest]}\n")
    result = ocimirror("config", "import", theirs, "--to", "mirror.local/base")
    assert result.code == 0
    assert result.stderr.startswith(f"note: {theirs}, line 2: tls-verify: false is not carried")
    ours.write_bytes(result.raw)
    checked = ocimirror("config", "check", ours)
    assert "quay.io/coreos/etcd -> mirror.local/base/etcd" in checked.stdout


def test_import_has_a_document(tmp_path: Path) -> None:
    theirs = tmp_path / "regsync.yaml"
    theirs.write_text("sync: [{source: a.b/c, target: d.e/c, type: image, schedule: x}]\n")
    document = ocimirror("config", "import", theirs, "--json").document
    assert (document["action"], document["tool"]) == ("import", "regsync")
    assert [note["line"] for note in document["notes"]] == [1]
    assert "from: a.b/c:latest" in document["config"]


def test_without_the_extra_it_is_said_what_to_install() -> None:
    script = (
        "import sys; sys.modules['yaml'] = None\n"
        "from ocimirror.cli import main; main(['config', 'schema'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'ocimirror[sync]'" in done.stderr


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("platforms: linux/amd64", "Write it as [linux/amd64]."),
        ("prune: {grace: 7}", "Write 90s, 15m, 1h30m, 7d or 2w."),
        ("tags: [1.10]", 'Write "1.10".'),
        ("\tpriority: 1", "Indent with spaces."),
    ],
)
def test_a_hint_is_what_can_be_written_instead(tmp_path: Path, text: str, hint: str) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(f"mirrors:\n  - from: alpine\n    to: a.b/c\n    {text}\n")
    told = ocimirror("config", "check", path, "--json").document["faults"]
    assert [fault["hint"] for fault in told] == [hint]


def test_check_knows_that_docker_hub_has_no_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    for registry, noted in (("docker.io/library", True), ("quay.io/org", False)):
        path.write_text(f"mirrors:\n  - from: {registry}/*\n    to: a.b/{{repository}}\n")
        told = ocimirror("config", "check", path)
        assert (told.code, "no catalogue" in told.stdout) == (0, noted)
