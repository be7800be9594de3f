"""What a contract consists of: what convrun passes, what it expects back, and the keys that all of a kind share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of component. `convrun describe KIND` prints all of it, types with their fields and methods.

    Keys that several components of the kind share are in its module, `convrun.contracts.NAME`: each is a type that
    carries a text, which says what the key means.

    Attributes:
        name: `optimizer`.
        module: the module that holds convrun's own components of this kind.
        section: where a recipe names them.
        receives: the positional arguments that convrun passes, each with its type, or its meaning in words.
        returns: what the component must return: a type, or words.
        rules: what convrun relies on and cannot check.
        required_keys: keys that every component of the kind must have, because convrun reads them.
        settings: a dataclass of keys that every section of the kind takes, or None.
        is_list: whether the section is a list of components.
        required_meta: names that `register(..., name=value)` must be passed for the kind.
        optional_meta: names that it may be passed.
    """

    name: str
    module: str
    section: str
    receives: Mapping[str, str | type[Any]] = field(default_factory=dict)
    returns: str | type[Any]
    rules: tuple[str, ...] = ()
    required_keys: tuple[str, ...] = ()
    settings: type[Any] | None = None
    is_list: bool = False
    required_meta: Mapping[str, str] = field(default_factory=dict)
    optional_meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def with_article(self) -> str:
        """`an optimizer`, `a model`: for messages."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"
