"""What several tests of stores read and none changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.evil import evil_layouts


@pytest.fixture(scope="session")
def evil(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one layout for each attack; a test that changes one makes its own."""
    return evil_layouts(tmp_path_factory.mktemp("evil"))
