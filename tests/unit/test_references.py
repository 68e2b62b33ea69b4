"""References and locations: Docker's normalisation, and the places of the command line."""

from __future__ import annotations

import pytest

from ocimirror import Digest, InvalidReference, Location, NetworkOptions, Reference, Registry

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"

REFERENCES = {
    "alpine": "docker.io/library/alpine",
    "alpine:3.19": "docker.io/library/alpine:3.19",
    f"alpine@{DIGEST}": f"docker.io/library/alpine@{DIGEST}",
    f"alpine:3.19@{DIGEST}": f"docker.io/library/alpine:3.19@{DIGEST}",
    "grafana/grafana": "docker.io/grafana/grafana",
    "my-registry/app": "docker.io/my-registry/app",
    "a/b/c": "docker.io/a/b/c",
    "docker.io/alpine": "docker.io/library/alpine",
    "docker.io/grafana/grafana:1": "docker.io/grafana/grafana:1",
    "index.docker.io/alpine:1": "docker.io/library/alpine:1",
    "registry-1.docker.io/library/alpine": "docker.io/library/alpine",
    "INDEX.docker.io/alpine": "docker.io/library/alpine",
    "localhost/app": "localhost/app",
    "localhost:5000/app:v1": "localhost:5000/app:v1",
    "127.0.0.1:5000/a/b:c": "127.0.0.1:5000/a/b:c",
    "[::1]:5000/app": "[::1]:5000/app",
    "[::1]/app": "[::1]/app",
    "host:5000/app": "host:5000/app",
    "ghcr.io/org/app:v1": "ghcr.io/org/app:v1",
    "GHCR.io/org/app": "ghcr.io/org/app",
    "quay.io/a/b/c/d": "quay.io/a/b/c/d",
    "ghcr.io/a__b/c---d/e.f_g": "ghcr.io/a__b/c---d/e.f_g",
    "ghcr.io/app": "ghcr.io/app",
    "MYHOST/app:v1": "MYHOST/app:v1",
    "MyHost/app": "MyHost/app",
    "MYHOST:5000/app": "myhost:5000/app",
    "LOCALHOST/app": "localhost/app",
    "[2001:DB8::1]:5000/app:v1": "[2001:db8::1]:5000/app:v1",
    f"docker.io/{HEX}": f"docker.io/library/{HEX}",
    f"{HEX}:v1": f"docker.io/library/{HEX}:v1",
    "alpine:_V1.0-rc": "docker.io/library/alpine:_V1.0-rc",
}

NO_REFERENCES = [
    "",
    " ",
    "Alpine",
    "al pine",
    "alpine\n",
    "alpine:",
    "alpine:-x",
    "alpine:.x",
    "alpine:a b",
    "alpine:a\n",
    "alpine:" + "a" * 129,
    "alpine:v1:v2",
    "alpine@",
    "alpine@v1",
    "alpine@sha256:short",
    f"alpine@{DIGEST}\n",
    f"alpine@{DIGEST}@{DIGEST}",
    f"@{DIGEST}",
    "/alpine",
    "alpine/",
    "a//b",
    "-a",
    "a-",
    "a..b",
    "a___b",
    "a._b",
    "../alpine",
    "ghcr.io/",
    "ghcr.io/../alpine",
    "ghcr.io/%2e%2e/alpine",
    "ghcr.io/Org/app",
    "ghcr.io/org/app?x=1",
    "ghcr.io/org/app#x",
    "https://ghcr.io/org/app",
    "docker://ghcr.io/org/app",
    "user@ghcr.io/org/app",
    "user:secret@ghcr.io/org/app",
    "ghcr.io:/org/app",
    "ghcr.io:0/org/app",
    "ghcr.io:65536/org/app",
    "ghcr.io:http/org/app",
    "ghcr..io/org/app",
    ".ghcr.io/org/app",
    "ghcr_io.example/org/app",
    "[::1/app",
    "[1::2::3]/app",
    "[1::2::3]:5000/app",
    "[12345::1]/app",
    "[1:2]/app",
    "[fe80::1%eth0]:5000/app",
    "[2001:db8:3:4::192.0.2.33]:5000/app",
    "fc00::1:5000/app",
    "[::1]",
    "[::1]:5000",
    "docker/Docker",
    "MY_HOST/app",
    "MYHOST/App",
    HEX,
    "alpine@unknown:abc123",
    f"alpine@blake3:{HEX}",
    f"alpine@sha256:{HEX[:63]}",
    f"alpine@sha256:{HEX.upper()}",
    f"alpine@SHA256:{HEX}",
    f"alpine@sha512:{HEX}",
    "a" * 256,
    "ghcr.io/" + "a/" * 130 + "a",
    "é/app",
    "ghcr.io/café",
    "alpine\0",
]


@pytest.mark.parametrize(("text", "normal"), REFERENCES.items())
@pytest.mark.bar("hub-names")
def test_a_reference_is_normalised_as_docker_does(text: str, normal: str) -> None:
    assert str(Reference.parse(text)) == normal
    assert Reference.parse(normal) == Reference.parse(text)


