"""Digests: nothing but a digest becomes one, so a Digest is safe in a path or a URL."""

from __future__ import annotations

import hashlib

import pytest

from ocimirror import Digest, InvalidReference, Unsupported

HEX = "0123456789abcdef" * 4

# CVE-2024-3727 and its kin: what a hostile registry or layout may call a digest.
NO_DIGESTS = {
    "empty": "",
    "algorithm alone": "sha256",
    "no encoded part": "sha256:",
    "no algorithm": f":{HEX}",
    "hex alone": HEX,
    "63 digits": f"sha256:{HEX[:-1]}",
    "65 digits": f"sha256:{HEX}0",
    "sha512 of 64 digits": f"sha512:{HEX}",
    "upper-case hex": f"sha256:{HEX.upper()}",
    "one upper-case digit": f"sha256:A{HEX[1:]}",
    "upper-case algorithm": f"SHA256:{HEX}",
    "no hex": f"sha256:g{HEX[1:]}",
    "arabic digits": f"sha256:{'٠' * 64}",
    "full-width digits": f"sha256:{'０' * 64}",
    "newline at the end": f"sha256:{HEX}\n",
    "newline in front": f"\nsha256:{HEX}",
    "space at the end": f"sha256:{HEX} ",
    "NUL at the end": f"sha256:{HEX}\0",
    "NUL inside": f"sha256:{HEX[:-1]}\0",
    "traversal": "sha256:../../x",
    "long traversal": "sha256:" + "../" * 21 + "a",
    "percent traversal": "sha256:%2e%2e%2f%2e%2e",
    "percent in 64 characters": "sha256:" + "%2e" * 21 + "a",
    "backslashes": "sha256:..\\..\\x",
    "absolute": "sha256:/etc/passwd",
    "traversal as algorithm": f"../../x:{HEX}",
    "slash in algorithm": f"a/b:{HEX}",
    "dot as algorithm": f".:{HEX}",
    "dots as algorithm": f"..:{HEX}",
    "separator at the end": f"sha256+:{HEX}",
    "two separators": f"sha..256:{HEX}",
    "dot as encoded": "custom:.",
    "dots as encoded": "custom:..",
    "second colon": f"sha256:{HEX}:{HEX}",
    "query": f"sha256:{HEX}?x=1",
    "fragment": f"sha256:{HEX}#x",
    "at": f"@sha256:{HEX}",
    "endless": "sha256:" + "a" * 1_000_000,
    "endless and unknown": "custom:" + "a" * 1_000_000,
    "longer than a file name": "custom:" + "a" * 256,
    "endless algorithm": "a+" * 500_000 + f"a:{HEX}",
    "escape": f"sha256:\x1b[2J{HEX[4:]}",
    "surrogate": "sha256:\ud800",
}


@pytest.mark.parametrize("text", NO_DIGESTS.values(), ids=list(NO_DIGESTS))
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Digest.parse(text)
    assert len(caught.value.message) < 3000
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{HEX}",
        f"sha512:{HEX * 2}",
        f"blake3:{HEX}",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564=",
        "a.b_c-d+e:x",
    ],
)
def test_what_fits_the_grammar_is_a_digest(text: str) -> None:
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_registered_digest_is_computed(algorithm: str) -> None:
    digest = Digest.of(b"content", algorithm)
    assert digest.verifiable
    assert digest.encoded == hashlib.new(algorithm, b"content").hexdigest()
    hasher = digest.hasher()
    hasher.update(b"con")
    hasher.update(b"tent")
    assert hasher.hexdigest() == digest.encoded


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "blake3", "sha384", "blake2b"])
def test_a_digest_of_another_algorithm_cannot_be_verified(algorithm: str) -> None:
    digest = Digest.parse(f"{algorithm}:{HEX}")
    assert not digest.verifiable
    with pytest.raises(Unsupported, match=algorithm) as caught:
        digest.hasher()
    assert caught.value.exit_code == 4


def test_digests_are_ordered_equal_and_usable_as_keys() -> None:
    one, same, other = Digest.of(b"1"), Digest.of(b"1"), Digest.of(b"2")
    assert {one: 1}[same] == 1
    assert sorted([one, other]) == sorted([other, one])
    assert one != other
