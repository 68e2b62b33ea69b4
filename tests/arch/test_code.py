"""Rules that the code keeps everywhere, read from its syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    path.relative_to(ROOT / "ocimirror").as_posix(): ast.parse(path.read_bytes())
    for path in sorted((ROOT / "ocimirror").rglob("*.py"))
}
CLI = {name for name in MODULES if name.startswith("cli/")}

# Where each of these may be imported or called; anywhere else is a wall that was broken through.
IMPORTED_ONLY_IN = {
    "requests": {"registry/http.py"},
    "urllib3": {f"registry/{name}.py" for name in ("http", "bodies", "connections", "failures")},
    # Its token exchange, through our transport.
    "oras": {"registry/auth.py"},
    "tarfile": {
        "stores/archive/tar.py",
        "stores/archive/tarmembers.py",
        "stores/archive/tarstream.py",
    },
    "click": CLI,
    "rich": CLI,
    "aiohttp": {"serve/server.py", "serve/wire.py"},
    "pickle": set[str](),
    "yaml": {"sync/yamlfile.py"},
}
CALLED_ONLY_IN = {
    # What is serialised is ours: a layout's index, a login, a report. Content never is.
    "json.dumps": {
        "engines/docker/redirect.py",
        "engines/docker/borrowed.py",
        "model/strictjson.py",
        "shown.py",
        "stores/layout/index.py",
        "stores/dockerarchive/document.py",
        "stores/dockerarchive/synthesis.py",
        "stores/profiles.py",
        "stores/layout/referrerslist.py",
        "sync/publish.py",
        "registry/credential_store.py",
        "registry/referrers.py",
        "serve/answers.py",
        "sync/lock.py",
        "engines/docker/references.py",
        "cli/output.py",
    },
    "json.dump": set[str](),
    # Elsewhere content would be read with duplicate keys and NaN; these read no content, but
    # error documents, tokens, credential files and the answers of engines as they come.
    "json.loads": {
        "engines/docker/borrowed.py",
        "engines/engine.py",
        "model/strictjson.py",
        "registry/answers.py",
        "registry/auth.py",
        "registry/credentials.py",
    },
    "json.load": set[str](),
    "os.getenv": CLI,
    "print": CLI,
    "eval": set[str](),
    "exec": set[str](),
    # Made by `parse` or `of` only, so that each one is valid.
    "Digest": set[str](),
}
MENTIONED_ONLY_IN = {"os.environ": CLI | {"registry/environment.py"}, "sys.argv": CLI}


def found(name: str, kind: type[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a kind in a module."""
    return (node for node in ast.walk(MODULES[name]) if isinstance(node, kind))


def imported(name: str) -> set[str]:
    """Return the top-level packages that a module imports anywhere in it."""
    packages = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            packages.add((node.module or "").partition(".")[0])
    return packages


def called(name: str) -> set[str]:
    """Return what a module calls, as it is written."""
    return {ast.unparse(node.func) for node in found(name, ast.Call)}  # type: ignore[attr-defined]


def outside(allowed: set[str]) -> list[str]:
    return [name for name in MODULES if name not in allowed]


@pytest.mark.parametrize(("package", "allowed"), IMPORTED_ONLY_IN.items(), ids=IMPORTED_ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str, allowed: set[str]) -> None:
    assert [name for name in outside(allowed) if package in imported(name)] == []


@pytest.mark.parametrize(("function", "allowed"), CALLED_ONLY_IN.items(), ids=CALLED_ONLY_IN)
def test_a_function_is_called_only_where_it_belongs(function: str, allowed: set[str]) -> None:
    assert [name for name in outside(allowed) if function in called(name)] == []


@pytest.mark.parametrize(("thing", "allowed"), MENTIONED_ONLY_IN.items(), ids=MENTIONED_ONLY_IN)
def test_environment_and_arguments_belong_to_the_command_line(
    thing: str, allowed: set[str]
) -> None:
    users = {
        name
        for name in MODULES
        for node in found(name, ast.Attribute)
        if ast.unparse(node) == thing
    }
    assert users - allowed == set()


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_ever_extracted_from_an_archive(name: str) -> None:
    """Its filters have been bypassed repeatedly (CVE-2007-4559 and its kin)."""
    calls = {function.rpartition(".")[2] for function in called(name)}
    assert calls & {"extract", "extractall", "unpack_archive"} == set()


