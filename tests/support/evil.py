"""Hostile input: the files of fixtures/evil, and layouts that git could not hold.

fixtures/README.md says in a line what is wrong with each file. All are to be refused, except those
named in `MAY_PASS` and `SHOWN_ESCAPED`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.support import images

DIRECTORY = Path(__file__).resolve().parents[2] / "fixtures" / "evil"
CANARY = "ocimirror-evil-canary"
"""The name of the file that a careless reader of an archive would leave somewhere."""

EVIL_MANIFESTS: dict[str, Path] = {path.name: path for path in sorted(DIRECTORY.glob("*.json"))}
EVIL_ARCHIVES: dict[str, Path] = {
    path.name: path
    for path in sorted(DIRECTORY.glob("*.tar*"))
    if not path.name.startswith("docker-")
}
EVIL_DOCKER_ARCHIVES: dict[str, Path] = {
    path.name: path for path in sorted(DIRECTORY.glob("docker-*.tar"))
}

MEDIA_TYPES: dict[str, str] = {
    **dict.fromkeys(EVIL_MANIFESTS, images.OCI_MANIFEST),
    "index-and-manifest.json": images.OCI_INDEX,
    "manifests-object.json": images.OCI_INDEX,
    "manifests-missing.json": images.OCI_INDEX,
    "child-string.json": images.OCI_INDEX,
    "schema1.json": images.DOCKER_SCHEMA1,
}
"""Name → the media type that a descriptor or `Content-Type` gives each evil manifest."""

REFUSED_ON_COPY: frozenset[str] = frozenset({"digest-unknown-algorithm.json"})
"""Manifests that parse, since they are well-formed, and whose content is not to be copied."""

MAY_PASS: frozenset[str] = frozenset(
    {
        "backslash.tar",
        "gzip-bomb.tar.gz",
        "gzip.tar.gz",
        "header-differential.tar",
        "missing-layout-file.tar",
        "newline-name.tar",
        "not-utf8-name.tar",
        "pax-chain.tar",
        "terminal-escape-name.tar",
    }
)
"""Archives that harm some readers; one that reads them right may take them.

