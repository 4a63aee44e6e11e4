"""Snapshots come back as they went, however many messages they take."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.streams.fake_kafka import FakeMessage
from volspike.errors import StreamError
from volspike.streams.state import (
    CHUNK_BYTES,
    REMEMBERED,
    Bookmark,
    Chunk,
    join_chunks,
    read_bookmark,
    snapshot_chunks,
    state_key,
)

KEY = state_key("g", "ticks.raw", 3)


def laid(chunks: list[Chunk]) -> list[FakeMessage]:
    return [FakeMessage("ticks.state", 0, place, chunk.key, chunk.value) for place, chunk in enumerate(chunks)]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES])
def test_a_snapshot_of_any_size_reads_back(size: int) -> None:
    """Chunks fit into a message; together, whatever lies between them, they are what was given."""
    stage = random.Random(1).randbytes(size)  # noqa: S311
    chunks = snapshot_chunks(KEY, 17, range(1_000), stage)
    assert all(len(chunk.value) <= CHUNK_BYTES for chunk in chunks)
    others = snapshot_chunks(state_key("g", "ticks.raw", 33), 18, (), b"another")
    between = [each for chunk in chunks for each in (*others, chunk)]
    found = join_chunks(KEY, Bookmark(alerted=0, snapshot=17, at=0, chunks=len(chunks)), laid(between))
    assert (found.stage, found.offset) == (stage, 17)
    assert found.earlier == tuple(range(1_000 - REMEMBERED, 1_000))


def test_a_snapshot_that_is_not_there_is_told() -> None:
    """A chunk that is missing, or is of another snapshot, is an error and not a state."""
    chunks = snapshot_chunks(KEY, 17, (), random.Random(1).randbytes(2 * CHUNK_BYTES))  # noqa: S311
    bookmark = Bookmark(alerted=0, snapshot=17, at=0, chunks=len(chunks))
    with pytest.raises(StreamError, match="is incomplete"):
        join_chunks(KEY, bookmark, laid(chunks[:-1]))
    with pytest.raises(StreamError, match="offset 17, expected 16"):
        join_chunks(KEY, Bookmark(alerted=0, snapshot=16, at=0, chunks=len(chunks)), laid(chunks))


@given(st.builds(Bookmark, alerted=st.integers(0), snapshot=st.integers(-1), at=st.integers(-1), chunks=st.integers(0)))
def test_a_bookmark_reads_back(bookmark: Bookmark) -> None:
    """The metadata of an offset is read as it was written; metadata of other programs is ignored."""
    assert read_bookmark(bookmark.encode()) == bookmark
    assert [read_bookmark(text) for text in (None, "", "committed by hand", '{"snapshot": 3}')] == [None] * 4


def test_bookmarks_keep_their_wire_format() -> None:
    """Workers of earlier versions read the same field names."""
    bookmark = Bookmark(alerted=3, snapshot=2, at=1, chunks=4)
    assert bookmark.encode() == '{"told":3,"snapshot":2,"at":1,"chunks":4}'
