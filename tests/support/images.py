"""Byte-exact OCI content for tests, as plain data that owes nothing to the product.

A `Graph` is everything below one root. Every builder is deterministic: the same call gives the
same bytes on every machine, so gzip and zstd layers are written by hand with stored blocks (real
files of those formats, whose bytes depend on no library version).

`manifests` holds what a client pushes to `/manifests/`: image manifests and indexes, children
first. `blobs` holds the rest: configs, layers, and children whose media type is no manifest's.
Long, because it is a list of cases.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_LAYER_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
IN_TOTO = "application/vnd.in-toto+json"
DOCKER_ATTESTATION = "application/vnd.docker.attestation.manifest.v1+json"
UNKNOWN_CHILD = "application/vnd.example.unknown.v1+json"
BUILDKIT_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"

IMAGE_NAME_ANNOTATION = "io.containerd.image.name"
REF_NAME_ANNOTATION = "org.opencontainers.image.ref.name"

PLATFORMS: tuple[dict[str, str], ...] = (
    {"architecture": "amd64", "os": "linux"},
    {"architecture": "arm64", "os": "linux"},
    {"architecture": "arm", "os": "linux", "variant": "v7"},
)

Descriptor = dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """A root and what its manifests reach.

    Attributes:
        blobs: digest → bytes of everything that is not pushed as a manifest.
        manifests: digest → (media type, raw bytes), children before parents.
        root: digest of the root, which is a key of `manifests`.
        root_media_type: media type of the root.
        absent: digests that descriptors name and that this graph does not hold: foreign layers.
    """

    blobs: dict[str, bytes]
    manifests: dict[str, tuple[str, bytes]]
    root: str
    root_media_type: str
    absent: frozenset[str] = field(default=frozenset())

    @property
    def raw(self) -> bytes:
        """The bytes of the root."""
        return self.manifests[self.root][1]

    @property
    def contents(self) -> dict[str, bytes]:
        """Digest → bytes of everything, blobs first, the root last."""
        return {**self.blobs, **{digest: raw for digest, (_, raw) in self.manifests.items()}}

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the root."""
        return describe(self.raw, self.root_media_type, digest=self.root)


class Registry(Protocol):
    """What `push` needs, as tests.support.witness has it."""

    def put_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> object:
        """Upload a blob under its digest."""

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> object:
        """Put a manifest by tag or digest."""


# Bytes


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return `algorithm:hex` of the bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def describe(
    data: bytes, media_type: str, *, digest: str | None = None, algorithm: str = "sha256"
) -> Descriptor:
    """Return the descriptor of the bytes, with the digest given or made."""
    return {
        "mediaType": media_type,
        "digest": digest or digest_of(data, algorithm),
        "size": len(data),
    }


def noise(seed: object, size_bytes: int) -> bytes:
    """Return bytes that do not compress and depend on the seed alone."""
    source = random.Random(repr(seed))
    step = 1 << 20
    return b"".join(
        source.randbytes(min(step, size_bytes - start)) for start in range(0, size_bytes, step)
    )


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar with these files, in this order, owned by root at the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        made: set[str] = set()
        for name, data in files.items():
            parts = name.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                directory = "/".join(parts[:depth])
                if directory not in made:
                    made.add(directory)
                    member = tarfile.TarInfo(directory)
                    member.type, member.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(member)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def gzip_stored(data: bytes, *, pad_to: int | None = None) -> bytes:
    """Return a gzip file (RFC 1952) of stored blocks, padded by an extra field to an exact size."""
    blocks = []
    for start in range(0, len(data), 0xFFFF) or (0,):
        block = data[start : start + 0xFFFF]
        last = start + 0xFFFF >= len(data)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    body = b"".join(blocks) + tail
    if pad_to is None:
        return b"\x1f\x8b\x08\x00\0\0\0\0\x00\xff" + body
    extra = pad_to - 10 - 2 - len(body)
    if not 4 <= extra <= 0xFFFF:
        raise ValueError(f"cannot pad {len(body)} bytes to {pad_to}")
    subfield = b"PD" + struct.pack("<H", extra - 4) + bytes(extra - 4)
    return b"\x1f\x8b\x08\x04\0\0\0\0\x00\xff" + struct.pack("<H", extra) + subfield + body


