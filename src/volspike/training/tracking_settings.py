"""Where training runs are tracked; and that nobody reads the password in its address."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from volspike.errors import UsageError

LOCAL_STORE: Final = "sqlite:///mlruns/mlflow.db"
"""A database file below the working folder, which needs no server."""

_STORES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_DATABASE_FILE: Final = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")
_USER: Final = re.compile(r"://\S*@")
_SECRET: Final = re.compile(r"([?&;][^=&;\s]*(?:password|secret|token)[^=&;\s]*=)[^&;\s]*", re.IGNORECASE)


class TrackingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An MLflow server or database by its URI, and the experiment there; without a URI nothing is tracked."""

    tracking_uri: str = ""
    experiment: str = "volatility_detection"

    @property
    def is_on(self) -> bool:
        """Whether anything is to be tracked."""
        return bool(self.tracking_uri)

    def check(self) -> None:
        """Refuse what cannot work, before anything is trained; a server is not asked yet.

        Raises:
            UsageError: MLflow is not installed, or the URI is neither a server's nor a database's.
        """
        if not self.is_on:
            return
        if find_spec("mlflow") is None:
            raise UsageError(
                "MLflow is not installed, and a run cannot be tracked without it; "
                "`pip install 'volspike[tracking]'`, or leave --mlflow-uri and $MLFLOW_TRACKING_URI out"
            )
        kind = re.match(r"(\w+)(?:\+\w+)?://", self.tracking_uri)
        is_file = kind is not None and kind[1] == "sqlite"
        if kind is None or kind[1] not in _STORES or (is_file and database_file(self.tracking_uri) is None):
            raise UsageError(
                f"{masked(self.tracking_uri)!r} is no MLflow server and no database; "
                f"name one as in http://localhost:5001 or {LOCAL_STORE}"
            )

    def __repr__(self) -> str:
        return f"TrackingSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("tracking_uri", masked(self.tracking_uri)), ("experiment", self.experiment)]


def database_file(uri: str) -> str | None:
    """The file of an SQLite database; None where the URI names something else.

    >>> database_file("sqlite:///mlruns/mlflow.db"), database_file("http://localhost:5001")
    ('mlruns/mlflow.db', None)
    """
    found = _DATABASE_FILE.fullmatch(uri.partition("?")[0])
    return found[1] if found else None


def masked(text: str) -> str:
    """``text`` without the users, passwords and tokens that stand in URIs.

    >>> masked("no answer from http://ada:pi/3@tracking:5001/api?token=abc&page=2")
    'no answer from http://***@tracking:5001/api?token=***&page=2'
    """
    return _SECRET.sub(r"\1***", _USER.sub("://***@", text))
