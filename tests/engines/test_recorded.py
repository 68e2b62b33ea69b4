"""What engines say that Debian does not have, in recorded shapes: Docker 24 to 29, containerd 2.

The facts are those of the containerd store: `Id` is the digest that the name stands for,
RepoDigests are computed from it, and RootFS tells of one platform. Each engine is asked once
about a layout that has an image for each case.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.test_load import ALL_KEPT, parts
from tests.support import images
from tests.support.command import Result, environment, ocimirror
from tests.support.images import Graph
from tests.support.recorded import Answer, Fails, Runs, asked, recorded

HOST = "reg.example.com"
INFO_29C: dict[str, Any] = {
    "ServerVersion": "29.7.2",
    "Driver": "overlayfs",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "Architecture": "x86_64",
    "OSType": "linux",
}
INFO_29G: dict[str, Any] = {
    **INFO_29C,
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
}
ZEROS = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Platform:
    """The image of one platform in a graph."""

    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What `--platform` takes."""
        return "/".join(
            self.config[key] for key in ("os", "architecture", "variant") if key in self.config
        )

    @property
    def image_id(self) -> str:
        """The digest of the config."""
        return str(self.manifest["config"]["digest"])

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the unpacked layers."""
        return list(self.config["rootfs"]["diff_ids"])


@dataclass(frozen=True)
class Named:
    """An image of the layout under its name."""

    name: str
    graph: Graph

    @property
    def repository(self) -> str:
        """The name without its tag."""
        return self.name.rpartition(":")[0]

    def by_digest(self, digest: str = "") -> str:
        """Return the name with a digest, by default the root's."""
        return f"{self.repository}@{digest or self.graph.root}"

    @property
    def platforms(self) -> list[Platform]:
        """The platforms, in the order of the index."""
        root = json.loads(self.graph.raw)
        digests = [self.graph.root]
        if "manifests" in root:
            children = [c for c in root["manifests"] if "annotations" not in c]
            digests = [child["digest"] for child in children]
        found = []
        for digest in digests:
            manifest = json.loads(self.graph.manifests[digest][1])
            config = json.loads(self.graph.blobs[manifest["config"]["digest"]])
            found.append(Platform(digest, manifest, config))
        return found

    def inspected(self, platform: Platform, **changes: object) -> bytes:
        """Return what `docker image inspect` of the containerd store says of a platform."""
        found = {
            "Id": self.graph.root,
            "RepoTags": [self.name],
            "RepoDigests": [self.by_digest()],
            "Os": platform.config.get("os", ""),
            "Architecture": platform.config.get("architecture", ""),
            "Variant": platform.config.get("variant", ""),
            "RootFS": {"Type": "layers", "Layers": platform.diff_ids},
            "Descriptor": {"digest": self.graph.root},
            **changes,
        }
        return json.dumps([found]).encode()

    def answers(self, found: bytes) -> dict[str, Answer]:
        """Return what a docker says that has one record: by tag, and by the root."""
        return {
            f"image inspect {self.name}": found,
            f"image inspect {self.by_digest()}": found,
        }

    def of_platform(self, platform: Platform, answer: Answer) -> dict[str, Answer]:
        """Return an answer about one platform of the image."""
        return {f"image inspect --platform {platform.name} {self.name}": answer}


def index_of(*platforms: Mapping[str, str], same_layers: bool = False) -> Graph:
    """Make an index; each platform has layers of its own, or all have the same."""
    builder = images.Builder()
    seeds = ["same"] * len(platforms) if same_layers else range(len(platforms))
    pairs = zip(seeds, platforms, strict=True)
    return builder.graph(builder.index([images.add_image(builder, n, p) for n, p in pairs]))


def without_platform() -> Graph:
    """Make an image whose config names no platform."""
    builder = images.Builder()
    return builder.graph(images.add_image(builder, 1, {}))


# --- Docker's containerd store ----------------------------------------------------------------


def every_platform(image: Named) -> dict[str, Answer]:
    """Each platform is told of, but no manifest is found by its digest."""
    first, *others = image.platforms
    answers = image.answers(image.inspected(first))
    for other in others:
        answers |= image.of_platform(other, image.inspected(other))
    return answers


def every_digest(image: Named) -> dict[str, Answer]:
    answers = every_platform(image)
    for platform in image.platforms:
        found = image.inspected(platform)
        answers[f"image inspect {image.by_digest(platform.digest)}"] = found
    return answers


