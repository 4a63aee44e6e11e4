"""``volspike alert-test``: one test message to every receiver of alerts."""

from __future__ import annotations

import typer

from volspike.cli.options import AlertConfig, Receivers, alerting
from volspike.cli.screen import out, working
from volspike.errors import UsageError

EXAMPLES = 'Example: volspike alert-test --alert-url "json://127.0.0.1:9000/hook"'


def run(alert: Receivers = None, config: AlertConfig = None) -> None:
    """Send a message marked TEST to each receiver of alerts; status 1 if one does not get it."""
    receivers = alerting(config, alert).receivers
    if not receivers:
        raise UsageError(
            "no receiver of alerts is configured: name one with --alert-url, in ALERT_URLS, or as receivers in the "
            "table alerts of the --config file"
        )
    from volspike.monitoring.alerts import receiver_for
    from volspike.monitoring.receiver_check import send_test_messages

    has_failed = False
    with working("sending test messages"):
        for number, result in enumerate(send_test_messages([receiver_for(url) for url in receivers]), start=1):
            outcome = f"failed: {result.failure}" if result.failure else "delivered"
            out.print(f"receiver {number}, {result.receiver}: {outcome}")
            has_failed |= bool(result.failure)
    if has_failed:
        raise typer.Exit(1)
