"""One exception tree; every exit code of the command line lives on a class here.

Only children of OciMirrorError leave public functions, and messages never carry raw bytes from
outside: control, escape and bidirectional characters are shown escaped, at construction.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

from ocimirror.fault import Fault
from ocimirror.shown import one_line, printable

Side = Literal["source", "destination"]

_MAX_TOLD = 20


class OciMirrorError(Exception):
    """Root of everything ocimirror raises.

    Args:
        message: what happened to which object, where, got and wanted. No secrets.
        side: which end of a copy it happened at, where that is known.
        advice: one line on what to do next; else the class's own.
    """

    exit_code: ClassVar[int] = 1
    retryable: bool = False
    default_advice: ClassVar[str] = ""

    def __init__(self, message: object, *, side: Side | None = None, advice: str = "") -> None:
        self.message = one_line(message)
        self.side = side
        self._advice = one_line(advice)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The class name in snake_case, as the JSON documents carry it."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def advice(self) -> str:
        """One line on what to do next, or an empty string."""
        return self._advice or self.default_advice

    def diagnostics(self) -> str:
        """Return the message with its side and one line on what to do next."""
        where = f"{self.side}: " if self.side else ""
        return f"{where}{self.message}" + (f"\n{self.advice}" if self.advice else "")

    def at(self, side: Side) -> None:
        """Fill in the side where it was not known yet."""
        self.side = self.side or side


@contextlib.contextmanager
def blamed_on(side: Side) -> Iterator[None]:
    """Give errors that pass through here their side, where they have none yet."""
    try:
        yield
    except OciMirrorError as error:
        error.at(side)
        raise


class UsageError(OciMirrorError):
    """A wrong command line, reference, location or configuration, found before any transfer."""

    exit_code = 2


class InvalidReference(UsageError):
    """Text that is not a reference, tag, digest or location."""


class Finding(NamedTuple):
    """One fault in a configuration file; line and column begin at 1."""

    file: str
    line: int
    column: int
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return printable(f"{self.file}:{self.line}:{self.column}: {self.problem}{hint}")


class InvalidConfiguration(UsageError):
    """A configuration file with faults, all of which are told at once, up to twenty.

    Attributes:
        findings: every fault, in the order of the files.
    """

    def __init__(self, path: object, findings: Sequence[Finding] = ()) -> None:
        self.findings = tuple(sorted(findings))
        faults = "1 fault" if len(findings) == 1 else f"{len(findings)} faults"
        self._head = printable(f"{path}: {faults}")
        self._lines = [str(finding) for finding in self.findings[:_MAX_TOLD]]
        if len(findings) > _MAX_TOLD:
            self._lines.append(f"and {len(findings) - _MAX_TOLD} more")
        super().__init__(f"{self._head}: {'; '.join(self._lines)}")

    def diagnostics(self) -> str:
        """Return what is wrong, one fault a line."""
        return f"{self._head}\n" + "\n  ".join(self._lines)


class DamagedLockFile(UsageError):
    """A lock file that is not what ocimirror writes; it was left as it is."""

    default_advice = "Take the last good one from version control."


class LockConflict(UsageError):
    """Lock files that say different things of one source."""


# --- the other end of a wire -------------------------------------------------------------------


class RemoteError(OciMirrorError):
    """A registry, or the way to it, failed."""

    exit_code = 3
    retryable = True


class RegistryUnavailable(RemoteError):
    """No usable answer: refused, reset, timed out, 5xx; trying again may help.

    Attributes:
        retry_after_s: how long the registry asked to be left alone.
        exhausted: whoever raised it has tried again already; another run may help, not this one.
    """

    default_advice = "Try again later; -v shows the requests."

    def __init__(self, message: object, *, side: Side | None = None, advice: str = "") -> None:
        super().__init__(message, side=side, advice=advice)
        self.retry_after_s: float | None = None
        self.exhausted = False


class RateLimited(RegistryUnavailable):
    """The registry answered 429."""

    default_advice = "Wait, log in for a higher limit, or lower --jobs."


class TokenServiceUnavailable(RegistryUnavailable):
    """The token service that a registry names did not give a usable answer."""

    default_advice = "The registry itself answered; its token service did not. Try again later."


class NotReached(RemoteError):
    """A run ended before it came to this; the next one goes on there."""


class ShardsMissing(RemoteError):
    """Lock files are not those of all shards of one run."""

    default_advice = "Wait until every shard has ended, run the missing ones, and merge again."


class RegistryRefused(RemoteError):
    """A registry gave an answer that trying again will not change."""

    exit_code = 4
    retryable = False


class AuthenticationFailed(RegistryRefused):
    """Credentials are missing, wrong, or do not grant this action."""

    default_advice = "Check the credentials for this registry, or log in again."


class NotFound(RegistryRefused):
    """No such repository, manifest, blob or name; `codes` say which. Some say so when denied."""

    codes: frozenset[str] = frozenset()


class SourceMoved(RegistryRefused):
    """A tag at the source stands for something else than it has to in this run."""

    default_advice = "--locked, or a digest beside the same tag in this run, says what it must be."


class PushRejected(RegistryRefused):
    """The destination does not take this content."""


class ManifestBlobUnknown(PushRejected):
    """The destination misses content that a manifest names, though it was believed present."""


class SparseRefused(PushRejected):
    """The destination does not take an index whose other platforms are absent."""

    default_advice = (
        "--sparse full copies every platform, --sparse child names the one platform's manifest;"
        " `sparse` in the configuration of a sync."
    )


class UntrustedCertificate(RegistryRefused):
    """TLS does not verify; there is no insecure fallback."""

    default_advice = (
        "Give the registry's CA with --ca-file; plain HTTP needs --plain-http HOST. A sync's"
        " configuration has ca_file and plain_http for it."
    )


class UrlRefused(RegistryRefused):
    """A URL that came from outside (redirect, upload location, realm, link) breaks the policy."""


class EngineUnavailable(OciMirrorError):
    """A container engine, or its client program, is not there or does not answer."""

    exit_code = 4
    default_advice = "Is it running, and may you use its socket? --host names another one."


class EngineFailed(OciMirrorError):
    """A container engine refused what it was asked to do."""

    exit_code = 4


class EngineRunning(OciMirrorError):
    """A container engine runs and holds what may be changed only while it does not."""

    exit_code = 4


class Unsupported(RegistryRefused):
    """Content that cannot be carried without changing it, or cannot be verified."""


class ForeignLayer(RegistryRefused):
    """A layer that lives at its own URLs, not in the registry."""

    default_advice = "--allow-foreign copies the image without it; the destination must have it."


# --- content that is not what its descriptor says ----------------------------------------------


class IntegrityError(OciMirrorError):
    """Content does not match what names it. Never an OSError, and the same bytes never help.

    Attributes:
        faults: each one, where a check looked for all of them.
    """

    exit_code = 5
    faults: Sequence[Fault] = ()


class DigestMismatch(IntegrityError):
    """The bytes have another digest."""


class SizeMismatch(IntegrityError):
    """There are fewer or more bytes than the descriptor says."""


class MalformedManifest(IntegrityError):
    """A manifest, index or layout document breaks its specification."""


class MissingContent(IntegrityError):
    """A layout or archive names content that it does not hold."""

    default_advice = "Pull the image again: what is there is kept, what is missing is fetched."


class DamagedLayout(IntegrityError):
    """An image layout or archive that cannot be read as one; nothing was overwritten."""


class DamagedEngineStore(IntegrityError):
    """A container engine's own files are not what the engine writes; nothing was overwritten."""


