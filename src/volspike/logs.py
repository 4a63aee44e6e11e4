"""Logging: volspike's and the libraries' events as one JSON object per line on standard error."""

from __future__ import annotations

import logging
import sys

import structlog

from volspike.errors import UsageError


def configure_logs(level: str) -> None:
    """Write events of ``level`` (such as ``INFO``) and above to standard error, those of libraries from WARNING on.

    Raises:
        UsageError: the level is unknown.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise UsageError(f"unknown log level {level!r}; give one of {', '.join(levels)}")
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
    # Uvicorn logs its start and stop at INFO, which volspike logs itself.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
