"""The target of a request: the names of the server, the prefix of its paths, and HEAD."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from volspike.api.target import server_names
from volspike.config import Secret, ServingSettings, load_settings
from volspike.errors import UsageError

PATHS = ("/", "/docs", "/openapi.json", "/health", "/health/live", "/health/ready", "/version", "/metrics")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "me.localhost:80", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3"]
)
def test_loopback_names_and_addresses_are_answered(client: Any, host: str) -> None:
    """Programs on this machine, and health checks by address, need no setting."""
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", "evil", "*"]
)
@pytest.mark.parametrize("path", ["/", "/health", "/version", "/predict", "/nowhere"])
def test_other_names_are_rejected(client: Any, host: str, path: str) -> None:
    """A page of another site whose name resolves to this machine can read nothing."""
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 421
    assert "--allowed-host" in answer.json()["detail"]
    assert client.metric('http_requests_total{endpoint="/version",method="GET",status="421"}') == (path == "/version")


def test_allowed_names_are_answered(served: Any) -> None:
    """The name of the setting, all names below another, and the name that the server listens on."""
    client = served(host="market.lan", allowed_hosts=("volspike.example.org", "*.example.net"))
    hosts = ("market.lan:8000", "VOLSPIKE.example.org", "a.b.example.net", "example.net", "example.org")
    assert [client.get("/health", headers={"Host": host}).status_code for host in hosts] == [200, 200, 200, 421, 421]
    anything = served(allowed_hosts=("*",))
    assert anything.get("/health", headers={"Host": "evil.example"}).status_code == 200


def test_a_server_on_all_interfaces_has_the_name_of_its_machine() -> None:
    """Only such a server can be reached under that name."""
    assert socket.gethostname().lower() in server_names("0.0.0.0", ())  # noqa: S104  not bound
    assert server_names("127.0.0.1", ["a.example"]) == {"localhost", "*.localhost", "127.0.0.1", "a.example"}


@pytest.mark.parametrize("name", ["a.example:80", "http://a.example", "a b", "*x", ""])
def test_invalid_names_are_refused(name: str) -> None:
    """A name with a port or scheme would never match."""
    with pytest.raises(UsageError, match="allowed_hosts"):
        load_settings(ServingSettings, {"allowed_hosts": (name,)}, {}, None, "serving")


@pytest.mark.parametrize("path", PATHS)
def test_head_is_answered_as_get_without_a_body(client: Any, path: str) -> None:
    """Status and headers are those of GET."""
    get, head = client.get(path), client.request("HEAD", path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert client.metric(f'http_requests_total{{endpoint="{path}",method="HEAD",status="200"}}') == 1.0


def test_other_methods_are_still_refused(client: Any) -> None:
    """Neither HEAD nor GET of a path that takes POST is answered, and the response to DELETE lists HEAD."""
    assert client.request("HEAD", "/predict").status_code == 405
    answer = client.request("DELETE", "/health")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
def test_a_prefix_is_served_with_and_without_it(served: Any, path: str) -> None:
    """A proxy may pass paths on with the prefix or without it; key, limits and metrics apply to both."""
    client = served(root_path="/apps/volspike")
    assert client.get(f"/apps/volspike{path}").status_code == client.get(path).status_code == 200
    assert client.metric(f'http_requests_total{{endpoint="{path}",method="GET",status="200"}}') == 2.0


def test_the_prefix_without_a_slash_is_redirected(served: Any) -> None:
    """Links on pages are relative, so the address of the front page ends with a slash."""
    client = served(root_path="/volspike")
    answer = client.get("/volspike")
    assert (answer.status_code, answer.headers["location"]) == (308, "/volspike/")
    assert client.get("/volspikes").status_code == 404
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/volspike"}]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_have_relative_links(client: Any, path: str) -> None:
    """They work under any prefix."""
    assert 'href="/' not in client.get(path).text


@pytest.mark.parametrize("prefix", ["volspike", "/volspike/", "/a//b", "/a?b", "/ä"])
def test_an_invalid_prefix_is_refused(prefix: str) -> None:
    """It begins with a slash and does not end with one."""
    with pytest.raises(UsageError, match="root_path"):
        load_settings(ServingSettings, {"root_path": prefix}, {}, None, "serving")


def test_the_prefix_needs_the_key_as_well(served: Any) -> None:
    """No spelling of a path avoids the key, and health checks need none under the prefix either."""
    client = served(root_path="/volspike", api_key=Secret("correct-horse-battery"))
    paths = ("/volspike/version", "/version", "/volspike/health", "/volspike/volspike/version")
    assert [client.get(path).status_code for path in paths] == [401, 401, 200, 401]
