"""What a contract consists of: what convrun hands in, what it expects back, the keys that all of a kind share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
        name: `optimizer`.
        module: the module that holds convrun's own components of this kind.
        section: where a recipe names them.
        receives: the positional parameters convrun hands in, each with its meaning.
        returns: what the component must give back.
        settings: a dataclass of keys that every section of the kind takes, or None.
        required_keys: keys that every component of the kind must have, for convrun reads them.
        is_list: whether the section is a list of components.
        required_meta: names that `register(..., name=value)` must give for the kind.
        optional_meta: names that it may give.
    """

    name: str
    module: str
    section: str
    receives: dict[str, str]
    returns: str
    settings: type[Any] | None = None
    required_keys: tuple[str, ...] = ()
    is_list: bool = False
    required_meta: dict[str, str] = field(default_factory=dict)
    optional_meta: dict[str, str] = field(default_factory=dict)

    @property
    def with_article(self) -> str:
        """`an optimizer`, `a model`: for messages."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"
