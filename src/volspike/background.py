"""A bounded queue between the pipeline and a thread that may be slow: putting never waits, the oldest goes first."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """Holds at most ``most`` items; when it is full the oldest is let go and counted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._let_go = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def let_go(self) -> int:
        """How many items were never taken."""
        return self._let_go

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self._is_closed

    def put(self, item: T) -> bool:
        """Adds an item; False if one had to be let go for it. Never waits for whoever takes."""
        with self._changed:
            has_room = not self._is_closed and len(self._items) < self._most
            if not has_room:
                self._let_go += 1
            if not has_room and not self._is_closed:
                self._items.popleft()
            if not self._is_closed:
                self._items.append(item)
            self._changed.notify_all()
            return has_room

    def take(self, most: int, timeout: float | None) -> list[T]:
        """Up to ``most`` items, oldest first, as soon as there is one; none after ``timeout`` s or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_closed, timeout)
            return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    def wait_closed(self, timeout: float) -> bool:
        """Waits up to ``timeout`` s for the end, while items gather."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed, timeout)

    def close(self) -> None:
        """Nothing more comes; what waits can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def abandon(self) -> int:
        """Lets go of everything that waits, counts it and returns how much it was."""
        with self._changed:
            left = len(self._items)
            self._items.clear()
            self._let_go += left
            return left