def first_platform(image: Named) -> dict[str, Answer]:
    """As after `docker pull`, which takes one platform and the index."""
    return image.answers(image.inspected(image.platforms[0]))


def before_28_1(image: Named) -> dict[str, Answer]:
    """A docker that cannot be asked of platforms."""
    answers = first_platform(image)
    for other in image.platforms[1:]:
        answers |= image.of_platform(other, Fails("unknown flag: --platform", 125))
    return answers


def id_of_the_config(image: Named) -> dict[str, Answer]:
    (platform,) = image.platforms
    return image.answers(image.inspected(platform, Id=platform.image_id))


def digests_of_another_repository(image: Named) -> dict[str, Answer]:
    elsewhere = [f"other.example.com/x@{image.graph.root}"]
    return {
        f"image inspect {image.name}": image.inspected(image.platforms[0], RepoDigests=elsewhere)
    }


def shortened(image: Named) -> dict[str, Answer]:
    digests = [f"alpine@{image.graph.root}"]
    return image.answers(image.inspected(image.platforms[0], RepoDigests=digests))


def one_of_a_platform(image: Named) -> dict[str, Answer]:
    """Of two manifests for one platform, docker tells of one."""
    found = image.inspected(image.platforms[0])
    return image.answers(found) | image.of_platform(image.platforms[0], found)


def nothing(_: Named) -> dict[str, Answer]:
    return {}


WINDOWS = {"os": "windows", "architecture": "amd64", "os.version": "1"}
CASES: dict[str, tuple[Callable[[], Graph], Callable[[Named], dict[str, Answer]]]] = {
    f"{HOST}/told:1.0": (images.multi, every_platform),
    f"{HOST}/known:1.0": (images.multi, every_digest),
    f"{HOST}/pulled:1.0": (images.multi, first_platform),
    f"{HOST}/untold:1.0": (images.multi, before_28_1),
    f"{HOST}/alike:1.0": (
        lambda: index_of(*images.PLATFORMS[:2], same_layers=True),
        first_platform,
    ),
    f"{HOST}/config:1.0": (images.single, id_of_the_config),
    f"{HOST}/elsewhere:1.0": (images.multi, digests_of_another_repository),
    "docker.io/library/alpine:3.19": (images.single, shortened),
    f"{HOST}/absent:1.0": (images.multi, nothing),
    f"{HOST}/twins:1.0": (lambda: index_of(WINDOWS, WINDOWS), first_platform),
    f"{HOST}/same:1.0": (
        lambda: index_of(images.PLATFORMS[0], images.PLATFORMS[0]),
        one_of_a_platform,
    ),
    f"{HOST}/nowhere:1.0": (without_platform, first_platform),
    f"{HOST}/nested:1.0": (images.nested_index, nothing),
    f"{HOST}/artifact:1.0": (images.artifact, nothing),
    f"{HOST}/layerless:1.0": (images.artifact_without_layers, nothing),
    f"{HOST}/damaged:1.0": (images.docker_schema2, nothing),
    f"{HOST}/another@{ZEROS}": (images.single, nothing),
    f"{HOST}/another:1@{ZEROS}": (images.single, nothing),
}
IMAGES = {name: Named(name, make()) for name, (make, _) in CASES.items()}


class Audit:
    """One run of `verify --in`, and what each image's receipt says."""

    def __init__(self, result: Result, directory: Path) -> None:
        self.result = result
        self.asked = asked(directory)

    def receipt(self, name: str) -> dict[str, Any]:
        """Return the one receipt of an image."""
        (found,) = (r for r in self.result.document["receipts"] if r["image"] == name)
        return dict(found)

    def failures(self, name: str) -> list[str]:
        """Return the codes of an image's failures."""
        failures = self.result.document["failures"]
        return [f["error"]["code"] for f in failures if f["image"] == name]