@pytest.mark.parametrize("name", MODULES)
def test_certificates_are_always_verified(name: str) -> None:
    for node in found(name, ast.keyword):
        assert isinstance(node, ast.keyword)
        assert (node.arg, ast.unparse(node.value)) not in {
            ("verify", "False"),
            ("check_hostname", "False"),
            ("cert_reqs", "'CERT_NONE'"),
            ("shell", "True"),
        }
    assert "ssl._create_unverified_context" not in called(name)
    assert "CERT_NONE" not in ast.unparse(MODULES[name]) or name == "registry/tls.py"


@pytest.mark.parametrize("name", MODULES)
def test_every_read_has_a_bound(name: str) -> None:
    """A VerifiedStream alone knows its own; it is called `stream` wherever it is read."""
    unbounded = {
        ast.unparse(node)
        for node in found(name, ast.Call)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"read", "readlines", "read_bytes", "read_text"}
        and not node.args
    }
    own = {"self.read()"} if name == "stores/stream.py" else set[str]()
    assert unbounded - {"stream.read()"} - own == set()


@pytest.mark.parametrize("name", sorted(set(MODULES) - CLI - {"copy/tasks.py"}))
def test_only_the_edges_catch_everything(name: str) -> None:
    """Elsewhere a handler of everything cleans up and raises again."""
    for node in found(name, ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        assert node.type is not None
        caught = ast.unparse(node.type)
        assert "Exception" not in caught.replace("BaseException", "").replace(
            "RequestException", ""
        )
        if caught == "BaseException":
            assert isinstance(node.body[-1], ast.Raise)
            assert node.body[-1].exc is None


def public(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield public functions, classes and methods with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name.startswith("_"):
                continue
            yield f"{inside}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{inside}{node.name}.")


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    tree = MODULES[name]
    assert ast.get_docstring(tree)
    bare = [
        what
        for what, node in public(tree)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert bare == []


@pytest.mark.parametrize("name", MODULES)
def test_a_docstring_begins_with_one_sentence_on_its_line(name: str) -> None:
    for what, node in public(MODULES[name]):
        first = (ast.get_docstring(node) or "").partition("\n")[0]  # type: ignore[arg-type]
        assert first.endswith((".", ":", "?")), what


@pytest.mark.parametrize("name", MODULES)
def test_no_module_has_more_than_four_hundred_lines(name: str) -> None:
    assert len((ROOT / "ocimirror" / name).read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", sorted(set(MODULES) - CLI))
def test_names_are_whole_words(name: str) -> None:
    """The glossary's words, and none of those that say nothing."""
    empty = ("get_", "do_", "handle_", "process_", "helper", "utils", "manager")
    for node in found(name, ast.FunctionDef):
        assert isinstance(node, ast.FunctionDef)
        assert not node.name.lstrip("_").startswith(empty), node.name


NETWORK = {"requests", "urllib3", "oras", "http.client", "socket", "ssl", "click", "rich"}


@pytest.mark.parametrize(
    "module",
    [
        "ocimirror",
        "ocimirror.model.reference",
        "ocimirror.stores.layout.layout",
        "ocimirror.stores.archive.archive",
        "ocimirror.stores.dockerarchive.read",
        "ocimirror.copy.pipeline",
        "ocimirror.care.verify",
    ],
)
def test_what_works_on_this_machine_alone_imports_no_network_library(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert NETWORK & set(loaded) == set()


def modules_imported(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of the package that are named in imports, be it for types only."""
    known = {f"ocimirror.{name}" for name in map(dotted, MODULES)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from below & known or {node.module} & known


def dotted(name: str) -> str:
    """Return a module's name below the package."""
    return name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def test_no_modules_import_one_another_in_a_circle() -> None:
    edges = {
        f"ocimirror.{dotted(name)}": set(modules_imported(tree)) - {f"ocimirror.{dotted(name)}"}
        for name, tree in MODULES.items()
        if name != "__init__.py"  # (the front page, which imports what is asked of it)
    }
    TopologicalSorter(edges).prepare()


TESTS = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_bytes())
    for path in sorted((ROOT / "tests").rglob("*.py"))
}


REACHES_INSIDE = {
    # It runs the command, in a fork of a process that has loaded it.
    "tests/support/forks.py",
}


def test_tests_come_through_the_door() -> None:
    """They import what the package exports, or run the command."""
    inside = {
        name
        for name, tree in TESTS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        and any(
            module.startswith("ocimirror.")
            for module in (getattr(node, "module", ""), *(alias.name for alias in node.names))
            if module
        )
    }
    assert inside == REACHES_INSIDE
