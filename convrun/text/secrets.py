"""Secrets that must not be written or shown: those in environment variables, and those in URLs.

A variable counts as a secret by its name (`WANDB_API_KEY`, `HF_TOKEN`, `DB_PASSWORD`). A recipe that refers to one as
`${env:NAME}` keeps that reference wherever it is saved (`convrun.recipe.substitution`); this module masks its value in
everything else that is written or shown: messages, command lines, reports.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|TOKEN$|API_?KEY|(^|_)(TOKENS?|KEYS?|PASS|PAT|JWT|CREDS?)(_|$)",
    re.IGNORECASE,
)
# A shorter value is hardly a secret, and would be found in any text.
SHORTEST = 6
_USER_OF_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s'\"]*@")
_QUERY_OF_URL = re.compile(
    r"([?&][^=&\s'\"]*(?:token|key|secret|passw|pwd|sig|credential|auth)[^=&\s'\"]*=)[^&#\s'\"]+", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def masked(data: Any, env: Mapping[str, str] = os.environ) -> Any:
    """Text, or plain data with texts in it: the values of secret variables as `${env:NAME}`, those in URLs as `***`."""
    if isinstance(data, str):
        return _masked(data, [(value, f"${{env:{name}}}") for name, value in _secrets(env)])
    if isinstance(data, Mapping):
        return {key: masked(item, env) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [masked(item, env) for item in data]
    return data


def blotted(text: str, env: Mapping[str, str] = os.environ) -> str:
    """The text with the values of secret variables as asterisks, every other character where it was."""
    return _masked(text, [(value, "*" * len(value)) for _, value in _secrets(env)], in_urls=False)


def _masked(text: str, replacements: list[tuple[str, str]], in_urls: bool = True) -> str:
    for value, stand_in in replacements:
        if value in text:
            text = text.replace(value, stand_in)
    if in_urls and "://" in text:
        text = _QUERY_OF_URL.sub(r"\1***", _USER_OF_URL.sub(r"\1***@", text))
    return text


def _secrets(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(name, value), each value also as Python and JSON quote it; the longest first, as one may be part of another."""
    found = [(name, value) for name, value in env.items() if len(value) >= SHORTEST and is_secret_name(name)]
    for name, value in sorted(found, key=lambda item: -len(item[1])):
        yield name, value
        for quoted in {repr(value)[1:-1], json.dumps(value)[1:-1]} - {value}:
            yield name, quoted
