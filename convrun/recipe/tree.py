"""YAML text -> a tree of nodes, each with its place: YAML 1.2 scalars, no duplicate keys, no tags, bounded size.

The tree is composed from PyYAML's events rather than by its own composer, for four reasons: every node keeps its
place, a duplicate key is an error, scalars follow YAML 1.2's core schema (`4e-3` is a float, `on` a string), and an
alias bomb or a thousand brackets give an error before they fill the memory.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from convrun.recipe.problems import Place, Problem, RecipeError
from convrun.recipe.scalars import is_unicode, scalar

MOST_BYTES = 1 << 20
MOST_NODES = 20_000
DEEPEST = 40
_TOO_DEEP = f"nested deeper than {DEEPEST} levels"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # those of YAML 1.1, by which libyaml counts lines


@dataclasses.dataclass(frozen=True)
class Node:
    """A value of a recipe and where it was written.

    Attributes:
        value: a scalar, a list of nodes, or a dict of nodes.
        place: where the value starts.
        key_place: where its key starts, if it is the value of a key.
        is_plain: for text, whether it was written without quotes.
        size: the number of nodes, itself included; aliases count each time they are used.
        reference: for text that a secret was filled into, what was written: `${env:NAME}`.
    """

    value: Any
    place: Place
    key_place: Place | None = None
    is_plain: bool = False
    size: int = 1
    reference: str | None = None

    def plain(self) -> Any:
        """The value as plain Python data, without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, path: tuple[str | int, ...]) -> Node | None:
        """The node at a path below this one."""
        node: Node = self
        for step in path:
            is_key = isinstance(node.value, dict) and step in node.value
            is_index = isinstance(node.value, list) and isinstance(step, int) and step < len(node.value)
            if not (is_key or is_index):
                return None
            node = node.value[step]
        return node

    def with_value(self, value: Any) -> Node:
        """The same place with another value."""
        return dataclasses.replace(self, value=value)