The four that are about a name hold a stray member, which may be ignored, and is never shown raw.
The two in gzip are good archives; whoever reads one has to bound what comes out.
"""

DOCKER_MAY_PASS: frozenset[str] = frozenset({"docker-config-wrong.tar"})
"""Docker archives that are taken with a warning: a config may be called by anything."""

SHOWN_ESCAPED: frozenset[str] = frozenset(
    {
        "docker-tag-escape.tar",
        "entry-terminal-escape",
        "entry-bidi",
        "entry-nul",
        "entry-newline",
        "entry-huge-annotation",
    }
)
"""Docker archives and layouts whose content is good, and whose names must not reach a terminal raw.
"""

_DIGEST, _SIZE, _JSON, _TYPE = ("digest",), ("size",), ("json",), ("media", "announced")
EXPECTED_WORDS: dict[str, tuple[str, ...]] = {
    **{name: _DIGEST for name in EVIL_MANIFESTS if "digest" in name or "algorithm" in name},
    **{name: _SIZE for name in EVIL_MANIFESTS if "size" in name},
    **{name: ("duplicate", "twice") for name in EVIL_MANIFESTS if name.startswith("duplicate")},
    **{name: _TYPE for name in EVIL_MANIFESTS if name.startswith("mediatype")},
    **{name: ("data", "digest") for name in EVIL_MANIFESTS if name.startswith("data-")},
    **dict.fromkeys(("not-utf8.json", "overlong-utf8.json"), ("utf",)),
    **dict.fromkeys(("nan.json", "infinity.json", "empty.json", "truncated.json"), _JSON),
    "deep-nesting.json": ("deep", "nest"),
    "schema1.json": ("schema",),
    "subject-traversal.json": ("subject", "digest"),
    **{name: ("link",) for name in EVIL_ARCHIVES if "link" in name},
    **{name: ("duplicate", "twice") for name in EVIL_ARCHIVES if name.startswith("duplicate")},
    **{name: ("truncated", "short", "end") for name in EVIL_ARCHIVES if "truncated" in name},
    **dict.fromkeys(("missing-index.tar", "huge-index.tar"), ("index.json",)),
    **dict.fromkeys(("missing-layout-file.tar", "huge-layout-file.tar"), ("oci-layout",)),
    **dict.fromkeys(("gnu-sparse.tar", "pax-sparse.tar"), ("sparse",)),
    **{name: ("gzip", "zstd", "compress") for name in EVIL_ARCHIVES if name.endswith(("z", "st"))},
    "bad-digest-in-index.tar": _DIGEST,
    "wrong-blob.tar": _DIGEST,
    "not-a-tar.tar": ("tar", "archive"),
}
"""Name → words of which a helpful error has at least one, in lower case. Not every file is here."""


def index_bomb(levels: int, repeats: int) -> images.Graph:
    """Make indexes of which each names the one below `repeats` times: `repeats ** levels` paths.

    A reader that fetches each digest once needs `levels` + 1 manifests.
    """
    builder = images.Builder()
    node = images.add_image(builder, "bomb")
    for _ in range(levels):
        node = builder.index([node] * repeats)
    return builder.graph(node)


REFERENCE = "registry.example.com/evil:v1"
TEN_GIGABYTES = 10 * 10**9


def evil_layouts(directory: Path) -> dict[str, Path]:
    """Write one layout for each attack; return name → its directory.

    The image is `registry.example.com/evil:v1` in each. Where the attack leads outside the layout,
    what lies there has the right bytes: only the link is wrong. Sparse files take no space.
    """
    layouts: dict[str, Path] = {}
    for name, spoil in _SPOILERS.items():
        layout = directory / name / "layout"
        outside = directory / name / "outside"
        outside.mkdir(parents=True)
        images.write_layout(layout, {REFERENCE: images.single()})
        spoil(layout, outside)
        layouts[name] = layout
    return layouts


def _a_layer(layout: Path) -> Path:
    """Return the path of the image's last layer."""
    graph = images.single()
    return images.blob_path(layout, list(graph.blobs)[-1])


def _move_out(path: Path, outside: Path) -> None:
    """Put a link in the place of a file or directory, which goes outside."""
    target = outside / path.name
    path.rename(target)
    path.symlink_to(target)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _hole(path: Path, size_bytes: int = TEN_GIGABYTES) -> None:
    """Make a file one hole of this size, behind what it has."""
    os.truncate(path, size_bytes)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{path} has no {old!r}")
    path.write_text(text.replace(old, new))


def _name_entry(layout: Path, name: str) -> None:
    """Give the index entry this name, as it stands between JSON quotes, in both annotations."""
    _edit(layout / "index.json", f'"{REFERENCE}"', f'"registry.example.com/evil:{name}"')
    _edit(layout / "index.json", '"v1"', f'"{name}"')


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _huge_manifest(layout: Path) -> None:
    """Make the root manifest a hole of 10 GB, and its entry say so."""
    graph = images.single()
    _hole(images.blob_path(layout, graph.root))
    _edit(layout / "index.json", f'"size":{len(graph.raw)}', f'"size":{TEN_GIGABYTES}')


_OVERRIDE = "\\u202e\\u2066"
_ESCAPE = "\\u001b]8;;https://evil.example.com\\u0007safe\\u001b]8;;\\u0007\\u001b[2J\\r"
_ROOT = images.single().root