def zstd_stored(data: bytes) -> bytes:
    """Return a zstd frame (RFC 8878) of raw blocks: one segment, a size of 4 bytes, no checksum."""
    step = 1 << 17
    blocks = []
    for start in range(0, len(data), step) or (0,):
        block = data[start : start + step]
        header = len(block) << 3 | (start + step >= len(data))
        blocks.append(struct.pack("<I", header)[:3] + block)
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + b"".join(blocks)


def zstd_zeros(count: int) -> bytes:
    """Return a zstd frame of at least `count` zeros: 128 KiB in each block of four bytes."""
    step = 1 << 17
    block = struct.pack("<I", step << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", step << 3 | 1 << 1 | 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x38" + block * (-(-count // step) - 1) + last


def compact(document: object) -> bytes:
    """Write JSON as containerd, skopeo and oras do."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def indented(document: object, spaces: int = 2) -> bytes:
    """Write JSON as BuildKit (two spaces) or the old Docker engine (three) do."""
    return json.dumps(document, indent=spaces, ensure_ascii=False).encode()


# Building


class Builder:
    """Collects content, children first, and becomes a Graph."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.absent: set[str] = set()

    def blob(self, data: bytes, media_type: str, *, algorithm: str = "sha256") -> Descriptor:
        """Add a blob; return its descriptor."""
        descriptor = describe(data, media_type, algorithm=algorithm)
        self.blobs[descriptor["digest"]] = data
        return descriptor

    def manifest(self, raw: bytes, media_type: str, *, algorithm: str = "sha256") -> Descriptor:
        """Add a manifest after its children; return its descriptor."""
        descriptor = describe(raw, media_type, algorithm=algorithm)
        self.manifests[descriptor["digest"]] = (media_type, raw)
        return descriptor

    def index(self, children: Sequence[Descriptor], media_type: str = OCI_INDEX) -> Descriptor:
        """Add an index of these children."""
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(children)}
        return self.manifest(indented(document), media_type)

    def graph(self, root: Descriptor) -> Graph:
        """Return what was collected, with this root."""
        return Graph(
            blobs=self.blobs,
            manifests=self.manifests,
            root=root["digest"],
            root_media_type=root["mediaType"],
            absent=frozenset(self.absent),
        )


def files_of(seed: object) -> dict[str, bytes]:
    """Return the files of a small root filesystem layer."""
    return {
        "etc/os-release": b'NAME="fixture"\nID=fixture\n',
        f"usr/share/fixture/{zlib.crc32(repr(seed).encode()):08x}": noise(seed, 300),
    }


def config_of(tars: Sequence[bytes], platform: Mapping[str, str]) -> dict[str, Any]:
    """Return an image config for these uncompressed layers."""
    return {
        "created": "2024-01-02T03:04:05Z",
        **platform,
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/hello"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [
            {"created": "2024-01-02T03:04:05Z", "created_by": f"COPY layer {number} / # fixture"}
            for number in range(len(tars))
        ],
    }


def add_image(
    builder: Builder,
    seed: object,
    platform: Mapping[str, str] = PLATFORMS[0],
    *,
    layers: int = 2,
    docker: bool = False,
    algorithm: str = "sha256",
    with_platform: bool = True,
) -> Descriptor:
    """Add an image whose first layer is the same for every seed; return its descriptor."""
    tars = [tar_of(files_of("base" if n == 0 else (seed, n))) for n in range(layers)]
    config_raw = compact(config_of(tars, platform))
    config = builder.blob(config_raw, DOCKER_CONFIG if docker else OCI_CONFIG, algorithm=algorithm)
    layer_type = DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config,
        "layers": [builder.blob(gzip_stored(tar), layer_type, algorithm=algorithm) for tar in tars],
    }
    raw = indented(document, 3 if docker else 2)
    descriptor = builder.manifest(raw, media_type, algorithm=algorithm)
    return {**descriptor, "platform": dict(platform)} if with_platform else descriptor


# The cases


def single() -> Graph:
    """Make an OCI image of two gzip layers."""
    builder = Builder()
    return builder.graph(add_image(builder, "single"))


