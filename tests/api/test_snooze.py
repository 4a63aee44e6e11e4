"""``/alerts/snooze``: what it does, who may change it, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.api.app import create_app
from volspike.api.snooze import PROXY_HEADERS, snooze_routes
from volspike.config import Secret, ServingSettings
from volspike.monitoring.quiet import SendingRules

NOW_NS = 1_770_000_000 * 10**9
NOW_MS = NOW_NS // 10**6
KEY = "0123456789abcdef"
PRODUCTS = ["BTC-USD", "binance:BTC-USDT"]


class Server:
    """An application with the routes, its rules, and the number of changes that it announced."""

    def __init__(self, folder: Path | None = None, **options: Any) -> None:
        self.file = None if folder is None else folder / "outcomes.snoozes.json"
        self.rules = SendingRules((), self.file, lambda: NOW_NS)
        self.changes = 0
        serving = ServingSettings(**options)
        self.app = create_app(serving, pages=snooze_routes(self.rules, serving, lambda: PRODUCTS, self._changed))

    def _changed(self) -> None:
        self.changes += 1

    def request(
        self, method: str, query: str = "", *, client: str = "127.0.0.1", host: str = "localhost:8000", **options: Any
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(client, 40_000))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
                return await http.request(method, f"/alerts/snooze{query}", **options)

        return asyncio.run(send())

    def snooze(self, product: object = "BTC-USD", minutes: object = 30, **options: Any) -> httpx.Response:
        return self.request("POST", json={"product": product, "minutes": minutes}, **options)


def saved(server: Server) -> Any:
    """The content of the file."""
    assert server.file is not None
    return json.loads(server.file.read_bytes())


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server without an API key."""
    return Server(tmp_path)


def test_a_snooze_is_listed_saved_and_ended(server: Server) -> None:
    """POST, GET and DELETE return the present snoozes; each change is announced once and is in the file."""
    one = {"product": "BTC-USD", "until": NOW_MS + 30 * 60_000}
    every = {"product": None, "until": NOW_MS + 1440 * 60_000}
    assert server.request("GET").json() == {"snoozes": []}
    answer = server.snooze("btc-usd")
    assert (answer.status_code, answer.json()) == (200, {"snoozes": [one]})
    assert server.snooze(None, 1440).json() == {"snoozes": [every, one]}
    assert server.request("GET").json() == {"snoozes": [every, one]}
    assert saved(server)["snoozes"] == [every, one]
    assert server.request("DELETE").json() == {"snoozes": [one]}
    assert server.request("DELETE", "?product=BTC-USD").json() == {"snoozes": []}
    assert server.changes == 4
    assert saved(server)["snoozes"] == []


def test_a_repeated_snooze_replaces_the_first(server: Server) -> None:
    """The last one applies, even if it is shorter."""
    server.snooze(minutes=60)
    assert server.snooze(minutes=1).json()["snoozes"] == [{"product": "BTC-USD", "until": NOW_MS + 60_000}]
    assert server.request("DELETE", "?product=").json()["snoozes"] != []
    assert server.request("DELETE", "?product=binance:btc-usdt").status_code == 200


@pytest.mark.parametrize("minutes", [0, -1, 1441, 1.5, "30", None, True, 10**30])
def test_minutes_outside_the_range_are_refused(minutes: object, server: Server) -> None:
    """An integer from 1 to 1440 is accepted."""
    answer = server.snooze(minutes=minutes)
    assert answer.status_code == 422
    assert "1 to 1440" in answer.json()["detail"]
    assert server.changes == 0


@pytest.mark.parametrize("minutes", [1, 1440])
def test_minutes_at_the_limits_are_accepted(minutes: int, server: Server) -> None:
    """The shortest and the longest snooze."""
    assert server.snooze(minutes=minutes).status_code == 200


@pytest.mark.parametrize("product", ["SOL-USD", "", "kraken:BTC-USD", "a" * 5000, "\ud7ff", "BTC-USD,ETH-USD"])
def test_an_unknown_product_is_refused(product: str, server: Server) -> None:
    """404 with the products that are available; a long name is shown in part."""
    answer = server.snooze(product)
    assert answer.status_code == 404
    assert "available: BTC-USD, binance:BTC-USDT" in answer.json()["detail"]
    assert len(answer.content) < 1000
    assert server.changes == 0


def test_the_snooze_of_an_unknown_product_cannot_end(server: Server) -> None:
    """404 as for its beginning, unless the product is snoozed since an earlier run that had it."""
    assert server.request("DELETE", "?product=SOL-USD").status_code == 404
    server.rules.snooze("SOL-USD", 5)
    assert server.request("DELETE", "?product=SOL-USD").json() == {"snoozes": []}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"minutes": 5}',
        b'{"product": null}',
        b'{"product": null, "minutes": 5, "reason": "x"}',
        b'{"product": "\xff", "minutes": 5}',
        b"[" * 50_000,
        b'{"product": ' + b"[" * 50_000,
    ],
)
def test_a_body_of_another_form_is_refused(content: bytes, server: Server) -> None:
    """422 with the accepted form."""
    answer = server.request("POST", content=content, headers={"content-type": "application/json; charset=utf-8"})
    assert answer.status_code == 422
    assert '"minutes": 1 to 1440' in answer.json()["detail"]
    assert server.changes == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_the_body_of_a_form_is_refused(kind: str, server: Server) -> None:
    """A page of another site could send these without the consent of this server."""
    body = b'{"product": null, "minutes": 5}'
    assert server.request("POST", content=body, headers={"content-type": kind}).status_code == 415
    assert server.changes == 0


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "app.localhost", "127.0.0.1:8000", "[::1]:8000"])
def test_this_machine_may_snooze(client: str, host: str, server: Server) -> None:
    """Loopback clients that address the server by a loopback name need no key."""
    assert server.snooze(client=client, host=host).status_code == 200


