"""The folder that a model is served from, looked at again and again: what is new there is loaded and tried.

It is looked at by the clock. A file watcher would wait on the very folder that a promotion renames away, and hears
nothing of a mounted volume; two ``stat`` calls a second cost microseconds and see both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

from volspike.models import METADATA_FILE, ONNX_FILE
from volspike.serving.loading import Loaded, load_or_reason
from volspike.serving.scorer import Load

Identity: TypeAlias = tuple[tuple[int, int, int, int], ...]

_FILES: Final = (METADATA_FILE, ONNX_FILE)


class ModelFolder:
    """What stands in a folder, and what stood there at the last look. One thread at a time may look."""

    def __init__(self, path: Path, load: Load) -> None:
        self.path = path
        self._load = load
        self._seen: Identity | None = None

    def look(self) -> Loaded | None:
        """What is there, if it is another than at the last look: a model, verified and tried, or why there is none.

        None where nothing is there, nothing is new, or it is being replaced just now; it blocks while it reads.
        """
        seen = _identity(self.path)
        if seen is None or seen == self._seen:
            return None
        loaded = load_or_reason(self.path, self._load)
        if loaded.scorer is None and _identity(self.path) != seen:
            return None  # half of the old and half of the new: the next look finds it whole
        self._seen = seen
        return loaded


def _identity(path: Path) -> Identity | None:
    """Tells one pair of files from another without reading them; None where they are not both there.

    The inode's change time moves with every write, rename and change of rights; a modification time can be copied.
    """
    try:
        folder = path if path.is_dir() else path.parent
        stats = [(folder / name).stat() for name in _FILES]
    except OSError:
        return None
    return tuple((each.st_dev, each.st_ino, each.st_ctime_ns, each.st_size) for each in stats)
