"""What `config check` says of a file, or of many files in one run: one file includes them all.

Files of one run must not name the same registry in `registries`, unless they are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.command import environment, ocimirror

MAX_FAULTS = 500  # (the command tells no more in one run)


class Checked(NamedTuple):
    """What one file is.

    Attributes:
        faults: `LINE:COLUMN: PROBLEM (HINT)` of each, as they are printed.
        mirrors: as the document has them; none where any file of the run has a fault.
    """

    faults: list[str]
    mirrors: list[Any]


def told(fault: dict[str, Any]) -> str:
    """Return a fault as the command prints it, without the file."""
    hint = f" ({fault['hint']})" if fault["hint"] else ""
    return f"{fault['line']}:{fault['column']}: {fault['problem']}{hint}"


def check(path: Path, **variables: str) -> tuple[Any, list[str]]:
    """Return the document of a file and its faults; the exit code must fit them."""
    result = ocimirror(
        *("config", "check", path, "--json"), env=environment(**variables), timeout_s=240
    )
    assert result.stdout, result.stderr
    document = result.document
    faults = [told(fault) for fault in document.get("faults", [])]
    assert (result.code, document["exit_code"]) == ((2, 2) if faults else (0, 0)), result.stderr
    return document, faults


def check_all(directory: Path, texts: Sequence[str], **variables: str) -> list[Checked]:
    """Return what each of these files is; all of them are read in one run."""
    names = [f"case-{number:03}.yaml" for number in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (directory / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    first = directory / "nightly.yaml"
    first.write_text("include:\n" + "".join(f"  - {name}\n" for name in names))
    document, _ = check(first, **variables)
    faults = document.get("faults", [])
    assert len(faults) < MAX_FAULTS, "a file of this run may have faults that are not told"
    return [
        Checked(
            [told(fault) for fault in faults if fault["file"] == f"{directory}/{name}"],
            [
                mirror
                for mirror in document.get("mirrors", [])
                if mirror["where"].startswith(f"{directory}/{name}:")
            ],
        )
        for name in names
    ]