@pytest.fixture(scope="module")
def containerd_store(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Ask a docker 29 with the containerd store about all images of a layout."""
    directory = tmp_path_factory.mktemp("docker")
    layout = images.write_layout(directory / "L", {n: i.graph for n, i in IMAGES.items()})
    images.blob_path(layout, IMAGES[f"{HOST}/damaged:1.0"].graph.root).write_bytes(b"damaged")
    answers: dict[str, Answer] = {"info --format {{json .}}": json.dumps(INFO_29C).encode()}
    for name, (_, answer) in CASES.items():
        answers |= answer(IMAGES[name])
    env = recorded(directory / "bin", "docker", answers)
    return Audit(
        ocimirror("verify", layout, "--in", "docker", "--json", env=env), directory / "bin"
    )


def labels(image: Named) -> list[str]:
    """Return how receipts call the platforms of an image."""
    return [platform.name for platform in image.platforms]


def test_an_image_that_every_platform_was_asked_of_is_kept(containerd_store: Audit) -> None:
    image = IMAGES[f"{HOST}/told:1.0"]
    receipt = containerd_store.receipt(image.name)
    assert (receipt["store"], receipt["engine_version"]) == ("containerd", "29.7.2")
    assert parts(receipt) == ("kept", "kept", "lost", "differs_by_design")
    assert receipt["platforms"] == {"kept": labels(image), "asked": labels(image)}
    for platform in image.platforms:
        assert image.by_digest(platform.digest) in receipt["notes"][0]


def test_an_image_that_is_found_by_each_digest_is_whole(containerd_store: Audit) -> None:
    image = IMAGES[f"{HOST}/known:1.0"]
    receipt = containerd_store.receipt(image.name)
    assert parts(receipt) == ("kept", "kept", "kept", "differs_by_design")
    assert receipt["platforms"] == {"kept": labels(image), "asked": labels(image)}
    assert receipt["notes"] == []


def test_a_platform_that_docker_does_not_have_is_not_kept(containerd_store: Audit) -> None:
    image = IMAGES[f"{HOST}/pulled:1.0"]
    receipt = containerd_store.receipt(image.name)
    assert receipt["platforms"] == {"kept": labels(image)[:1], "asked": labels(image)}


def test_a_docker_that_tells_of_one_platform_is_not_believed_of_others(
    containerd_store: Audit,
) -> None:
    image = IMAGES[f"{HOST}/untold:1.0"]
    receipt = containerd_store.receipt(image.name)
    assert receipt["platforms"] == {"kept": labels(image)[:1], "asked": labels(image)[:1]}
    assert all(label in receipt["notes"][0] for label in labels(image)[1:])


def test_platforms_with_the_same_layers_are_told_apart(containerd_store: Audit) -> None:
    image = IMAGES[f"{HOST}/alike:1.0"]
    one, other = image.platforms
    assert one.diff_ids == other.diff_ids
    assert containerd_store.receipt(image.name)["platforms"]["kept"] == [one.name]


def test_the_image_id_of_the_other_store_is_no_proof_here(containerd_store: Audit) -> None:
    receipt = containerd_store.receipt(f"{HOST}/config:1.0")
    assert parts(receipt) == ("moved", "not_applicable", "lost", "lost")
    assert receipt["platforms"] == {"kept": [], "asked": ["linux/amd64"]}


def test_digests_of_another_repository_are_not_this_ones(containerd_store: Audit) -> None:
    receipt = containerd_store.receipt(f"{HOST}/elsewhere:1.0")
    assert parts(receipt) == ("kept", "lost", "lost", "differs_by_design")


def test_docker_shortens_names_of_docker_io(containerd_store: Audit) -> None:
    receipt = containerd_store.receipt("docker.io/library/alpine:3.19")
    assert parts(receipt) == ("kept", "not_applicable", "kept", "differs_by_design")
    assert receipt["platforms"] == {"kept": ["linux/amd64"], "asked": ["linux/amd64"]}


def test_an_absent_image_has_lost_everything(containerd_store: Audit) -> None:
    receipt = containerd_store.receipt(f"{HOST}/absent:1.0")
    assert parts(receipt) == ("lost", "lost", "lost", "lost")
    assert receipt["platforms"]["kept"] == []


def test_two_images_of_one_platform_are_counted_twice(containerd_store: Audit) -> None:
    receipt = containerd_store.receipt(f"{HOST}/twins:1.0")
    assert receipt["platforms"] == {
        "kept": ["windows(1)/amd64"],
        "asked": ["windows(1)/amd64", "windows(1)/amd64"],
    }


def test_of_two_images_of_one_platform_docker_does_not_tell_of_the_other(
    containerd_store: Audit,
) -> None:
    receipt = containerd_store.receipt(f"{HOST}/same:1.0")
    assert receipt["platforms"] == {"kept": ["linux/amd64"], "asked": ["linux/amd64"]}
    assert "does not tell" in receipt["notes"][0]


def test_a_config_without_a_platform_is_called_unknown(containerd_store: Audit) -> None:
    receipt = containerd_store.receipt(f"{HOST}/nowhere:1.0")
    assert receipt["platforms"] == {"kept": ["unknown"], "asked": ["unknown"]}


def test_what_runs_nothing_is_told_from_what_cannot_be_read(containerd_store: Audit) -> None:
    receipts = {receipt["image"] for receipt in containerd_store.result.document["receipts"]}
    assert {f"{HOST}/told:1.0", f"{HOST}/nested:1.0"} <= receipts
    for name in (f"{HOST}/artifact:1.0", f"{HOST}/layerless:1.0"):
        assert name not in receipts
        assert containerd_store.failures(name) == []
        assert f"{name} is left out" in containerd_store.result.stderr
    assert containerd_store.failures(f"{HOST}/damaged:1.0") == ["size_mismatch"]


@pytest.mark.parametrize("name", [f"{HOST}/another@{ZEROS}", f"{HOST}/another:1@{ZEROS}"])
def test_a_name_by_another_digest_never_reaches_an_engine(
    containerd_store: Audit, name: str
) -> None:
    assert containerd_store.failures(name) == ["digest_mismatch"]
    assert not [question for question in containerd_store.asked if "another" in question]


# --- Docker's older store ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "info",
    [
        INFO_29G,
        {**INFO_29G, "DriverStatus": None},
        {key: value for key, value in INFO_29G.items() if key != "DriverStatus"},
    ],
)
def test_the_graphdriver_of_29_keeps_the_config(tmp_path: Path, info: dict[str, Any]) -> None:
    image = Named(f"{HOST}/multi:1.0", images.multi())
    own = image.platforms[0]
    found = image.inspected(own, Id=own.image_id, RepoDigests=[])
    answers = {
        "info --format {{json .}}": json.dumps(info).encode(),
        f"image inspect {image.name}": found,
    }
    layout = images.write_layout(tmp_path / "L", {image.name: image.graph})
    env = recorded(tmp_path / "bin", "docker", answers)
    result = ocimirror("verify", layout, "--in", "docker", "--json", env=env)
    (receipt,) = result.document["receipts"]
    assert receipt["store"] == "graphdriver"
    assert parts(receipt) == ("kept", "lost", "lost", "kept")
    assert receipt["platforms"] == {"kept": ["linux/amd64"], "asked": ["linux/amd64"]}


# --- containerd -------------------------------------------------------------------------------

CTR_2 = """Client:
  Version:  v2.3.4
  Revision: 1c4457e00facac03ce1d75f7b6777a7a851e5c41
  Go version: go1.25.1

Server:
  Version:  v2.3.4
  Revision: 1c4457e00facac03ce1d75f7b6777a7a851e5c41
  UUID: 5e25e4ef-c9ff-4b4c-8b8a-5e4a1d0b2b2a
"""
CTR_16 = "Client:\n  Version:  1.6.20~ds1\n  Revision: x\n\nServer:\n  Version:  1.6.20~ds1\n"
CTR = "--connect-timeout 3s"


def several(seed: str) -> Graph:
    """Make an index of three platforms that shares no manifest with another one."""
    builder = images.Builder()
    children = [images.add_image(builder, (seed, n), p) for n, p in enumerate(images.PLATFORMS)]
    return builder.graph(builder.index(children))


def twice() -> Graph:
    """Make an index of two platforms with the same layers under two media types."""
    builder = images.Builder()
    children = [images.add_image(builder, "same", images.PLATFORMS[0])]
    document = json.loads(builder.manifests[children[0]["digest"]][1])
    for layer in document["layers"]:
        layer["mediaType"] = images.DOCKER_LAYER_GZIP
    other = builder.manifest(images.compact(document), images.OCI_MANIFEST)
    children.append({**other, "platform": dict(images.PLATFORMS[1])})
    return builder.graph(builder.index(children))


class Namespace:
    """The records and the content of a containerd, as `ctr` lists them."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.content: dict[str, list[str]] = {}

    def add(self, image: Named) -> None:
        """Add an image with the records and labels that a self-naming import gives it."""
        digests = [image.graph.root, *(platform.digest for platform in image.platforms)]
        self.records |= {image.name: image.graph.root}
        self.records |= {image.by_digest(digest): digest for digest in digests}
        for digest in image.graph.blobs:
            self.content.setdefault(digest, [])
        for digest, (_, raw) in image.graph.manifests.items():
            document = json.loads(raw)
            children = [*document.get("manifests", ()), *document.get("layers", ())]
            children += [document["config"]] if "config" in document else []
            self.content[digest] = [child["digest"] for child in children]

    def answers(self, version: str = CTR_2) -> dict[str, Answer]:
        """Return what `ctr` prints."""
        named = [f"{n} application/x {d} 1 MiB linux/amd64 -" for n, d in self.records.items()]
        held = []
        for digest, kept in self.content.items():
            texts = [f"containerd.io/gc.ref.content.{n}={d}" for n, d in enumerate(kept)]
            held.append(f"{digest}\t1 kB\t1 minute\t{','.join(texts) or '-'}")
        return {
            f"{CTR} version": version.encode(),
            f"{CTR} images ls": "\n".join(["REF TYPE DIGEST", *named, ""]).encode(),
            f"{CTR} content ls": "\n".join(["DIGEST\tSIZE\tAGE\tLABELS", *held, ""]).encode(),
        }


CONTAINERD = {
    name: Named(f"{HOST}/{name}:1.0", graph)
    for name, graph in {
        "whole": several("whole"),
        "collected": several("collected"),
        "moved": several("moved"),
        "circle": several("circle"),
        "twice": twice(),
    }.items()
}


@pytest.fixture(scope="module")
def in_containerd(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Ask a containerd about all images of a layout."""
    directory = tmp_path_factory.mktemp("ctr")
    held = Namespace()
    for image in CONTAINERD.values():
        held.add(image)
    # What the next garbage collection takes: neither records nor labels keep all platforms.
    image = CONTAINERD["collected"]
    first, *others = image.platforms
    for other in others:
        del held.records[image.by_digest(other.digest)]
    held.content[image.graph.root] = [first.digest]
    # The name stands for another image.
    image = CONTAINERD["moved"]
    held.records = {n: d for n, d in held.records.items() if not n.startswith(image.repository)}
    held.records[image.name] = ZEROS
    held.content[ZEROS] = []
    # Labels may lead anywhere.
    image = CONTAINERD["circle"]
    held.content[image.platforms[0].digest].append(image.graph.root)
    # One layer is not there.
    del held.content[CONTAINERD["twice"].platforms[0].manifest["layers"][1]["digest"]]
    layout = images.write_layout(
        directory / "L", {image.name: image.graph for image in CONTAINERD.values()}
    )
    env = recorded(directory / "bin", "ctr", held.answers())
    result = ocimirror("verify", layout, "--in", "containerd", "--json", env=env)
    return Audit(result, directory / "bin")


@pytest.mark.parametrize("name", ["whole", "circle"])
def test_containerd_with_records_and_labels_keeps_everything(
    in_containerd: Audit, name: str
) -> None:
    receipt = in_containerd.receipt(CONTAINERD[name].name)
    assert (parts(receipt), receipt["engine_version"]) == (ALL_KEPT, "v2.3.4")
    assert receipt["platforms"] == dict.fromkeys(("kept", "asked"), labels(CONTAINERD[name]))


def test_content_that_the_next_garbage_collection_takes_is_not_kept(in_containerd: Audit) -> None:
    image = CONTAINERD["collected"]
    assert in_containerd.receipt(image.name)["platforms"]["kept"] == labels(image)[:1]


def test_content_under_the_record_of_another_image_is_moved(in_containerd: Audit) -> None:
    receipt = in_containerd.receipt(CONTAINERD["moved"].name)
    assert parts(receipt) == ("moved", "lost", "lost", "lost")


def test_a_layer_under_two_media_types_is_asked_for_in_both_images(in_containerd: Audit) -> None:
    assert in_containerd.receipt(CONTAINERD["twice"].name)["platforms"]["kept"] == []


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_a_layer_under_two_media_types_goes_into_either_image(
    tmp_path: Path, platform: str
) -> None:
    image = CONTAINERD["twice"]
    layout = images.write_layout(tmp_path / "L", {image.name: image.graph})
    take = Runs(f'for last; do :; done; cp "${{last#oci-archive:}}" {tmp_path}/it')
    answers = {"info --format json": b'{"host":{"arch":"amd64"},"version":{"Version":"5"}}'}
    env = recorded(
        tmp_path / "bin",
        "podman",
        {
            **answers,
            **{
                f"image inspect {name}": Fails("Error: image not known")
                for name in (
                    image.name,
                    image.by_digest(),
                    *(image.by_digest(p.digest) for p in image.platforms),
                )
            },
        },
        otherwise=take,
    )
    ocimirror("load", layout, "--into", "podman", "--platform", platform, env=env)
    number = ["linux/amd64", "linux/arm64"].index(platform)
    manifest = image.platforms[number].manifest
    wanted = {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    with tarfile.open(tmp_path / "it") as archive:
        carried = {name.replace("blobs/sha256/", "sha256:") for name in archive.getnames()}
    assert wanted | {image.platforms[number].digest} <= carried


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        (CTR_16, "1.6.20~ds1"),
        (f"{CTR_16}WARNING: version mismatch\n", "1.6.20~ds1"),
        (f"{CTR_2}WARNING: version mismatch\n", "v2.3.4"),
    ],
)
def test_the_version_is_the_servers(tmp_path: Path, printed: str, version: str) -> None:
    image = CONTAINERD["whole"]
    layout = images.write_layout(tmp_path / "L", {image.name: image.graph})
    env = recorded(tmp_path / "bin", "ctr", Namespace().answers(printed))
    result = ocimirror("verify", layout, "--in", "containerd", "--json", env=env)
    assert [receipt["engine_version"] for receipt in result.document["receipts"]] == [version]


def test_of_tag_and_digest_the_tag_is_the_name(tmp_path: Path) -> None:
    graph = images.single()
    layout = images.write_layout(tmp_path / "L", {f"{HOST}/x:1@{graph.root}": graph})
    answers = Namespace().answers()
    take = Runs(f"exec cat > {tmp_path}/it")
    env = recorded(tmp_path / "bin", "ctr", answers, otherwise=take)
    result = ocimirror("load", layout, "--into", "containerd", "--json", env=env)
    assert [receipt["image"] for receipt in result.document["receipts"]] == [f"{HOST}/x:1"]
    with tarfile.open(tmp_path / "it") as archive:
        file = archive.extractfile("index.json")
        assert file is not None
        assert f'"{HOST}/x:1"' in file.read().decode()


# --- CRI --------------------------------------------------------------------------------------


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message; content has fewer than 128 bytes, or 16384."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])
    return bytes([number << 3 | 2]) + length + content


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory):
    """A CRI runtime that has images under these IDs: `runtime({"name": "id"})` is its socket."""
    grpc = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    servers = []

    def run(ids: Mapping[str, str]) -> str:
        def status(request: bytes, _: object) -> bytes:
            found = [image_id for name, image_id in ids.items() if name.encode() in request]
            return field(1, field(1, found[0].encode())) if found else b""

        def version(_: bytes, __: object) -> bytes:
            return field(2, b"cri-o") + field(3, b"1.30.0")

        server = grpc.server(ThreadPoolExecutor(2))
        for service, method, answer in (
            ("RuntimeService", "Version", version),
            ("ImageService", "ImageStatus", status),
        ):
            handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
            generic = grpc.method_handlers_generic_handler(f"runtime.v1.{service}", handlers)
            server.add_generic_rpc_handlers([generic])
        socket = tmp_path_factory.mktemp("cri") / "s"
        server.add_insecure_port(f"unix://{socket}")
        server.start()
        servers.append(server)
        return str(socket)

    yield run
    for server in servers:
        server.stop(None).wait()


def test_cri_o_writes_image_ids_without_an_algorithm(tmp_path: Path, runtime) -> None:
    graph = images.single()
    config = str(json.loads(graph.raw)["config"]["digest"])
    names = {
        f"{HOST}/with:1": (config, ("kept", "kept")),
        f"{HOST}/bare:1": (config.partition(":")[2], ("kept", "kept")),
        f"{HOST}/other:1": ("b" * 64, ("moved", "lost")),
    }
    layout = images.write_layout(tmp_path / "L", dict.fromkeys(names, graph))
    socket = runtime({name: image_id for name, (image_id, _) in names.items()})
    result = ocimirror(
        "verify", layout, "--in", "cri", "--host", socket, "--json", env=environment()
    )
    told = {r["image"]: (r["tag"], r["config"]) for r in result.document["receipts"]}
    assert told == {name: expected for name, (_, expected) in names.items()}
    assert {r["store"] for r in result.document["receipts"]} == {"cri-o"}