def multi() -> Graph:
    """Make an OCI index of three platforms and a BuildKit attestation of the first."""
    builder = Builder()
    children = [add_image(builder, ("multi", p["architecture"]), p) for p in PLATFORMS]
    children.append(add_attestation(builder, children[0]))
    return builder.graph(builder.index(children))


def add_attestation(builder: Builder, image: Descriptor) -> Descriptor:
    """Add what BuildKit adds beside an image: an unknown/unknown manifest of in-toto statements."""
    unknown = {"architecture": "unknown", "os": "unknown"}
    statement = compact(
        {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://slsa.dev/provenance/v0.2",
            "subject": [
                {
                    "name": "pkg:docker/fixture@latest?platform=linux%2Famd64",
                    "digest": {"sha256": image["digest"].partition(":")[2]},
                }
            ],
            "predicate": {"buildType": "https://mobyproject.org/buildkit@v1"},
        }
    )
    layer = builder.blob(statement, IN_TOTO)
    config = compact(
        {
            **unknown,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(config, OCI_CONFIG),
        "layers": [
            {
                **layer,
                "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
            }
        ],
    }
    return {
        **builder.manifest(indented(document), OCI_MANIFEST),
        "annotations": {
            "vnd.docker.reference.digest": image["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": unknown,
    }


def attested(seed: str = "attested", depth: int = 0) -> Graph:
    """Make an index as BuildKit does with `oci-artifact=true`: attestations have a subject.

    Args:
        seed: another one is another image.
        depth: how many indexes lead to it.
    """
    builder = Builder()
    pictures = [add_image(builder, (seed, p["architecture"]), p) for p in PLATFORMS[:2]]
    attestations = []
    for number, image in enumerate(pictures):
        statement = builder.blob(compact({"predicate": [seed, number]}), IN_TOTO)
        plain = {key: image[key] for key in ("mediaType", "digest", "size")}
        attestation = add_artifact(
            builder, DOCKER_ATTESTATION, [statement], subject=plain, annotations={"of": seed}
        )
        attestations.append(
            {
                **attestation,
                "artifactType": DOCKER_ATTESTATION,
                "annotations": {
                    "vnd.docker.reference.digest": image["digest"],
                    "vnd.docker.reference.type": "attestation-manifest",
                },
                "platform": {"architecture": "unknown", "os": "unknown"},
            }
        )
    node = builder.index([*pictures, *attestations])
    for _ in range(depth):
        node = builder.index([node])
    return builder.graph(node)


def subjects_in(graph: Graph) -> dict[str, str]:
    """Return the digests of the manifests of a graph that have a subject, by that."""
    documents = {digest: json.loads(raw) for digest, (_, raw) in graph.manifests.items()}
    return {d["subject"]["digest"]: digest for digest, d in documents.items() if "subject" in d}


def docker_schema2() -> Graph:
    """Make a Docker image manifest, version 2 schema 2, indented as Docker does."""
    builder = Builder()
    return builder.graph(add_image(builder, "docker", docker=True))


def docker_list() -> Graph:
    """Make a Docker manifest list of three platforms."""
    builder = Builder()
    children = [add_image(builder, ("list", p["architecture"]), p, docker=True) for p in PLATFORMS]
    return builder.graph(builder.index(children, DOCKER_LIST))


def nested_index() -> Graph:
    """Make an index of an image and two indexes that share a child."""
    builder = Builder()
    amd64, arm64, arm = (add_image(builder, ("nest", p["architecture"]), p) for p in PLATFORMS)
    first = builder.index([amd64, arm64])
    second = builder.index([arm64, arm])
    return builder.graph(builder.index([amd64, first, second]))


def deep_index(depth: int) -> Graph:
    """Make `depth` indexes, each the only child of the next, above one image."""
    builder = Builder()
    node = add_image(builder, "deep")
    for _ in range(depth):
        node = builder.index([node])
    return builder.graph(node)


def artifact() -> Graph:
    """Make what `oras push --artifact-type` makes: empty config with `data`, one titled layer."""
    builder = Builder()
    layer = {
        **builder.blob(b"hello, artifact\n", "text/plain"),
        "annotations": {"org.opencontainers.image.title": "hello.txt"},
    }
    return builder.graph(add_artifact(builder, "application/vnd.example.greeting", [layer]))


def artifact_without_layers() -> Graph:
    """Make an artifact that is annotations only: `layers` is an empty array."""
    builder = Builder()
    return builder.graph(add_artifact(builder, "application/vnd.example.note", []))


def artifact_empty_layer() -> Graph:
    """Make an artifact without content as the image-spec advises: its one layer is `{}` too."""
    builder = Builder()
    empty = builder.blob(b"{}", OCI_EMPTY)
    return builder.graph(
        add_artifact(builder, "application/vnd.example.note", [{**empty, "data": "e30="}])
    )


def add_artifact(
    builder: Builder,
    artifact_type: str,
    layers: Sequence[Descriptor],
    *,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Add an artifact with the empty config."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": {**builder.blob(b"{}", OCI_EMPTY), "data": "e30="},
        "layers": list(layers),
    }
    if subject is not None:
        document["subject"] = subject
    document["annotations"] = {
        "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
        **(annotations or {}),
    }
    return builder.manifest(compact(document), OCI_MANIFEST)


def with_subject(subject: Graph | None = None, number: int = 0) -> Graph:
    """Make a signature-like artifact whose `subject` is another graph's root (`single` if none).

    The subject is not part of the graph: it is followed up, never down, and may be absent.
    """
    target = (subject or single()).descriptor
    builder = Builder()
    payload = compact({"critical": {"image": {"digest": target["digest"]}}, "number": number})
    layer = builder.blob(payload, "application/vnd.dev.cosign.simplesigning.v1+json")
    root = add_artifact(
        builder,
        "application/vnd.example.signature",
        [layer],
        subject=target,
        annotations={"com.example.number": str(number)},
    )
    return builder.graph(root)


def index_with_subject(subject: Graph | None = None) -> Graph:
    """Make an index with `subject` and `artifactType`, as a referrer with platforms has."""
    builder = Builder()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "artifactType": "application/vnd.example.report",
        "manifests": [add_artifact(builder, "application/vnd.example.page", [])],
        "subject": (subject or single()).descriptor,
    }
    return builder.graph(builder.manifest(compact(document), OCI_INDEX))


def sha512_image() -> Graph:
    """Make a sha256 index whose child manifest, config and layers are named by sha512."""
    builder = Builder()
    return builder.graph(builder.index([add_image(builder, "sha512", algorithm="sha512")]))


def sha512_root() -> Graph:
    """Make an image that is sha512 all through, its root too."""
    builder = Builder()
    return builder.graph(add_image(builder, "sha512", algorithm="sha512"))


def sha512_layer() -> Graph:
    """Make a sha256 image with one layer named by sha512."""
    builder = Builder()
    tars = [tar_of(files_of("base")), tar_of(files_of("sha512 layer"))]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(compact(config_of(tars, PLATFORMS[0])), OCI_CONFIG),
        "layers": [
            builder.blob(gzip_stored(tars[0]), OCI_LAYER_GZIP),
            builder.blob(gzip_stored(tars[1]), OCI_LAYER_GZIP, algorithm="sha512"),
        ],
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def empty_blob() -> Graph:
    """Make an image manifest with a layer of zero bytes."""
    builder = Builder()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(compact(config_of([b""], PLATFORMS[0])), OCI_CONFIG),
        "layers": [builder.blob(b"", OCI_LAYER)],
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def uncompressed_and_zstd(seed: str = "zstd") -> Graph:
    """Make an image with a plain tar layer and a zstd layer, whose content is the seed's."""
    builder = Builder()
    tars = [tar_of(files_of("plain")), tar_of(files_of(seed))]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(compact(config_of(tars, PLATFORMS[0])), OCI_CONFIG),
        "layers": [
            builder.blob(tars[0], OCI_LAYER),
            builder.blob(zstd_stored(tars[1]), OCI_LAYER_ZSTD),
        ],
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def not_a_tar(seed: str) -> Graph:
    """Make an image whose layer has the right digests and is no tar: every engine refuses it."""
    builder = Builder()
    layer = noise(seed, 2048)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(compact(config_of([layer], PLATFORMS[0])), OCI_CONFIG),
        "layers": [builder.blob(layer, OCI_LAYER)],
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def odd_bytes() -> Graph:
    """Make a manifest that no serialiser would write: any re-encoding changes its digest."""
    builder = Builder()
    tar = tar_of(files_of("odd"))
    config = builder.blob(b"\t" + compact(config_of([tar], PLATFORMS[0])) + b"\r\n\r\n", OCI_CONFIG)
    layer = builder.blob(gzip_stored(tar), OCI_LAYER_GZIP)
    layer_type = layer["mediaType"].replace("/", "\\/")
    config_type = config["mediaType"].replace("+", "\\u002B")
    lines = [
        "\t{",
        '\t"x-\\u0075nknown" : { "b":1.0E+2,"a":[ -0.0, null , true, {} , [ ] ] },',
        f'\t"layers":[ {{"size" :{layer["size"]},',
        f'\t\t"digest":"sha256\\u003a{layer["digest"][7:]}",',
        f'\t\t"x-order":"first",\t"mediaType":"{layer_type}"}}\t],',
        '\t"annotations":{"org.example.name":"caf\\u00E9 \\ud83d\\ude00 é","":"empty key"},',
        f'\t"config":{{"mediaType":"{config_type}",',
        f'"digest":"{config["digest"]}", "size":{config["size"]}}},',
        '\t"schemaVersion"\t:\t2',
        "\t}",
        "",
        " ",
    ]
    return builder.graph(builder.manifest("\r\n".join(lines).encode() + b"\n", OCI_MANIFEST))


def data_fields() -> Graph:
    """Make an index whose child, config and layer are all embedded in `data` too."""
    builder = Builder()
    tar = tar_of(files_of("data"))
    config_raw, layer_raw = compact(config_of([tar], PLATFORMS[0])), gzip_stored(tar)
    config, layer = builder.blob(config_raw, OCI_CONFIG), builder.blob(layer_raw, OCI_LAYER_GZIP)
    raw = compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {**config, "data": base64.b64encode(config_raw).decode()},
            "layers": [{**layer, "data": base64.b64encode(layer_raw).decode()}],
        }
    )
    child = {
        **builder.manifest(raw, OCI_MANIFEST),
        "platform": dict(PLATFORMS[0]),
        "data": base64.b64encode(raw).decode(),
    }
    return builder.graph(builder.index([child]))


