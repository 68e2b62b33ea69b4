"""A mark for the fields of documents, which values carry whether a document is written or not."""

from __future__ import annotations

from collections.abc import Mapping

LATER: Mapping[str, bool] = {"later": True}
"""Metadata of a field that earlier versions did not write: without it, its default is read."""
