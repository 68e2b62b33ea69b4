"""Platforms match as containerd matches them."""

from __future__ import annotations

import pytest

from ocimirror import InvalidReference, Platform


def platform(text: str) -> Platform:
    """Return a platform as an index states it, which is not normalised."""
    return Platform(*text.split("/"))


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64", "linux/amd64/v1"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/armhf", "linux/arm/v7"),
        ("LINUX/AMD64", "linux/amd64"),
        ("linux/i386", "linux/386"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_platform_matches_what_is_the_same(asked: str, offered: str) -> None:
    assert Platform.parse(asked).matches(platform(offered))


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("linux/amd64", "linux/arm64"),
        ("linux/amd64", "windows/amd64"),
        ("linux/amd64", "linux/amd64/v3"),
        ("linux/amd64/v2", "linux/amd64"),
        ("linux/arm/v6", "linux/arm/v7"),
        ("linux/arm", "linux/arm/v6"),
        ("linux/arm/v5", "linux/arm"),
        ("linux/arm64", "linux/arm64/v9"),
        ("linux/amd64", "unknown/unknown"),
        ("linux/386", "linux/amd64"),
    ],
)
def test_a_platform_does_not_match_another(asked: str, offered: str) -> None:
    assert not Platform.parse(asked).matches(platform(offered))


def test_the_version_of_the_operating_system_is_not_compared() -> None:
    offered = Platform("windows", "amd64", "", "10.0.20348.1")
    assert Platform.parse("windows/amd64").matches(offered)


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7", "wasip1/wasm"])
def test_a_platform_is_printed_as_it_is_written(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux//v1", "li nux/a", "a/b\n"]
)
def test_what_is_no_platform_is_a_usage_error(text: str) -> None:
    with pytest.raises(InvalidReference):
        Platform.parse(text)