def foreign_layer() -> Graph:
    """Make an image whose first layer is nondistributable: `urls` name it, the graph lacks it."""
    builder = Builder()
    tars = [tar_of(files_of("foreign")), tar_of(files_of("ours"))]
    foreign_raw = gzip_stored(tars[0])
    foreign = {
        **describe(foreign_raw, OCI_LAYER_FOREIGN),
        "urls": ["https://foreign.example.com/layers/base.tar.gz"],
    }
    builder.absent.add(foreign["digest"])
    platform = {"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.1"}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(compact(config_of(tars, platform)), OCI_CONFIG),
        "layers": [foreign, builder.blob(gzip_stored(tars[1]), OCI_LAYER_GZIP)],
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def unknown_child() -> Graph:
    """Make an index of an image and of a child whose type nobody knows.

    The child is among the blobs, where containerd and BuildKit push what is no manifest type.
    """
    builder = Builder()
    image = add_image(builder, "beside unknown")
    raw = compact({"what": "nobody knows", "manifests": "not a list", "layers": 7})
    unknown = builder.blob(raw, UNKNOWN_CHILD)
    return builder.graph(builder.index([image, unknown]))


def buildkit_cache() -> Graph:
    """Make what `--cache-to type=registry,image-manifest=false` makes: an index of layers."""
    builder = Builder()
    layers = []
    for number in range(2):
        tar = tar_of(files_of(("cache", number)))
        layers.append(
            {
                **builder.blob(gzip_stored(tar), OCI_LAYER_GZIP),
                "annotations": {
                    "buildkit/createdat": "2024-01-02T03:04:05.123456789Z",
                    "containerd.io/uncompressed": digest_of(tar),
                },
            }
        )
    records = compact(
        {
            "layers": [
                {"blob": layer["digest"], "parent": number - 1}
                for number, layer in enumerate(layers)
            ],
            "records": [{"digest": digest_of(b"step"), "layers": [{"layer": 1}]}],
        }
    )
    config = builder.blob(records, BUILDKIT_CACHE_CONFIG)
    return builder.graph(builder.index([*layers, config]))


