"""The table of exit codes in the documentation says what the classes say."""

from __future__ import annotations

from pathlib import Path

from ocimirror import errors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def exit_code_table() -> str:
    """Return the table's rows, from the classes."""
    codes: dict[int, list[str]] = {}
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.OciMirrorError):
            codes.setdefault(cls.exit_code, []).append(cls("x").code)
    rows = [(code, names) for code, names in sorted(codes.items()) if code not in (1, 130)]
    return "\n".join(
        f"| {code} | {', '.join(f'`{name}`' for name in names)} |" for code, names in rows
    )


def test_the_exit_codes_in_the_reference_are_those_of_the_classes() -> None:
    assert exit_code_table() in REFERENCE.read_text()
