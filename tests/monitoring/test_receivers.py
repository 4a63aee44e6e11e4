"""Display of a receiver's address: never a secret, whatever its form."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import structlog
from apprise.manager_plugins import NotificationManager
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.monitoring.alerts import AppriseReceiver, safe_address

# Apprise's mail plugin imports a module that Python 3.13 no longer has
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def every_form() -> list[str]:
    """Every URL form of every service in Apprise, from its templates."""
    forms = []
    services: Any = NotificationManager
    for plugin in services().plugins():
        schemes: list[str] = []
        for told in (plugin.protocol, plugin.secure_protocol):
            schemes += [told] if isinstance(told, str) else list(told or ())
        forms += [form.replace("{schema}", scheme) for scheme in schemes for form in getattr(plugin, "templates", ())]
    return forms


def test_no_form_of_any_service_shows_a_credential() -> None:
    """Only the scheme and the host of every URL form are shown."""
    forms = every_form()
    plain = {"host": "a.host", "port": "8443", "path": "/secret-path/"}
    assert len(forms) > 500
    for form in forms:
        url = re.sub(r"\{(\w+)\}", lambda part: plain.get(part[1], f"secret-{part[1]}"), form)
        shown = safe_address(url)
        assert shown in {url.split("://")[0] + "://…", url.split("://")[0] + "://a.host"}, (form, shown)
        assert "a.host" not in shown or "{host}" in form


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("json://user:hunter2@10.0.0.1:8080/hunter2?+X-Key=hunter2", "json://10.0.0.1"),
        ("jsons://[::1]:8080/hunter2", "jsons://[::1]"),
        ("mailto://me:hunter2@gmail.com", "mailto://gmail.com"),
        ("https://hooks.slack.com/services/hunter2/B/C", "https://hooks.slack.com"),
        ("slack://hunter2/B/C", "slack://…"),
        ("discord://1234/hunter2", "discord://…"),
        ("tgram://hunter2/123", "tgram://…"),
        ("json://user:hun/ter2@host/", "json://…"),
        ("json://user:hun?ter2@host/", "json://…"),
        ("json://user:hun#ter2@host/", "json://…"),
        ("json://user:hunter2", "json://…"),
        ("json://", "json://…"),
        ("JSON://HOST/hunter2", "json://HOST"),
        ("hunter2", "(no address)"),
    ],
)
def test_scheme_and_host_are_shown(url: str, shown: str) -> None:
    """The host is shown if it is certainly one, else only the scheme."""
    assert safe_address(url) == shown
    if "://" in url:
        assert repr(AppriseReceiver(url)) == f"AppriseReceiver({shown!r})"


@given(st.sampled_from(["json", "mailtos", "slack", "https"]), st.text(min_size=1), st.text())
def test_any_password_stays_hidden(scheme: str, user: str, password: str) -> None:
    """With any characters in user name and password, only the host or nothing is shown."""
    shown = safe_address(f"{scheme}://{user}:{password}§@a.host/x")
    assert shown in {f"{scheme}://…", f"{scheme}://a.host"}


def test_what_is_no_url_is_refused_and_not_repeated() -> None:
    """A token in place of a URL is an error that does not repeat it."""
    with pytest.raises(UsageError) as told:
        AppriseReceiver("hunter2")
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("url", ["nosuchservice://hunter2/sesame", "slack://hunter2", "json://[hunter2"])
def test_an_unusable_address_is_logged_once(url: str) -> None:
    """A URL that Apprise does not support fails each time and is logged once, without secrets."""
    receiver = AppriseReceiver(url)
    with structlog.testing.capture_logs() as logs:
        assert not receiver.send("title", "body")
        assert not receiver.send("title", "body")
    assert [entry["event"] for entry in logs] == ["alert_receiver_unusable"]
    assert "hunter2" not in str(logs)


def test_apprise_is_loaded_only_when_needed() -> None:
    """Importing the router and creating a receiver does not import Apprise, which takes a second."""
    code = (
        "import sys; from volspike.monitoring.alerts import AlertRouter; "
        "AlertRouter(['json://host']); print('apprise' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert told.stdout.strip() == "False"