def decompression_bomb(zeros: int = 10**11) -> Graph:
    """Make an image whose zstd layer of 3 MB would become 100 GB: to be copied as it is.

    Not in `ALL`, since tools that unpack would.
    """
    builder = Builder()
    config = config_of([b""], PLATFORMS[0])
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(compact(config), OCI_CONFIG),
        "layers": [builder.blob(zstd_zeros(zeros), OCI_LAYER_ZSTD)],
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def empty_index() -> Graph:
    """Make an index of nothing."""
    builder = Builder()
    return builder.graph(builder.index([]))


def schema1() -> Graph:
    """Make a signed Docker schema 1 manifest, which is to be refused.

    Its registry digest would be that of the payload, not of the bytes; `root` is that of the bytes.
    The signature has the right form and no key behind it.
    """
    builder = Builder()
    layer = builder.blob(gzip_stored(tar_of(files_of("schema1"))), DOCKER_LAYER_GZIP)
    compatibility = compact({"id": "a" * 64, "created": "2015-01-02T03:04:05Z", "os": "linux"})
    document = {
        "schemaVersion": 1,
        "name": "library/fixture",
        "tag": "latest",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": layer["digest"]}],
        "history": [{"v1Compatibility": compatibility.decode()}],
    }
    payload = indented(document, 3)
    protected = compact(
        {
            "formatLength": len(payload) - 2,
            "formatTail": _base64url(payload[-2:]),
            "time": "2015-01-02T03:04:05Z",
        }
    )
    key = {"crv": "P-256", "kid": "FIXT:" * 11 + "FIXT", "kty": "EC"}
    coordinates = {"x": _base64url(noise("x", 32)), "y": _base64url(noise("y", 32))}
    signature = {
        "header": {"jwk": {**key, **coordinates}, "alg": "ES256"},
        "signature": _base64url(noise("signature", 64)),
        "protected": _base64url(protected),
    }
    block = indented([signature], 3).replace(b"\n", b"\n   ")
    raw = payload[:-2] + b',\n   "signatures": ' + block + payload[-2:]
    return builder.graph(builder.manifest(raw, DOCKER_SCHEMA1))


