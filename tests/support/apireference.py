"""Writes docs/reference/api.md from the docstrings: `python -m tests.support.apireference`.

A test compares, so that the page cannot fall behind.
"""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import get_args

import ocimirror
from ocimirror import Source, Store

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"

_WIDE = 96
GROUPS = {
    "Verbs": "copy copy_many request pull push verify",
    "Places": "Registry Layout Archive ArchiveWriter DockerArchive DockerArchiveWriter MemoryStore"
    " Image",
    "A run": "Options Request Outcome Plan LeftOut Reporter NetworkOptions from_environment"
    " AuthFile ImageResult ByteCounts Failure Fault",
    "Values": "Digest Descriptor Manifest Platform Reference Location",
    "The contract of places": "Source Store Stored Referrer VerifiedStream Entry UnreadableEntry",
}
WORDS: dict[str, object] = {
    "Sparse": ocimirror.Options,
    "Status": ocimirror.Outcome,
    "Extent": ocimirror.Outcome,
    "FaultKind": ocimirror.Fault,
    "Kind": ocimirror.Descriptor,
    "Scheme": ocimirror.Location,
    "Profile": ocimirror.ArchiveWriter,
    "Watch": "a function that is given a number of bytes; it raises to stop",
    "Reader": "anything with `read(amount) -> bytes` and `close()`",
    "Hasher": "what `hashlib.sha256()` returns",
}
HEAD = """# The library

Everything that `from ocimirror import …` gives; this page is written from its docstrings.

```python
from ocimirror import Layout, Registry, copy, verify

with (
    Registry("registry.example.com") as registry,
    Registry("mirror.local:5000") as mirror,
    Layout("./layout", write=True) as layout,
):
    image = copy(registry["team/app:1.0"], layout)  # raises; image.digest, image.bytes_copied
    verify(layout)  # raises IntegrityError with .faults
    copy(layout["registry.example.com/team/app:1.0"], mirror["team/app:1.0"])
```

Only children of `OciMirrorError` are raised. Places may be used by several threads at once; a
`VerifiedStream` belongs to one. What is read with a place must end before the place is closed.
A closed one refuses everything with a `UsageError`; so does one for reading what would write.
"""


def page() -> str:
    """Return the whole page."""
    grouped = {name for names in GROUPS.values() for name in names.split()}
    errors = [name for name in ocimirror.__all__ if _is_error(name)]
    forgotten = set(ocimirror.__all__) - grouped - set(errors) - {"__version__"}
    if forgotten:
        raise ValueError(f"in no group of the page: {sorted(forgotten)}")
    parts = [HEAD]
    for group, names in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_described(name) for name in names.split()]
    parts.append(
        "## Words\n\nWhat names of types stand for in signatures, in which they are not exported.\n"
    )
    parts += [f"- `{name}`: {_words(name, kind)}" for name, kind in WORDS.items()]
    parts.append("")
    parts.append("## Errors\n\n| class | is a | exit code | retryable |\n|---|---|---|---|")
    parts += [_row(name) for name in errors]
    return "\n".join(parts).rstrip() + "\n"


def _words(name: str, user: object) -> str:
    """Return what a name is: in words, or what it is to the module of a class that uses it."""
    if isinstance(user, str):
        return user
    kinds = get_args(getattr(inspect.getmodule(user), name))
    return ", ".join(f'`"{each}"`' for each in kinds)


def _is_error(name: str) -> bool:
    found = getattr(ocimirror, name)
    return isinstance(found, type) and issubclass(found, ocimirror.OciMirrorError)


def _row(name: str) -> str:
    kind = getattr(ocimirror, name)
    first = (inspect.getdoc(kind) or "").partition("\n")[0]
    base = "" if kind.__base__ is Exception else f"`{kind.__base__.__name__}`"
    again = "yes" if kind.retryable is True else ""
    return f"| `{name}`: {first} | {base} | {kind.exit_code} | {again} |"


def _described(name: str) -> str:
    found = getattr(ocimirror, name)
    parts = [f"### {name}\n", f"```python\n{_signature(name, found)}\n```\n", _text(found)]
    if isinstance(found, type) and not issubclass(found, enum.Enum):
        for method, sort, value in _own(found):
            shown = _signature(method, value) if sort == "method" else method
            shown = re.sub(r",?\n *", " ", shown)
            parts.append(f"**`{shown}`**\n\n{_text(value)}")
    elif isinstance(found, type):
        parts += [f"- `{member.name}`: `{member.value!r}`" for member in found]
    return "\n".join(parts) + "\n"


def _own(kind: type) -> list[tuple[str, str, object]]:
    """Return the public methods and properties that a class documents itself."""
    members: list[tuple[str, str, object]] = []
    contract = {name for base in (Source, Store) for name in vars(base)} | {"commit"}
    concrete = issubclass(kind, Source) and kind not in (Source, Store)
    for name, value in vars(kind).items():
        if name.startswith("_") and name != "__getitem__":
            continue
        if concrete and name not in contract:
            continue  # (what care of a layout and the engines need of it)
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        if inspect.isfunction(value) and inspect.getdoc(value):
            members.append((name, "method", value))
        elif isinstance(value, property) and inspect.getdoc(value):
            members.append((name, "property", value))
    return members


def _signature(name: str, found: object) -> str:
    if isinstance(found, type) and (issubclass(found, enum.Enum) or found is ocimirror.Reporter):
        return f"class {name}({found.__base__.__name__ if found.__base__ else ''})"
    try:
        text = str(inspect.signature(found))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return name
    text = re.sub(r"\((self|cls)(, )?", "(", text)
    text = re.sub(r"<factory>|<threading\.Event[^>]*>", "…", text)
    text = re.sub(r"ForwardRef\('([^']*)'\)", r"\1", text)
    text = re.sub(r'(: |-> )"([^"]*)"', r"\1\2", text)
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text.replace(" -> 'None'", ""))
    line = f"{name}{text.replace(' -> None', '')}"
    if len(line) <= _WIDE or "\n" in line:
        return line
    inside, arrow, returned = line[len(name) + 1 :].rpartition(") -> ")
    inside = inside if arrow else line[len(name) + 1 : -1]
    arguments = re.split(r", (?![^\[(]*[\])])", inside)
    tail = f") -> {returned}" if arrow else ")"
    return "\n".join([f"{name}(", *(f"    {each}," for each in arguments), tail])


def _text(found: object) -> str:
    """Return a docstring as Markdown: its sections become lists, what is indented stays code."""
    lines: list[str] = []
    section = ""
    for line in (inspect.getdoc(found) or "").splitlines():
        heading = re.fullmatch(r"(Args|Attributes|Returns|Raises|Spec):( .*)?", line)
        if heading:
            section = heading[1]
            lines.append(f"*{section}*:{heading[2] or ''}" + ("" if heading[2] else "\n"))
        elif section in ("Returns", "Spec") and line.startswith("    "):
            lines.append(line.strip())
        elif section and line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}" if colon else f"- {line.strip()}")
        elif section and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            section = "" if not line.startswith(" ") and line else section
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