@pytest.mark.parametrize("client", ["192.0.2.7", "10.0.0.1", "::2", "2001:db8::1", "::ffff:192.0.2.7", "", "unix"])
def test_other_machines_may_not(client: str, server: Server) -> None:
    """403, and what to do; the list is available to all who reach the server."""
    for answer in (server.snooze(client=client), server.request("DELETE", client=client)):
        assert answer.status_code == 403
        assert "API_KEY" in answer.json()["detail"]
    assert server.request("GET", client=client).status_code == 200
    assert server.changes == 0


@pytest.mark.parametrize("name", PROXY_HEADERS)
def test_a_proxy_on_this_machine_makes_no_local_client(name: str, server: Server) -> None:
    """A request with the header of a proxy is refused even if it states a loopback client."""
    for value in ("192.0.2.7", "127.0.0.1", ""):
        assert server.snooze(headers={name: value}).status_code == 403
        assert server.request("DELETE", headers={name: value}).status_code == 403
    assert server.changes == 0


def test_a_public_host_name_is_not_local(tmp_path: Path) -> None:
    """A proxy that passes on ``Host`` and adds no header, or a name that resolves to this machine (DNS rebinding)."""
    server = Server(tmp_path, allowed_hosts=("*",))
    for host in ("market.example.org", "192.0.2.1", "127.0.0.1.example.org", "localhost.example.org", "1.localhost.x"):
        assert server.snooze(host=host).status_code == 403
        assert server.snooze(host=host, headers={"origin": f"http://{host}"}).status_code == 403
    assert server.changes == 0


@pytest.mark.parametrize("options", [{"trusted_proxies": ("127.0.0.1",)}, {"root_path": "/volspike"}])
def test_a_server_that_is_set_up_for_a_proxy_requires_a_key(options: dict[str, Any], tmp_path: Path) -> None:
    """Its local client is the proxy."""
    assert Server(tmp_path, **options).snooze().status_code == 403
    keyed = Server(tmp_path, **options, api_key=Secret(KEY))
    assert keyed.snooze(headers={"x-api-key": KEY}, client="192.0.2.7", host="192.0.2.1").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": "Basic YW55OjAxMjM0NTY3ODlhYmNkZWY="},
        {"x-api-key": KEY, "x-forwarded-for": "192.0.2.7", "origin": "https://192.0.2.1"},
    ],
)
def test_the_key_is_accepted_from_anywhere(headers: dict[str, str], tmp_path: Path) -> None:
    """In all three forms, also through a proxy that terminates TLS."""
    server = Server(tmp_path, api_key=Secret(KEY))
    assert server.snooze(headers=headers, client="192.0.2.7", host="192.0.2.1").status_code == 200


def test_without_the_key_nothing_is_accepted_if_there_is_one(tmp_path: Path) -> None:
    """A local client needs it as well, for every method."""
    server = Server(tmp_path, api_key=Secret(KEY))
    answers = [
        server.snooze(),
        server.request("GET"),
        server.request("DELETE"),
        server.snooze(headers={"x-api-key": "no"}),
    ]
    assert [answer.status_code for answer in answers] == [401] * 4
    assert server.changes == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example.org"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:8001"},
        {"origin": "http://localhost:8000.evil.example.org"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], tmp_path: Path) -> None:
    """With or without the key, which a browser may send by itself."""
    for server, more in ((Server(tmp_path), {}), (Server(tmp_path, api_key=Secret(KEY)), {"x-api-key": KEY})):
        for answer in (server.snooze(headers=headers | more), server.request("DELETE", headers=headers | more)):
            assert answer.status_code == 403
            assert "another site" in answer.json()["detail"]
        assert server.changes == 0


def test_the_page_itself_is_accepted(server: Server) -> None:
    """A browser states the origin of the page and that the request has the same."""
    headers = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert server.snooze(headers=headers).status_code == 200
    assert server.request("DELETE", headers=headers).status_code == 200
    refused = server.request("OPTIONS", headers={"origin": "https://evil.example.org"})
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")


def test_the_operations_are_documented(server: Server) -> None:
    """The OpenAPI document has the three methods, their body, and their refusals."""
    document = server.app.openapi()
    operations = document["paths"]["/alerts/snooze"]
    assert set(operations) == {"get", "post", "delete"}
    assert set(operations["post"]["responses"]) == {"200", "401", "403", "404", "415", "422"}
    schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/SnoozeRequest"}
    limits = document["components"]["schemas"]["SnoozeRequest"]["properties"]["minutes"]
    assert (limits["minimum"], limits["maximum"]) == (1, 1440)
    assert [each["name"] for each in operations["delete"]["parameters"]] == ["X-Correlation-ID", "product"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH"]),
    st.binary(max_size=60)
    | st.fixed_dictionaries({"product": _JSON, "minutes": _JSON}).map(lambda b: json.dumps(b).encode()),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.dictionaries(
        st.sampled_from(["origin", "sec-fetch-site", "x-forwarded-for", "content-type", "x-api-key"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        max_size=3,
    ),
)
def test_no_request_fails_in_the_server(method: str, body: bytes, product: str, headers: dict[str, str]) -> None:
    """Any method, body, product and headers: an answer below 500."""
    server = Server()
    kind = {"content-type": "application/json"}
    answer = server.request(method, content=body, params={"product": product}, headers=kind | headers)
    assert answer.status_code < 500
