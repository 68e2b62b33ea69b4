"""Which repositories an entry reads, and that its images go nowhere else than it says."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.errors import InvalidReference, UsageError
from ocimirror.model.digest import Digest
from ocimirror.sync.patterns import SourcePattern, Target

DIGEST = Digest.parse("sha256:" + "a" * 64)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("alpine", "docker.io/library/alpine"),
        ("docker://quay.io/org/app", "quay.io/org/app"),
        ("index.docker.io/org/app:1", "docker.io/org/app:1"),
        (f"quay.io/org/app:1@{DIGEST}", f"quay.io/org/app:1@{DIGEST}"),
        ("quay.io/org/*", "quay.io/org/*"),
        ("localhost:5000/*", "localhost:5000/*"),
    ],
)
def test_a_source_is_a_repository_an_image_or_all_below_a_prefix(text: str, normal: str) -> None:
    source = SourcePattern.parse(text)
    assert str(source) == normal
    assert SourcePattern.parse(str(source)) == source


@pytest.mark.parametrize(
    "text", ["library/*", "*", "quay.io/*/app", "quay.io/org*", "quay.io/o/**", "quay.io/*:1", ""]
)
def test_other_stars_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        SourcePattern.parse(text)


def test_a_pattern_matches_what_is_below_its_prefix() -> None:
    pattern = SourcePattern.parse("quay.io/org/*")
    names = ["org/app", "org/team/app", "org", "organ/app", "org/../x", "org/App", "other/org/app"]
    assert [name for name in names if pattern.matches(name)] == ["org/app", "org/team/app"]
    assert SourcePattern.parse("quay.io/*").matches("app")
    assert not SourcePattern.parse("quay.io/*").matches("../app")


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("mirror.local/app", "docker://mirror.local/app:1.2"),
        ("docker://mirror.local:5000/app", "docker://mirror.local:5000/app:1.2"),
        ("mirror.local/{repository}", "docker://mirror.local/org/app:1.2"),
        ("mirror.local/{registry}/{repository}", "docker://mirror.local/quay.io_443/org/app:1.2"),
        ("mirror.local/app:v{tag}", "docker://mirror.local/app:v1.2"),
        ("mirror.local/app-{tag}:x", "docker://mirror.local/app-1.2:x"),
        ("localhost/app", "docker://localhost/app:1.2"),
        ("oci:/srv/all", "oci:/srv/all:quay.io:443/org/app:1.2"),
        ("oci:{registry}/{repository}", "oci:base/quay.io_443/org/app:quay.io:443/org/app:1.2"),
        ("oci:../up/{tag}", "oci:base/../up/1.2:quay.io:443/org/app:1.2"),
    ],
)
def test_a_target_is_filled_in(text: str, location: str) -> None:
    resolved = Target.parse(text, "base").resolve("quay.io:443", "org/app", "1.2")
    assert str(resolved) == location


def test_an_image_without_a_tag_goes_by_its_digest() -> None:
    for text, location in [
        ("mirror.local/app", "docker://mirror.local/app"),
        ("mirror.local/app:stable", "docker://mirror.local/app:stable"),
        ("oci:/srv", f"oci:/srv:quay.io/org/app@{DIGEST}"),
    ]:
        assert str(Target.parse(text).resolve("quay.io", "org/app", "", DIGEST)) == location
    with pytest.raises(InvalidReference, match="has no tag"):
        Target.parse("oci:/srv/{tag}").resolve("quay.io", "org/app", "", DIGEST)


def test_braces_in_the_name_of_a_directory_are_no_fields() -> None:
    location = Target.parse("oci:x", "/srv/{tag}{y}").resolve("quay.io", "org/app", "1")
    assert location.path == "/srv/{tag}{y}/x"


@pytest.mark.parametrize(
    "text",
    [
        "app",
        "org/app",
        "mirror.local",
        "mirror.local/",
        "{registry}/app",
        "{registry}.local/app",
        "mirror.local/App",
        "mirror.local/app:",
        f"mirror.local/app@{DIGEST}",
        "mirror.local/{name}",
        "mirror.local/{repository",
        "mirror.local/../x",
        "mirror.local/x:{repository}/y",
        "oci:",
        "oci:x:y",
        "oci:x\0y",
        "oci-archive:x.tar",
        "docker-archive:x.tar",
        "dir:/srv",
        "https://mirror.local/app",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Target.parse(text)


@pytest.mark.parametrize(
    ("registry", "repository", "tag"),
    [
        ("quay.io", "../../etc", "1"),
        ("quay.io", "a/../b", "1"),
        ("quay.io", "/etc", "1"),
        ("quay.io", "a//b", "1"),
        ("quay.io", "a\0b", "1"),
        ("quay.io", "{tag}", "1"),
        ("quay.io", "", "1"),
        ("quay.io", "app", ".."),
        ("quay.io", "app", "a/b"),
        ("quay.io", "app", "a:b"),
        ("../x", "app", "1"),
        ("quay.io/x", "app", "1"),
        ("", "app", "1"),
    ],
)
@pytest.mark.parametrize(
    "text", ["oci:/srv/{registry}/{repository}/{tag}", "m.local/app", "oci:/x"]
)
def test_hostile_names_from_a_registry_are_refused(
    text: str, registry: str, repository: str, tag: str
) -> None:
    with pytest.raises(InvalidReference):
        Target.parse(text).resolve(registry, repository, tag)


@pytest.mark.parametrize("name", ["blobs", "index.json", "index.json.prev", "oci-layout"])
def test_no_name_leads_among_the_files_of_another_layout(name: str) -> None:
    for text, repository, tag in (
        ("oci:/srv/{repository}", f"app/{name}/sha256", "1"),
        ("oci:/srv/{registry}/{repository}", f"team/app/{name}", "1"),
        ("oci:/srv/{repository}/{tag}", "app", name),
    ):
        with pytest.raises(InvalidReference, match="another image's layout"):
            Target.parse(text).resolve("quay.io", repository, tag)
    for text, repository in (
        ("oci:/srv/{repository}", f"{name}/app"),
        ("oci:/srv/app", f"app/{name}"),
        (f"oci:/srv/{{registry}}/{name}/{{repository}}", "app"),
        ("mirror.local/{repository}", f"app/{name}"),
    ):
        Target.parse(text).resolve("quay.io", repository, "1")


@given(
    st.text() | st.from_regex(r"[a-z0-9./:_-]{1,20}", fullmatch=True),
    st.text() | st.from_regex(r"[a-z0-9./_-]{1,20}", fullmatch=True),
    st.text() | st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True),
    st.sampled_from(
        ["{registry}/{repository}/{tag}", ".{tag}", "{repository}.{tag}", "{registry}"]
    ),
)
def test_no_name_leads_out_of_the_path(
    registry: str, repository: str, tag: str, template: str
) -> None:
    try:
        location = Target.parse(f"oci:/srv/{template}").resolve(registry, repository, tag)
    except InvalidReference:
        return
    path = PurePosixPath(location.path)
    assert path.is_relative_to("/srv")
    assert ".." not in path.parts
