"""What may be shown of a text: no secret of ours, nothing that a terminal would obey."""

from __future__ import annotations

import base64
import json
import re
import threading
import unicodedata
from collections import deque
from urllib.parse import quote, quote_plus
from weakref import WeakSet

_SHORT = 4
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

_lock = threading.Lock()
_long: dict[str, int] = {}  # each writing of a secret, and how often it is kept
_short: dict[str, int] = {}
_closed: deque[Secrets] = deque()
_for_good = False


class Lease:
    """Says that something is under way with secrets, as long as it lives. See `Secrets`."""

    __slots__ = ("__weakref__", "_secrets")

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def ended(self) -> Lease | None:
        """Return what its holder is to keep now: nothing, unless the secrets are closed."""
        return None if self._secrets.open else self


class Secrets:
    """The secrets of one owner: no message, log line or traceback shows them. Thread-safe.

    A value that several owners keep is hidden until the last of them is closed. What is under way
    then (a thread that was left behind, and may still be told our password by a peer) has a
    lease, and they stay hidden until nothing holds that any more; a new one hides them again.

    Attributes:
        open: whether it was not closed yet.
    """

    def __init__(self) -> None:
        self.open = True
        self._values: dict[str, frozenset[str]] = {}
        self._leases: WeakSet[Lease] = WeakSet()
        self._hidden = True

    def keep(self, *values: str) -> None:
        """Hide these values, in any writing; those that are kept already cost nothing.

        Values of less than 4 characters are removed where they stand alone.
        """
        for value in values:
            if value and value not in self._values:
                writings = _writings(value)
                with _lock:
                    if self._values.setdefault(value, writings) is writings and self._hidden:
                        _count(value, writings, 1)

    def lease(self) -> Lease:
        """Return what keeps these secrets hidden, closed or not, until it is let go."""
        lease = Lease(self)
        with _lock:
            self._leases.add(lease)
            if not self._hidden:
                self._hide(True)
                _closed.append(self)
        return lease

    def close(self) -> None:
        """Forget them, as soon as nothing is under way with them; idempotent."""
        self.abandon()
        if not _for_good:
            forget_closed()

    def abandon(self) -> None:
        """Let the next message forget them: what the garbage collector may call at any time."""
        if self.open:
            self.open = False
            _closed.append(self)

    def forgotten(self) -> bool:
        """Forget them, and return true, unless something is under way; `_lock` is held."""
        if len(self._leases):
            return False
        self._hide(False)
        return True

    def _hide(self, hidden: bool) -> None:
        self._hidden = hidden
        for value, writings in self._values.items():
            _count(value, writings, 1 if hidden else -1)


def _writings(value: str) -> frozenset[str]:
    raw = value.encode("utf-8", "surrogatepass")
    writings = {value, raw.decode("latin-1"), repr(value)[1:-1]}
    writings |= {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    writings |= quoted | {re.sub("%..", lambda each: each[0].lower(), text) for text in quoted}
    if len(value) >= _SHORT:
        encoded = base64.b64encode(raw).decode().rstrip("=")
        writings |= {encoded, base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    return frozenset(writings)


def _count(value: str, writings: frozenset[str], more: int) -> None:
    table = _long if len(value) >= _SHORT else _short
    for text in writings:
        times = table.get(text, 0) + more
        if times:
            table[text] = times
        else:
            del table[text]


def forget_closed() -> None:
    """Forget the secrets of what is closed, unless something is under way with them."""
    with _lock:
        for _ in range(len(_closed)):
            secrets = _closed.popleft()
            if not secrets.forgotten():
                _closed.append(secrets)


def keep_for_good() -> None:
    """Forget nothing but by `forget_closed`: a command prints when all is closed, too."""
    global _for_good
    _for_good = True


def without_secrets(text: str) -> str:
    """Return text without the values that are kept as secrets."""
    if _closed and not _for_good:
        forget_closed()
    found = sorted((each for each in tuple(_long) if each in text), key=len, reverse=True)
    for secret in found:
        text = text.replace(secret, "…")
    for secret in tuple(_short):
        if secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "…", text)
    return text


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