_SPOILERS: dict[str, Callable[[Path, Path], object]] = {
    # Things that are no regular file
    "blob-is-symlink": lambda at, out: _move_out(_a_layer(at), out),
    "manifest-is-symlink": lambda at, out: _move_out(images.blob_path(at, _ROOT), out),
    "blob-is-dangling-symlink": lambda at, out: _replace(
        _a_layer(at), lambda path: path.symlink_to(out / "nothing")
    ),
    "blobs-is-symlink": lambda at, out: _move_out(at / "blobs", out),
    "algorithm-is-symlink": lambda at, out: _move_out(at / "blobs" / "sha256", out),
    "blob-is-fifo": lambda at, out: _replace(_a_layer(at), os.mkfifo),
    "manifest-is-fifo": lambda at, out: _replace(images.blob_path(at, _ROOT), os.mkfifo),
    "blob-is-directory": lambda at, out: _replace(_a_layer(at), Path.mkdir),
    "index-is-symlink": lambda at, out: _move_out(at / "index.json", out),
    "index-is-fifo": lambda at, out: _replace(at / "index.json", os.mkfifo),
    "index-is-directory": lambda at, out: _replace(at / "index.json", Path.mkdir),
    "layout-file-is-symlink": lambda at, out: _move_out(at / "oci-layout", out),
    "layout-file-is-fifo": lambda at, out: _replace(at / "oci-layout", os.mkfifo),
    # index.json
    "index-missing": lambda at, out: (at / "index.json").unlink(),
    "index-empty": lambda at, out: (at / "index.json").write_bytes(b""),
    "index-torn": lambda at, out: os.truncate(at / "index.json", 100),
    "index-torn-zeros": lambda at, out: (at / "index.json").write_bytes(bytes(300)),
    "index-huge": lambda at, out: _hole(at / "index.json"),
    "index-not-json": lambda at, out: (at / "index.json").write_bytes(b"manifests: []\n"),
    "index-not-an-index": lambda at, out: (at / "index.json").write_bytes(b"[]"),
    "index-is-a-manifest": lambda at, out: (at / "index.json").write_bytes(images.single().raw),
    "index-duplicate-keys": lambda at, out: _edit(
        at / "index.json", '"manifests":', '"manifests":[],"manifests":'
    ),
    # oci-layout
    "layout-file-missing": lambda at, out: (at / "oci-layout").unlink(),
    "layout-file-wrong-version": lambda at, out: _edit(at / "oci-layout", "1.0.0", "2.0.0"),
    "layout-file-not-json": lambda at, out: (at / "oci-layout").write_bytes(b"1.0.0\n"),
    "layout-file-empty": lambda at, out: (at / "oci-layout").write_bytes(b""),
    "layout-file-huge": lambda at, out: _hole(at / "oci-layout"),
    # Entries
    "entry-traversal-digest": lambda at, out: _edit(
        at / "index.json", _ROOT, "sha256:../../../../etc/passwd"
    ),
    "entry-absolute-digest": lambda at, out: _edit(at / "index.json", _ROOT, "sha256:/etc/passwd"),
    "entry-uppercase-digest": lambda at, out: _edit(
        at / "index.json", _ROOT, "sha256:" + _ROOT[7:].upper()
    ),
    "entry-negative-size": lambda at, out: _edit(at / "index.json", '"size":', '"size":-'),
    "entry-terminal-escape": lambda at, out: _name_entry(at, _ESCAPE),
    "entry-bidi": lambda at, out: _name_entry(at, f"v1{_OVERRIDE}1v"),
    "entry-nul": lambda at, out: _name_entry(at, "v1\\u0000"),
    "entry-newline": lambda at, out: _name_entry(at, "v1\\nok  everything verified"),
    "entry-huge-annotation": lambda at, out: _name_entry(at, "v" * 10_000),
    # Blobs
    "blob-missing": lambda at, out: _a_layer(at).unlink(),
    "blob-truncated": lambda at, out: os.truncate(_a_layer(at), 100),
    "blob-empty": lambda at, out: os.truncate(_a_layer(at), 0),
    "blob-too-long": lambda at, out: _a_layer(at).write_bytes(_a_layer(at).read_bytes() + b"\n"),
    "blob-bit-flipped": lambda at, out: _flip(_a_layer(at)),
    "blob-huge": lambda at, out: _hole(_a_layer(at)),
    "manifest-bit-flipped": lambda at, out: _flip(images.blob_path(at, _ROOT)),
    "manifest-missing": lambda at, out: images.blob_path(at, _ROOT).unlink(),
    "manifest-huge": lambda at, out: _huge_manifest(at),
}