def read_file(path: Path, shown_as: str | None = None) -> Node:
    """The tree of a recipe file.

    Raises:
        RecipeError: unreadable, not UTF-8, not YAML, too large, a duplicate key, or not a map.
    """
    shown = shown_as or str(path)
    here = Place(shown, 0, 0)
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RecipeError([Problem(here, (), f"cannot be read: {error.strerror or error}")]) from None
    if len(raw) > MOST_BYTES:
        raise RecipeError([Problem(here, (), "is larger than 1 MiB; is it a recipe?")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem(Place(shown, line, 1), (), f"byte {error.start} is not UTF-8", "save the file as UTF-8")
        raise RecipeError([problem]) from None
    root = read_text(text, shown)
    if not isinstance(root.value, dict):
        what = "is empty" if root.value is None else f"holds {_called(root.value)}"
        raise RecipeError([Problem(here, (), f"{what}, but a recipe is a map of keys", "convrun copy makes a start")])
    return root


def read_text(text: str, source: str) -> Node:
    """The tree of one YAML document.

    Raises:
        RecipeError: not YAML, or a feature of YAML that recipes do not use.
    """
    if not is_unicode(text):
        raise RecipeError([Problem(Place(source, 0, 0), (), "is not UTF-8")])
    return _Composer(text, source).document()


class _Composer:
    def __init__(self, text: str, source: str) -> None:
        self.lines = _LINE_BREAK.split(text)
        self.source = source
        self.text = text
        self.anchors: dict[str, Node | None] = {}  # None: the node is not complete yet
        self.problems: list[Problem] = []
        self.nodes = 0

    def document(self) -> Node:
        try:
            self.events: Iterator[Any] = yaml.parse(self.text, Loader=_Loader)
            next(self.events)
            event = next(self.events)
            if isinstance(event, yaml.StreamEndEvent):
                return Node(None, Place(self.source, 1, 1))
            root = self.node(next(self.events), 0)
            next(self.events)
            event = next(self.events)
            if not isinstance(event, yaml.StreamEndEvent):
                self.stop(event, "a second document starts here", "one file is one recipe")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = self.place(mark) if mark else Place(self.source, 0, 0)
            if "maximum nesting depth" in str(error.problem):  # libyaml has a limit of its own, far above ours
                raise RecipeError([*self.problems, Problem(place, (), _TOO_DEEP)]) from None
            context = f" ({error.context})" if error.context else ""
            problem = Problem(place, (), f"not YAML: {error.problem or 'syntax error'}{context}", _syntax_cure(place))
            raise RecipeError([*self.problems, problem]) from None
        except yaml.YAMLError as error:
            raise RecipeError([*self.problems, self.unreadable(error)]) from None
        if self.problems:
            raise RecipeError(self.problems)
        return root

    def unreadable(self, error: yaml.YAMLError) -> Problem:
        """The problem of a character that no YAML file may hold; PyYAML's own error does not say where it is."""
        bad = next((i for i, c in enumerate(self.text) if (c < " " and c not in "\t\n\r") or c == "\x7f"), None)
        if bad is None:
            reason = str(error).splitlines()[0] if str(error) else "syntax error"
            return Problem(Place(self.source, 0, 0), (), f"not YAML: {reason}")
        before = _LINE_BREAK.split(self.text[:bad])
        place = Place(self.source, len(before), len(before[-1]) + 1, self.lines[len(before) - 1])
        return Problem(place, (), f"not YAML: the control character {self.text[bad]!r}", "remove it; is it a recipe?")

    def place(self, mark: Any) -> Place:
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Place(self.source, mark.line + 1, mark.column + 1, text)

    def stop(self, event: Any, message: str, cure: str = "") -> NoReturn:
        raise RecipeError([*self.problems, Problem(self.place(event.start_mark), (), message, cure)])

    def count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MOST_NODES:
            self.stop(event, f"more than {MOST_NODES:,} values, aliases counted each time", "write them out, or fewer")

    def node(self, event: Any, depth: int) -> Node:
        if depth > DEEPEST:
            self.stop(event, _TOO_DEEP)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        self.check_tag(event)
        self.count(event, 1)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            is_plain = event.implicit[0] and not event.style and event.tag is None
            value = scalar(event.value) if is_plain else event.value
            node = Node(value, self.place(event.start_mark), is_plain=is_plain)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(event, depth)
        else:
            node = self.mapping(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
            self.stop(event, f"the tag {event.tag} is not allowed", "a recipe holds plain values only")

    def alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            self.stop(event, f"there is no &{event.anchor} before *{event.anchor}", "define the anchor first")
        node = self.anchors[event.anchor]
        if node is None:
            self.stop(event, f"*{event.anchor} is inside the value it refers to", "write it out")
        self.count(event, node.size)
        return node

    def sequence(self, start: Any, depth: int) -> Node:
        items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, depth + 1))
        return Node(items, self.place(start.start_mark), size=1 + sum(item.size for item in items))

    def mapping(self, start: Any, depth: int) -> Node:
        items: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            place = self.place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                self.stop(event, "a key must be text")
            self.check_tag(event)
            key = event.value
            value = dataclasses.replace(self.node(next(self.events), depth + 1), key_place=place)
            if key == "<<":
                self.problems.append(Problem(place, (key,), "merge keys are YAML 1.1", "use extends"))
            elif key in items:
                first = items[key].key_place
                line = first.line if first else 0
                self.problems.append(Problem(place, (key,), f"is given twice, first on line {line}", "keep one"))
            else:
                items[key] = value
        return Node(items, self.place(start.start_mark), size=1 + sum(item.size for item in items.values()))


def _called(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"the value {value!r}"[:60]


def _syntax_cure(place: Place) -> str:
    if "\t" in place.text:
        return "YAML indents with spaces, not tabs"
    if "${" in place.text:
        return 'put "${env:...}" in quotes'
    return ""
