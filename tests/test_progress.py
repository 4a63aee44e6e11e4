"""Progress of operations: steps, counted steps, and parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volspike.progress import Step, counted, part


@given(st.floats(-2, 2))
def test_a_share_is_between_0_and_1(done: float) -> None:
    """A share outside the interval becomes the nearest limit, and the name stays a text."""
    step = Step("fold", done)
    assert step == "fold"
    assert step.done == min(1.0, max(0.0, done))


def test_counted_steps_are_equal_shares() -> None:
    """Each step begins after the share of those before it; more steps than announced stay at the end."""
    seen: list[str] = []
    step = counted(seen.append, 4)
    for name in "abcdef":
        step(name)
    assert [(name, name.done) for name in seen if isinstance(name, Step)] == [
        *(("a", 0.0), ("b", 0.25), ("c", 0.5), ("d", 0.75)),
        *(("e", 1.0), ("f", 1.0)),
    ]


def test_a_part_lies_within_its_operation() -> None:
    """The steps of a part are scaled to its share of the operation, and carry its prefix."""
    seen: list[str] = []
    inner = counted(part(seen.append, 0.5, 1.0, "60 s: "), 2)
    inner("reading")
    inner("writing")
    assert [(str(name), name.done) for name in seen if isinstance(name, Step)] == [
        ("60 s: reading", 0.5),
        ("60 s: writing", 0.75),
    ]
