"""A bounded queue for a background thread: adding never blocks, and a full queue drops its oldest item."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """At most ``limit`` items that wait for a background thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def dropped(self) -> int:
        """The number of items that were never taken."""
        return self._dropped

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._is_closed

    def put(self, item: T) -> bool:
        """Adds an item; False if an item was dropped: the oldest one, or this one if the queue is closed."""
        with self._changed:
            is_accepted = not self._is_closed and len(self._items) < self._limit
            if not is_accepted:
                self._dropped += 1
            if not is_accepted and not self._is_closed:
                self._items.popleft()
            if not self._is_closed:
                self._items.append(item)
            self._changed.notify_all()
            return is_accepted

    def take(self, limit: int, timeout: float | None) -> list[T]:
        """Up to ``limit`` items, oldest first, once there is one; none after ``timeout`` s or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed, timeout)
            return [self._items.popleft() for _ in range(min(limit, len(self._items)))]

    def wait_closed(self, timeout: float) -> bool:
        """Waits up to ``timeout`` s until the queue is closed; False if it is still open."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed, timeout)

    def close(self) -> None:
        """Accepts no more items; those that wait can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def drop_all(self) -> int:
        """Drops all waiting items and returns their number."""
        with self._changed:
            left = len(self._items)
            self._items.clear()
            self._dropped += left
            return left
