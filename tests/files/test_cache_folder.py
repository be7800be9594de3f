"""Where downloads and copies are kept."""

from pathlib import Path

import pytest

from convrun.errors import UsageError
from convrun.files.cache_folder import cache_folder


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("CONVRUN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "/home/me/.cache/convrun"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/convrun"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/convrun"),
        ({"XDG_CACHE_HOME": "/xdg", "CONVRUN_CACHE": "/own"}, "/own"),
        ({"CONVRUN_CACHE": "~/own"}, "/home/me/own"),
    ],
)
def test_the_first_variable_that_is_set_counts(variables, folder, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_the_home_of_nobody_is_told_with_the_cure(monkeypatch):
    monkeypatch.setenv("CONVRUN_CACHE", "~nobody-here/cache")
    with pytest.raises(UsageError, match=r"cache folder ~nobody-here/cache cannot be found: .*set CONVRUN_CACHE"):
        cache_folder()
