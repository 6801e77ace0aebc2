from __future__ import annotations

from typing import Final

import pytest
from aiohttp.test_utils import make_mocked_request

from spool.web.secret_paths import path_to_log

SECRET: Final = "Ab-_" * 10 + "xyz"
ID: Final = "0f" * 16


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        (f"/g/{SECRET}", "/g/..."),
        (f"/g/{SECRET}/a.txt", "/g/.../a.txt"),
        (f"/g/{SECRET}/tus/{ID}", f"/g/.../tus/{ID}"),
        (f"/l/{SECRET}", "/l/..."),
        (f"/d/{ID}/{SECRET}", f"/d/{ID}/..."),
        ("/g/half", "/g/..."),
        (f"/d/{ID}/half", f"/d/{ID}/..."),
        ("/d/half/half", "/d/..."),
        ("/G/half", "/G/..."),
        (f"/D/{ID}/half", f"/D/{ID}/..."),
        ("/g/./half", "/g/./..."),
        ("/l/.././half", "/l/.././..."),
        ("/x//g//half", "/x//g//..."),
        (f"/d/./{ID}/half", "/d/..."),
        ("/%67/half", "/g/..."),
        ("/g%2Fhalf", "/g/..."),
        ("/g%2f%2e%2fhalf", "/g/./..."),
        (f"/d/{ID}%2Fhalf", f"/d/{ID}/..."),
        ("/spool/g/half", "/spool/g/..."),
        (f"/g/x/../{SECRET}", "/g/.../../..."),
        (f"/%2567/{SECRET}", "/%67/..."),
        (f"/g\\{SECRET}", "/g\\..."),
        (f"/{SECRET}", "/..."),
        (f"/files/spool_{SECRET}", "/files/..."),
        (f"/g/%0a{SECRET}/%0a{SECRET}", "/g/.../\n..."),
    ],
)
def test_secret_is_not_logged_wherever_a_path_has_it(path: str, logged: str) -> None:
    assert path_to_log(make_mocked_request("GET", path)) == logged


@pytest.mark.parametrize("path", ["/", "/g", "/files/g", "/grants", f"/files/{ID}/content", f"/media/{ID}/a%20b.txt"])
def test_path_without_a_secret_is_logged_as_it_is(path: str) -> None:
    assert path_to_log(make_mocked_request("GET", path)) == path.replace("%20", " ")
