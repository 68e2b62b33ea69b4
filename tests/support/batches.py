"""Properties through a command: a run is dear, so that one run tries a batch of examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried

Test = Callable[..., None]


def batches(examples: st.SearchStrategy[Any], size: int = 25) -> Callable[[Test], Test]:
    """Give a test lists of examples as its last argument, as many as the profile tries in all.

    A batch that fails is not made smaller: the test says which of its examples it was. (The first
    batch that Hypothesis makes is of the simplest examples only.)
    """
    tries = settings(
        max_examples=1 + -(-settings.default.max_examples // size),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    return lambda test: tries(given(st.lists(examples, min_size=size, max_size=size))(test))