# --- this machine -------------------------------------------------------------------------------


class Locked(OciMirrorError):
    """Another process holds the exclusive lock."""

    exit_code = 7


class LocalStorageError(OciMirrorError):
    """The local file system refused: EIO, read-only, permission."""

    exit_code = 8


class NoSpace(LocalStorageError):
    """The disk, or the quota, is full."""

    default_advice = "Free space and run the same command again; finished blobs are kept."


class OutOfResources(LocalStorageError):
    """This machine has no memory, no threads or no open files left for the run."""

    default_advice = "Raise the limit (ulimit, cgroup), or ask for less at once: --jobs 1."


class DigestNotPreserved(OciMirrorError):
    """The destination stored something under another digest."""

    exit_code = 9


class NoPlace(OciMirrorError):
    """An image of a sync that cannot go where it is to: no name there, or one that is taken."""

    exit_code = 4
    default_advice = "Give its entry another destination; {repository} and {tag} tell images apart."


class PruneRefused(OciMirrorError):
    """Something that a sync was to delete, and did not: too many, or no longer its own."""

    exit_code = 4
    default_advice = "Look at the difference; max_delete, or a run by hand, settles it."


class DigestTaken(OciMirrorError):
    """In an engine a name by digest stands for another image, and a digest is never moved."""

    exit_code = 9


class Interrupted(OciMirrorError):
    """A signal asked the run to stop."""

    exit_code = 130


_FIRST_OF = (5, 6, 8, 9, 3, 4)


def exit_code_of(codes: Collection[int]) -> int:
    """Return the exit code of a run with several failures: the first of 5, 6, 8, 9, 3, 4."""
    return next((code for code in _FIRST_OF if code in codes), max(codes, default=0))


@contextlib.contextmanager
def storage_errors(what: object) -> Iterator[None]:
    """Translate what the local file system refuses in here."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def unexpected(error: Exception) -> OciMirrorError:
    """Translate what nobody expected: the machine lacks something (often untyped), or our bug."""
    lacks = isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
    told = any(word in str(error) for word in ("can't start new thread", "failed to map segment"))
    if lacks or told or isinstance(error, MemoryError):
        return OutOfResources(f"out of resources: {str(error) or 'no memory left'}")
    return OciMirrorError(f"a bug in ocimirror: {type(error).__name__}: {error}")


def storage_error(cause: OSError, what: object) -> LocalStorageError:
    """Translate an OSError of the local file system; raise the result `from` the cause."""
    kind = NoSpace if cause.errno in (errno.ENOSPC, errno.EDQUOT) else LocalStorageError
    return kind(f"{what}: {cause.strerror or cause}")