def shared_layers(
    n_images: int, layers_per_image: int, layer_size: int, shared_fraction: float
) -> list[Graph]:
    """Make images whose first layers are the same.

    Args:
        n_images: how many.
        layers_per_image: layers of each.
        layer_size: exact size of each layer in bytes. From 4096 a layer is a gzip of a tar of one
            file that does not compress; below, it is noise.
        shared_fraction: 0.0 to 1.0 of each image's layers are in every other image too.
    """
    n_shared = round(layers_per_image * shared_fraction)
    shared = [_sized_layer(("shared", n), layer_size) for n in range(n_shared)]
    graphs = []
    for image in range(n_images):
        own = [
            _sized_layer(("own", image, n), layer_size) for n in range(layers_per_image - n_shared)
        ]
        layers = shared + own
        builder = Builder()
        config = config_of([], PLATFORMS[0])
        config["rootfs"]["diff_ids"] = [diff_id for _, diff_id in layers]
        config["config"]["Labels"] = {"image": str(image)}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": builder.blob(compact(config), OCI_CONFIG),
            "layers": [builder.blob(raw, OCI_LAYER_GZIP) for raw, _ in layers],
        }
        graphs.append(builder.graph(builder.manifest(compact(document), OCI_MANIFEST)))
    return graphs