@pytest.mark.parametrize("text", NO_REFERENCES, ids=lambda text: ascii(text)[:40])
def test_what_is_no_reference_is_a_usage_error(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()


def test_a_reference_has_parts() -> None:
    reference = Reference.parse(f"localhost:5000/team/app:v1@{DIGEST}")
    assert (reference.registry, reference.repository) == ("localhost:5000", "team/app")
    assert (reference.tag, reference.digest) == ("v1", Digest.parse(DIGEST))
    assert reference.name == "localhost:5000/team/app"


@pytest.mark.parametrize(
    ("text", "read"),
    [("alpine", "latest"), ("alpine:3", "3"), (f"alpine:3@{DIGEST}", DIGEST)],
)
def test_the_digest_is_read_before_the_tag_and_the_tag_before_latest(text: str, read: str) -> None:
    assert Reference.parse(text).read_name == read


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
    ],
)
def test_a_reference_with_neither_tag_nor_digest_is_latest(text: str, readable: str) -> None:
    assert str(Reference.parse(text).readable()) == readable


@pytest.mark.parametrize("tag", ["latest", "v1.0", "_x", "A-b.c_d", "a" * 128])
def test_a_tag_fits_the_grammar(tag: str) -> None:
    assert Reference.parse(f"a.example.com/app:{tag}").tag == tag


@pytest.mark.parametrize("text", ["", ".x", "-x", "a/b", "a:b", "a b", "a\n", "é", "a" * 129])
def test_other_text_is_no_tag(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(f"a.example.com/app:{text}")


@pytest.mark.parametrize(
    "text", ["", "host/path", "http://host", "ho st", "host:", "host\n", "a@b"]
)
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Registry(text, NetworkOptions())


@pytest.mark.parametrize("text", ["", "/a", "a/", "A", "a@b", "a\n", "../a", "a" * 256])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with Registry("a.example.com", NetworkOptions()) as registry, pytest.raises(InvalidReference):
        registry[text]


LOCATIONS = [
    ("docker://alpine", "docker", "", "", "latest"),
    ("docker://ghcr.io/org/app:v1", "docker", "", "", "v1"),
    (f"docker://ghcr.io/org/app:v1@{DIGEST}", "docker", "", "", DIGEST),
    ("oci:layout", "oci", "layout", "", ""),
    ("oci:layout:v1", "oci", "layout", "v1", "v1"),
    ("oci:/srv/layout:ghcr.io/org/app:v1", "oci", "/srv/layout", "ghcr.io/org/app:v1", None),
    ("oci:layout:alpine", "oci", "layout", "alpine", "alpine"),
    (f"oci:layout:@{DIGEST}", "oci", "layout", "", DIGEST),
    (f"oci:layout:alpine@{DIGEST}", "oci", "layout", f"alpine@{DIGEST}", None),
    ("oci:./a/b@c", "oci", "./a/b@c", "", ""),
    ("oci-archive:a.tar", "oci-archive", "a.tar", "", ""),
    ("oci-archive:a.tar:v1", "oci-archive", "a.tar", "v1", "v1"),
    ("oci-archive:-", "oci-archive", "-", "", ""),
    (f"oci-archive:/a.tar:@{DIGEST}", "oci-archive", "/a.tar", "", DIGEST),
    ("/srv/layout", "oci", "/srv/layout", "", ""),
    ("./layout:v1", "oci", "./layout", "v1", "v1"),
    ("../layout", "oci", "../layout", "", ""),
    (".", "oci", ".", "", ""),
    ("..", "oci", "..", "", ""),
    (f"/srv/layout:@{DIGEST}", "oci", "/srv/layout", "", DIGEST),
]


@pytest.mark.parametrize(("text", "scheme", "path", "name", "read"), LOCATIONS)
def test_a_location_says_where_and_which(
    text: str, scheme: str, path: str, name: str, read: str | None
) -> None:
    location = Location.parse(text)
    assert (location.scheme, location.path, location.name) == (scheme, path, name)
    assert location.read_name == (name if read is None else read)
    assert Location.parse(str(location)) == location


@pytest.mark.parametrize(
    "text",
    [
        "",
        "layout",
        "layout:v1",
        "alpine:3.19",
        "ghcr.io/org/app",
        "oci:",
        "oci::v1",
        f"oci::@{DIGEST}",
        f"oci:a:b:@{DIGEST}",
        "oci:a\0b",
        "oci-archive:",
        "docker:",
        "docker:alpine",
        "docker://",
        "docker:///alpine",
        "dir:layout",
        "http://host/a",
        "OCI:layout",
        "\x1b[2Joci:layout",
    ],
    ids=ascii,
)
def test_what_is_no_location_is_a_usage_error(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Location.parse(text)
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()


def test_a_path_with_a_colon_is_explained() -> None:
    with pytest.raises(InvalidReference, match="a path with a colon cannot be written"):
        Location.parse(f"oci:a:b:@{DIGEST}")
