"""Names -> components: `@register(kind, name)` registers a builder, `find(kind, name)` looks it up.

A component is a function (or class). Its positional parameters are what convrun passes (`convrun.contracts`), its
keyword-only parameters are the keys a recipe may set. A name that ends in `/*` is a family: `timm/*` also builds
`timm/resnet50`, and is then passed `resnet50` as its first argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from convrun.contracts import KINDS, Kind
from convrun.errors import ConvrunError, PluginError
from convrun.keys import Key, keys_of, keys_of_section
from convrun.keys.key_sets import KeySet

T = TypeVar("T", bound=Callable[..., Any])


class UnknownComponent(ConvrunError):
    """No component has this name."""

    exit_code = 2

    def __init__(self, message: str, nearest: list[str]) -> None:
        super().__init__(message)
        self.nearest = nearest


class AmbiguousComponent(PluginError):
    """Two components have this name."""


@dataclasses.dataclass(frozen=True)
class Component:
    """A named builder.

    Attributes:
        kind: one of `convrun.contracts.KINDS`.
        name: what a recipe writes.
        build: the function or class behind it.
        provider: `convrun`, or the plugin that registered it.
        meta: what was passed to `register` besides kind and name (`place`, `facts`, `parameters`, ...).
        member: for a family, the part of the name after the slash.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    provider: str
    meta: Mapping[str, Any]
    member: str | None = None

    @property
    def is_family(self) -> bool:
        """Whether the name stands for many (`timm/*`)."""
        return self.name.endswith("/*")

    @functools.cached_property
    def summary(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join((inspect.getdoc(self.build) or "").split("\n\n")[0].split())

    @property
    def source(self) -> str:
        """`file:line` of the definition."""
        code = getattr(inspect.unwrap(self.build), "__code__", None)
        if code is not None:
            return f"{code.co_filename}:{code.co_firstlineno}"
        return f"{inspect.getsourcefile(self.build)}:{inspect.getsourcelines(self.build)[1]}"

    @property
    def origin(self) -> str:
        """Who provides it and where it is defined, for messages."""
        return f"{self.provider} ({self.source})"

    @functools.cached_property
    def own_keys(self) -> tuple[Key, ...]:
        """The keys of the component itself."""
        try:
            return keys_of(self.build)
        except TypeError as error:
            raise PluginError(f"{self.kind}/{self.name} from {self.origin}: {error}") from error

    @functools.cached_property
    def keys(self) -> KeySet:
        """All keys that its section may set: its own, then those of its kind."""
        settings = KINDS[self.kind].settings
        return KeySet((*self.own_keys, *(keys_of_section(settings) if settings else ())))

    def create(self, *arguments: Any, **values: Any) -> Any:
        """Builds it from the positional arguments of its kind's contract and the values of its keys.

        Values of the keys that its kind adds are ignored: convrun acts on those itself.
        """
        own = {key.name for key in self.own_keys}
        kinds = set(self.keys.keys) - own
        if self.member is not None:
            arguments = (self.member, *arguments)
        with self.errors_attributed():
            return self.build(*arguments, **{name: value for name, value in values.items() if name not in kinds})

    def ask(self, question: str, *arguments: Any, **values: Any) -> Any:
        """Calls a function that was passed to `register` besides the builder: `check`, `facts`, `parameters`, ..."""
        with self.errors_attributed():
            return self.meta[question](*arguments, **values)

    @contextlib.contextmanager
    def errors_attributed(self) -> Iterator[None]:
        """Whatever a plugin's component raises inside becomes a PluginError that names the component."""
        try:
            yield
        except ConvrunError:
            raise
        except Exception as error:
            if self.provider == "convrun":
                raise
            raise PluginError(
                f"{self.kind}/{self.name} from {self.origin} failed: {type(error).__name__}: {error}; "
                "run again with --debug to see where"
            ) from error


class Registry:
    """All components known to this process."""

    def __init__(self) -> None:
        self._components: dict[tuple[str, str], list[Component]] = {}
        self._provider = "convrun"
        self.failures: dict[str, str] = {}
        self.searched: list[str] = []

    def register(self, kind: str, name: str, **meta: Any) -> Callable[[T], T]:
        """Registers the decorated function or class under a kind and a name.

        Raises:
            PluginError: an unknown kind, or a signature that breaks the kind's contract.
        """
        contract = self._contract(kind)

        def add(build: T) -> T:
            provider = "convrun" if build.__module__.partition(".")[0] == "convrun" else self._provider
            component = Component(kind, name, build, provider, meta)
            _check_contract(component, contract)
            same_name = self._components.setdefault((kind, name), [])
            same_name[:] = [c for c in same_name if c.source != component.source]
            same_name.append(component)
            return build

        return add

    @staticmethod
    def _contract(kind: str) -> Kind:
        if kind not in KINDS:
            raise PluginError(f"there is no kind of component named {kind!r}; the kinds are {', '.join(KINDS)}")
        return KINDS[kind]

    @contextlib.contextmanager
    def providing(self, provider: str) -> Iterator[None]:
        """Components registered inside belong to `provider`; all of them are removed if the block fails."""
        before, self._provider = self._provider, provider
        try:
            yield
        except BaseException:
            for found in self._components.values():
                found[:] = [c for c in found if c.provider != provider]
            raise
        finally:
            self._provider = before

    def find(self, kind: str, name: str) -> Component:
        """The component of this name.

        Raises:
            UnknownComponent: there is none; names the nearest, and the plugins that were searched or failed.
            AmbiguousComponent: there are two; says where each comes from.
        """
        self._load(kind)
        found = self._components.get((kind, name), [])
        if found and not found[0].is_family:
            return self._only(found)
        family, slash, member = name.partition("/")
        if slash and member and member != "*" and (kind, f"{family}/*") in self._components:
            whole = self.find_family(kind, f"{family}/*")
            return dataclasses.replace(whole, name=name, member=member)
        raise self._unknown(kind, name)

    @staticmethod
    def _only(found: list[Component]) -> Component:
        if len(found) > 1:
            places = " and by ".join(component.origin for component in found)
            name = f"{found[0].kind}/{found[0].name}"
            raise AmbiguousComponent(f"two components are named {name}, by {places}; rename one")
        return found[0]

    def find_family(self, kind: str, name: str) -> Component:
        """The family registered as `name` (with its `/*`).

        Raises:
            UnknownComponent, AmbiguousComponent: as `find`.
        """
        self._load(kind)
        found = self._components.get((kind, name), [])
        if not found:
            raise self._unknown(kind, name)
        return self._only(found)

    def _unknown(self, kind: str, name: str) -> UnknownComponent:
        import difflib

        names = [component.name for component in self.all(kind)]
        nearest = difflib.get_close_matches(name, names, 3, 0.6) or [n for n in names if name.lower() in n.lower()][:3]
        message = f"no {kind} is named {name[:60]!r}"
        if nearest:
            message += f"; did you mean {' or '.join(nearest)}?"
        else:
            message += f"; convrun list components --kind {kind} shows all"
        if self.searched:
            message += f" (plugins searched: {', '.join(self.searched)})"
        for plugin, reason in self.failures.items():
            message += f" (plugin {plugin} failed to import: {reason})"
        return UnknownComponent(message, nearest)

    def all(self, kind: str | None = None, pattern: str = "*") -> list[Component]:
        """Every component of a kind (or of all) whose name, or kind/name, matches a shell pattern, sorted."""
        for each in [kind] if kind else KINDS:
            self._load(each)
        wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
        return sorted(
            (
                component
                for (component_kind, name), found in self._components.items()
                if kind in (None, component_kind)
                for component in found
                if fnmatch.fnmatch(name, wanted) or fnmatch.fnmatch(f"{component_kind}/{name}", wanted)
            ),
            key=lambda c: (list(KINDS).index(c.kind), c.name),
        )

    def _load(self, kind: str) -> None:
        importlib.import_module(self._contract(kind).module)


def _check_contract(component: Component, contract: Kind) -> None:
    parameters = inspect.signature(component.build).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wanted = [*(["member"] if component.is_family else []), *contract.receives]
    if len(positional) != len(wanted):
        raise PluginError(
            f"{component.kind}/{component.name} ({component.source}) takes {positional or 'nothing'} by position, but "
            f"{contract.with_article} is passed ({', '.join(wanted)}); put the recipe's keys after a lone *"
        )
    keys = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    taken = {"name", *getattr(contract.settings, "__dataclass_fields__", ())}
    clash = [name for name in keys if name in taken]
    if clash:
        raise PluginError(
            f"{component.kind}/{component.name} ({component.source}) has a key {clash[0]}, which every "
            f"{component.kind} section has already; rename it"
        )
    if lacking := [name for name in contract.required_keys if name not in keys]:
        raise PluginError(
            f"{component.kind}/{component.name} ({component.source}) has no key {lacking[0]}, which "
            f"{contract.with_article} must have; put it after a lone *"
        )
    missing = [name for name in contract.required_meta if name not in component.meta]
    if missing:
        needs = "; ".join(f"{name}= ({contract.required_meta[name]})" for name in missing)
        raise PluginError(f"{component.kind}/{component.name} ({component.source}): register() needs {needs}")


registry = Registry()
register = registry.register
