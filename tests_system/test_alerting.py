"""Alerts of ``volspike up`` in a process: sent, snoozed by HTTP, held in quiet hours, and kept over a restart."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.monitoring.listeners import listening

from tests_system.processes import Server, send
from tests_system.test_live import UP, events

EVERY_ROW = ("--alert-threshold", "0.000001", "ETH-USD=0.000002", "--no-record")
"""Thresholds that every probability reaches, so that each product has an alert as soon as it is warm."""


def test_snoozes_and_thresholds_of_a_process(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """An alert reaches the receiver; after a snooze and a restart, none does, and page, health and metrics say why."""
    with listening(200) as receiver:
        server = serve(tmp_path, *UP, *EVERY_ROW, command="up", ALERT_URLS=receiver.url)
        stream = events(f"{server.url}/stream")
        assert next(stream)[1]["snoozes"] == []
        while len(receiver.received) < 2:
            next(stream)
        assert {str(message["title"]) for message in receiver.received} == {
            f"SIMULATED {product}: volatility spike likely" for product in ("BTC-USD", "ETH-USD")
        }
        states = server.get("/health").json["source"]["products"]
        assert [(each["threshold"], each["threshold_source"]) for each in states] == [
            (0.000001, "option"),
            (0.000002, "option"),
        ]
        answer = server.post("/alerts/snooze", json.dumps({"product": "BTC-USD", "minutes": 60}))
        assert answer.status == 200
        # in the snapshot if the stream was opened again meanwhile
        shown = next(data for name, data in stream if name == "snooze" or (name == "snapshot" and data["snoozes"]))
        assert shown["snoozes"] == answer.json["snoozes"]
        (row,) = next(
            [each for each in data["markets"] if each["product"] == "BTC-USD"]
            for name, data in stream
            if name == "markets" and any(each["snoozed_until"] for each in data["markets"])
        )
        assert row["snoozed_until"] == answer.json["snoozes"][0]["until"]
        assert server.stop()[0] == 0
        receiver.received.clear()
        again = serve(tmp_path, *UP, *EVERY_ROW, "--quiet-hours", "00:00-24:00", command="up", ALERT_URLS=receiver.url)
        assert again.get("/alerts/snooze").json == answer.json
        stream = events(f"{again.url}/stream")
        _, snapshot = next(stream)
        assert snapshot["snoozes"] == answer.json["snoozes"]
        marks = {each["product"]: each["suppressed"] for each in snapshot["alerts"] if each["suppressed"]}
        while len(marks) < 2:
            name, data = next(stream)
            alerts = data["alerts"] if name == "snapshot" else [data] if name == "alert" else []
            marks |= {each["product"]: each["suppressed"] for each in alerts if each["suppressed"]}
        assert marks == {"BTC-USD": "snoozed", "ETH-USD": "quiet_hours"}
        metrics = again.metrics()
        assert metrics['alert_suppressed_total{reason="snoozed"}'] >= 1
        assert metrics['alert_suppressed_total{reason="quiet_hours"}'] >= 1
        assert metrics['alert_threshold{product="ETH-USD"}'] == 0.000002
        counted = 'http_requests_total{endpoint="/alerts/snooze",method="GET",status="200"}'
        assert metrics[counted] == 1
        ended = send(urllib.request.Request(f"{again.url}/alerts/snooze?product=btc-usd", method="DELETE"))  # noqa: S310  our own server
        assert (ended.status, ended.json) == (200, {"snoozes": []})
        assert again.stop()[0] == 0
        assert receiver.received == []
    state = json.loads((tmp_path / "data" / "outcomes.snoozes.json").read_bytes())
    assert state["snoozes"] == []
    assert list(state["held"]["products"]) == ["ETH-USD"]
