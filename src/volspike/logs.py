"""Logs as one JSON object per line on standard error, ours and those of the libraries."""

from __future__ import annotations

import logging
import sys

import structlog

from volspike.errors import UsageError


def configure_logs(level: str) -> None:
    """Send every event of ``level`` (``INFO``) and above to standard error.

    Raises:
        UsageError: there is no such level.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise UsageError(f"log level {level!r} is not known; give one of {', '.join(levels)}")
    number = levels[level.upper()]
    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*steps, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    # Uvicorn's own news of starting and stopping repeats ours
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