def _sized_layer(seed: object, size_bytes: int) -> tuple[bytes, str]:
    """Return a layer of an exact size and its diff_id."""
    if size_bytes < 4096:
        raw = noise(seed, size_bytes)
        return raw, digest_of(raw)
    overhead = 10 + 2 + 4 + 8 + 5 * (size_bytes // 0xFFFF + 1)
    room = (size_bytes - overhead) // 512 * 512 - 3 * 512
    member = tarfile.TarInfo("usr/share/fixture.bin")
    member.size = room
    header = member.tobuf(tarfile.USTAR_FORMAT)
    tar = header + noise(seed, room) + bytes(1024)
    return gzip_stored(tar, pad_to=size_bytes), digest_of(tar)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


ALL: dict[str, Callable[[], Graph]] = {
    "single": single,
    "multi": multi,
    "docker_schema2": docker_schema2,
    "docker_list": docker_list,
    "nested_index": nested_index,
    "artifact": artifact,
    "artifact_without_layers": artifact_without_layers,
    "artifact_empty_layer": artifact_empty_layer,
    "sha512_image": sha512_image,
    "sha512_root": sha512_root,
    "sha512_layer": sha512_layer,
    "empty_blob": empty_blob,
    "uncompressed_and_zstd": uncompressed_and_zstd,
    "odd_bytes": odd_bytes,
    "data_fields": data_fields,
    "foreign_layer": foreign_layer,
    "unknown_child": unknown_child,
    "buildkit_cache": buildkit_cache,
    "empty_index": empty_index,
    "with_subject": with_subject,
    "index_with_subject": index_with_subject,
}
"""Name → builder of each case that a layout can hold."""

DOCKER_REGISTRY_OK: tuple[str, ...] = tuple(
    name for name in ALL if name not in {"sha512_image", "sha512_root", "foreign_layer"}
)
"""The cases that docker-registry 2.8.2 takes and gives back byte for byte.

It answers 400 DIGEST_INVALID to a manifest put by sha512 (put by tag, it is known by its sha256
digest only), and 500 to a foreign layer whose URL its configuration does not allow (with
`validation: {manifests: {urls: {allow: ["^https?://"]}}}` it takes it). sha512 blobs it keeps.
"""


# Places


def write_layout(
    directory: Path, images: Mapping[str, Graph], unnamed: Iterable[Graph] = ()
) -> Path:
    """Write an OCI image layout with the names that containerd writes; return the directory.

    Args:
        directory: made if absent; blobs that are there already stay.
        images: full reference (`registry/repository:tag`) → what it names.
        unnamed: graphs whose entries have no name, such as referrers.
    """
    (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    entries = [
        {
            **graph.descriptor,
            "annotations": {
                IMAGE_NAME_ANNOTATION: reference,
                REF_NAME_ANNOTATION: tag_of(reference),
            },
        }
        for reference, graph in images.items()
    ]
    unnamed = list(unnamed)
    entries.extend(graph.descriptor for graph in unnamed)
    for graph in [*images.values(), *unnamed]:
        for digest, data in graph.contents.items():
            path = blob_path(directory, digest)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    (directory / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    (directory / "index.json").write_bytes(compact(index))
    return directory


def tag_of(reference: str) -> str:
    """Return what containerd writes as `ref.name`: the tag, or `@digest`, or both."""
    last = reference.rpartition("/")[2]
    name, at, digest = last.partition("@")
    return name.partition(":")[2] + at + digest


def blob_path(directory: Path, digest: str) -> Path:
    """Return where a layout keeps a blob."""
    algorithm, _, encoded = digest.partition(":")
    return directory / "blobs" / algorithm / encoded


def write_archive(path: Path, layout: Path) -> Path:
    """Write a layout's files to a tar, sorted, with the same bytes every time; return the path."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(p for p in layout.rglob("*") if p.is_file()):
            member = tarfile.TarInfo(file.relative_to(layout).as_posix())
            member.size = file.stat().st_size
            with file.open("rb") as stream:
                archive.addfile(member, stream)
    return path


def push(registry: Registry, repository: str, tag: str | None, graph: Graph) -> str:
    """Push blobs, then manifests by digest, the root last and by tag if there is one.

    A root that is not named by sha256 is put by digest and by tag: a tag alone does not say the
    algorithm. Returns the digest of the root.
    """
    for digest, data in graph.blobs.items():
        algorithm = digest.partition(":")[0]
        if algorithm == "sha256":
            registry.put_blob(repository, data)
        else:
            registry.put_blob(repository, data, algorithm)
    for digest, (media_type, raw) in graph.manifests.items():
        if tag is None or digest != graph.root or not digest.startswith("sha256:"):
            registry.put_manifest(repository, digest, raw, media_type)
    if tag is not None:
        registry.put_manifest(repository, tag, graph.raw, graph.root_media_type)
    return graph.root
