"""What may be shown of a text: no secret of this process, nothing that a terminal would obey."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from urllib.parse import quote, quote_plus

_secrets: set[str] = set()
_short_secrets: set[str] = set()
_SHORT = 4
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def keep_secret(*values: str) -> None:
    """Let no message, log line or traceback of this process show these values, in any writing.

    Values of less than 4 characters are removed where they stand alone.
    """
    for value in filter(None, values):
        raw = value.encode("utf-8", "surrogatepass")
        writings = {value, raw.decode("latin-1"), repr(value)[1:-1]}
        writings |= {
            json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)
        }
        quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
        writings |= quoted | {re.sub("%..", lambda each: each[0].lower(), text) for text in quoted}
        if len(value) >= _SHORT:
            encoded = base64.b64encode(raw).decode().rstrip("=")
            writings |= {encoded, base64.urlsafe_b64encode(raw).decode().rstrip("=")}
        (_secrets if len(value) >= _SHORT else _short_secrets).update(writings)


def without_secrets(text: str) -> str:
    """Return text without the values that `keep_secret` was given."""
    found = sorted((each for each in tuple(_secrets) if each in text), key=len, reverse=True)
    for secret in found:
        text = text.replace(secret, "…")
    for secret in tuple(_short_secrets):
        if secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "…", text)
    return text


def forget_secrets() -> None:
    """Forget all values; for a process that has nothing more to print of what it did with them."""
    _secrets.clear()
    _short_secrets.clear()


def printable(text: object) -> str:
    """Return text that a terminal can show: what it would obey or hide is shown escaped."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        character
        if unicodedata.category(character) not in _HIDDEN
        else character.encode("unicode_escape").decode("ascii")
        for character in shown
    )


def one_line(text: object) -> str:
    """Return text as a message shows it: printable, without secrets, without line ends."""
    return printable(without_secrets(str(text)).replace("\n", " "))
