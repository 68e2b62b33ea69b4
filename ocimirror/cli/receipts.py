"""Receipts: what is printed of them, and the exit code that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import F, Settings, option
from ocimirror.errors import Interrupted, OciMirrorError
from ocimirror.model.codec import to_document

if TYPE_CHECKING:
    from ocimirror.engines.load import Loaded
    from ocimirror.engines.receipt import Part, Receipt
    from ocimirror.model.platform import Platform

# What an engine must have kept where nothing more is asked: what cannot be told from its design.
_ALWAYS: tuple[Part, ...] = ("tag", "config")


def engine_options(command: F) -> F:
    """Add the options that say which engine, which platforms, and what must be kept."""
    for add in (
        option("--host", metavar="SOCKET", default="", help="Another socket of the engine."),
        option(
            "--namespace",
            default="",
            help="containerd's; a kubelet uses k8s.io, ctr by itself default.",
        ),
        option(
            "--platform",
            "platforms",
            multiple=True,
            metavar="P|all",
            help="Platforms (default: all, or the one that the engine keeps).",
        ),
        option(
            "--require",
            metavar="PART,...",
            callback=required,
            help="Exit 9 unless the engine kept these: tag, index, manifest, config.",
        ),
    ):
        command = add(command)
    return command


def platforms_from(texts: Sequence[str]) -> tuple[Platform, ...]:
    """Read platforms; `all` is no choice."""
    from ocimirror.model.platform import Platform

    return () if "all" in texts else tuple(dict.fromkeys(map(Platform.parse, texts)))


def required(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Part, ...]:
    """Read `tag,index,manifest,config`."""
    from ocimirror.engines.receipt import PARTS

    chosen = [word.strip() for word in (value or "").split(",") if word.strip()]
    for word in chosen:
        if word not in PARTS:
            raise click.BadParameter(f"{word!r} is none of {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in chosen)


def exit_code(
    loaded: Sequence[Loaded], parts: Sequence[Part], failed: OciMirrorError | None = None
) -> int:
    """Return 9 where an engine did not keep what was asked for, or an error's own code.

    `failed` is what ended the run before its time.
    """
    errors = [item.error for item in loaded if item.error is not None]
    codes = [error.exit_code for error in (*errors, *([failed] if failed else []))]
    for item in loaded:
        if item.receipt is not None and failing(item.receipt, parts):
            codes.append(9)
    return output.exit_code_of(codes)


def finish(
    command: str,
    done: Sequence[Loaded],
    failed: OciMirrorError | None,
    parts: Sequence[Part],
    settings: Settings,
) -> int:
    """Tell what ended a run before its time, after what came of the images until then."""
    if failed is not None and not done and not isinstance(failed, Interrupted):
        raise failed
    code = 128 + settings.signal if settings.signal else exit_code(done, parts, failed)
    if failed is not None:
        output.complain(failed)
    if settings.json:
        ended = {"error": to_document(failed)} if failed is not None else {}
        output.document(command, code, {**documents(done), **ended})
    return code


def failing(receipt: Receipt, parts: Sequence[Part]) -> Sequence[str]:
    """Return what is missing of what was asked for."""
    return receipt.failing(dict.fromkeys((*_ALWAYS, *parts)))


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as the JSON documents carry it."""
    return {
        "image": receipt.image,
        "engine": receipt.engine,
        "engine_version": receipt.version,
        "store": receipt.store,
        "route": receipt.route or None,
        "unchanged": receipt.unchanged,
        "tag": receipt.tag,
        "index": receipt.index,
        "manifest": receipt.manifest,
        "config": receipt.config,
        "platforms": {"kept": list(receipt.kept), "asked": list(receipt.asked)},
        "evidence": [*receipt.evidence, *filter(None, (receipt.hashed,))],
        "notes": list(receipt.notes),
    }


def documents(loaded: Sequence[Loaded]) -> dict[str, object]:
    """Return the receipts and the failures of a run as its document carries them."""
    return {
        "receipts": [receipt_document(item.receipt) for item in loaded if item.receipt],
        "planned": [{"image": item.name, "route": item.planned} for item in loaded if item.planned],
        "failures": [
            {"image": item.name, "error": to_document(item.error)} for item in loaded if item.error
        ],
    }


def print_loaded(item: Loaded, parts: Sequence[Part], *, verbose: bool, quiet: bool) -> None:
    """Print a receipt, one line an identity, or an error."""
    if item.error is not None:
        output.complain(item.error, item.name)
        return
    receipt = item.receipt
    if receipt is None:
        output.line(f"{item.name}  would be loaded by {item.planned}")
        return
    lost = failing(receipt, parts)
    if quiet and not lost:
        return
    how = "already there" if receipt.unchanged else f"by {receipt.route}" if receipt.route else ""
    where = f"{receipt.engine} {receipt.version} ({receipt.store})"
    output.line("  ".join(part for part in (receipt.image, where, how) if part))
    for part, word in _lines(receipt):
        output.line(f"  {part:<10}{word}")
    if receipt.hashed:
        output.line(f"  deep      {receipt.hashed}")
    for evidence in receipt.evidence if verbose or lost else ():
        output.line(f"  asked     {evidence}")
    for note in receipt.notes:
        output.line(f"  note: {note}")
    if lost:
        output.line(f"  not kept: {', '.join(lost)}")


def _lines(receipt: Receipt) -> list[tuple[str, str]]:
    shown = {"not_applicable": "", "differs_by_design": "differs by design"}
    parts = [(part, getattr(receipt, part)) for part in ("tag", "index", "manifest", "config")]
    platforms = " ".join(receipt.kept) or "none"
    if receipt.missing:
        platforms += f" (not {' '.join(receipt.missing)})"
    words = [(part, shown.get(word, word)) for part, word in parts]
    return [*((part, word) for part, word in words if word), ("platforms", platforms)]
