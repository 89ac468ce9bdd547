"""A proxy that is set for downloads gets nothing that SGLang asks itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from requests.utils import should_bypass_proxies

from oea_server.engine import proxies


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1,10.0.0.5"),
        ({"no_proxy": "a.example, b"}, "a.example,b,localhost,127.0.0.1,::1,10.0.0.5"),
        ({"NO_PROXY": "127.0.0.1"}, "127.0.0.1,localhost,::1,10.0.0.5"),
        ({"no_proxy": "a", "NO_PROXY": "b,a"}, "a,b,localhost,127.0.0.1,::1,10.0.0.5"),
        ({"no_proxy": "*"}, "*,localhost,127.0.0.1,::1,10.0.0.5"),
    ],
)
def test_what_was_exempt_stays_so(before: dict[str, str], after: str) -> None:
    environ = dict(before)
    proxies.spare(SimpleNamespace(url=lambda: "http://10.0.0.5:30000"), environ)
    assert environ == {"no_proxy": after, "NO_PROXY": after}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "https://10.0.0.5:1"])
def test_sglangs_client_then_goes_by_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ: dict[str, str] = {}
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert not should_bypass_proxies(f"{url}/model_info", None)
    proxies.spare(SimpleNamespace(url=lambda: url), environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert should_bypass_proxies(f"{url}/model_info", None)
