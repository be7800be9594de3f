import dataclasses
import textwrap
from typing import Annotated

import pytest

from convrun.contracts import KINDS
from convrun.errors import KeyProblem, PluginError
from convrun.keys import Limits, PositiveFloat
from convrun.keys.type_text import type_text
from convrun.registry import AmbiguousComponent, UnknownComponent


def test_a_registered_function_is_found_under_its_kind_and_name(fresh_registry):
    @fresh_registry.register("loss", "mine", extra=3)
    def mine(*, weight: PositiveFloat = 1.0):
        """A loss of mine.

        weight: how much it counts
        """
        return weight

    component = fresh_registry.find("loss", "mine")
    assert component.build is mine, "the decorator gives the function back"
    assert (component.kind, component.name, component.summary, component.meta) == (
        "loss", "mine", "A loss of mine.", {"extra": 3},
    )  # fmt: skip
    assert component.source == f"{__file__}:{mine.__code__.co_firstlineno}"
    assert [(k.name, k.default, k.meaning) for k in component.own_keys] == [("weight", 1.0, "how much it counts")]
    assert component.create(weight=2.0) == 2.0


def test_a_class_is_a_component_too(fresh_registry):
    @fresh_registry.register("callback", "mine")
    class Mine:
        """A callback."""

        def __init__(self, run, *, patience: int = 3):
            self.run, self.patience = run, patience

    component = fresh_registry.find("callback", "mine")
    assert [key.name for key in component.own_keys] == ["patience"]
    assert component.create("the run", patience=5).patience == 5
    assert component.source.startswith(f"{__file__}:")


def test_keys_of_the_kind_follow_the_components_own(fresh_registry):
    component = fresh_registry.find("optimizer", "lion")
    assert list(component.keys.keys) == ["lr", "weight_decay", "betas", *OPTIMIZER_SETTINGS]
    assert not set(OPTIMIZER_SETTINGS) & {key.name for key in component.own_keys}


OPTIMIZER_SETTINGS = ["layer_decay", "layer_decay_levels", "lr_for_batch"]


def test_create_leaves_the_kinds_keys_out(fresh_registry):
    @fresh_registry.register("optimizer", "echo")
    def echo(parameter_groups, *, lr: float):
        return parameter_groups, lr

    assert fresh_registry.find("optimizer", "echo").create("groups", lr=1.0, layer_decay=0.8) == ("groups", 1.0)


def test_a_family_answers_to_every_member_and_hands_the_member_in(fresh_registry):
    @fresh_registry.register("loss", "zoo/*")
    def zoo(member, *, x: int = 0):
        return member, x

    component = fresh_registry.find("loss", "zoo/lion/cub")
    assert (component.name, component.member) == ("zoo/lion/cub", "lion/cub")
    assert component.create(x=2) == ("lion/cub", 2)
    assert fresh_registry.find_family("loss", "zoo/*").is_family
    for name in ("zoo", "zoo/", "zoo/*"):
        with pytest.raises(UnknownComponent):
            fresh_registry.find("loss", name)


@pytest.mark.parametrize("call", ["find", "find_family"])
def test_two_of_one_name_are_an_error_that_names_both_origins(fresh_registry, call):
    name = "twice/*" if call == "find_family" else "twice"
    places = []
    for provider in ("plugin a", "plugin b"):
        module = {"__name__": f"{provider[-1]}_module", "registry": fresh_registry}
        source = f"@registry.register('loss', {name!r})\ndef f({'member' if '*' in name else ''}):\n    pass\n"
        with fresh_registry.providing(provider):
            exec(compile(source, f"/{provider[-1]}.py", "exec"), module)
        places.append(rf"{provider} \(/{provider[-1]}\.py:\d\)")
    with pytest.raises(AmbiguousComponent, match=rf"two components are named .*, by {places[0]} and by {places[1]}"):
        getattr(fresh_registry, call)("loss", name)


def test_a_member_of_an_ambiguous_family_is_ambiguous(fresh_registry):
    for line in ("\n", "\n\n"):
        exec(compile(f"{line}@registry.register('loss', 'zoo/*')\ndef f(member): pass", "/a.py", "exec"),
             {"__name__": "a", "registry": fresh_registry})  # fmt: skip
    with pytest.raises(AmbiguousComponent, match=r"two components are named loss/zoo/\*"):
        fresh_registry.find("loss", "zoo/lion")


def test_registering_the_same_lines_again_replaces(fresh_registry):
    code = compile("@registry.register('loss', 'again')\ndef f(): pass", "/again.py", "exec")
    for _ in range(2):
        exec(code, {"__name__": "again", "registry": fresh_registry})
    assert fresh_registry.find("loss", "again").source == "/again.py:1"


# Names that are not there


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("optimizer", "adamm", "did you mean"),
        ("scheduler", "cosin", r"did you mean cosine\?"),
        ("model", "tiny", "did you mean convnext_tiny"),
        ("loss", "qqqq", "convrun list components --kind loss shows all"),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_the_verb_that_lists_them(fresh_registry, kind, name, hint):
    with pytest.raises(UnknownComponent, match=rf"no {kind} is named '{name}'; .*{hint}") as caught:
        fresh_registry.find(kind, name)
    assert caught.value.exit_code == 2


def test_an_unknown_name_tells_which_plugins_were_searched_and_which_failed(fresh_registry):
    fresh_registry.searched += ["plugins/a.py", "plugins/b.py"]
    fresh_registry.failures["plugins/b.py"] = "SyntaxError: invalid syntax"
    with pytest.raises(UnknownComponent) as caught:
        fresh_registry.find("loss", "qqqq")
    assert "(plugins searched: plugins/a.py, plugins/b.py)" in str(caught.value)
    assert "(plugin plugins/b.py failed to import: SyntaxError: invalid syntax)" in str(caught.value)


def test_a_long_unknown_name_is_cut(fresh_registry):
    with pytest.raises(UnknownComponent) as caught:
        fresh_registry.find("loss", "x" * 100_000)
    assert len(str(caught.value)) < 300


def test_an_unknown_kind_lists_the_kinds(fresh_registry):
    with pytest.raises(PluginError, match=r"no kind of component named 'optimiser'; the kinds are model, data, "):
        fresh_registry.register("optimiser", "x")
    with pytest.raises(PluginError, match="no kind of component named 'optimiser'"):
        fresh_registry.find("optimiser", "x")


# What breaks a kind's contract


def one(x):
    pass


def none(*, x: int = 0):
    pass


def variadic(*args):
    pass


@pytest.mark.parametrize(
    ("kind", "build", "message"),
    [
        ("loss", one, r"takes \['x'\] by position, but a loss is passed \(\); put the recipe's keys after a lone \*"),
        ("optimizer", none, r"takes nothing by position, but an optimizer is passed \(parameter_groups\)"),
        ("scheduler", variadic, r"takes nothing by position, but a scheduler is passed \(horizon\)"),
    ],
)
def test_a_signature_that_breaks_the_contract_is_refused(fresh_registry, kind, build, message):
    with pytest.raises(PluginError, match=rf"{kind}/x \(.*test_registry\.py:\d+\) {message}"):
        fresh_registry.register(kind, "x")(build)


def test_a_family_takes_its_member_first(fresh_registry):
    with pytest.raises(PluginError, match=r"takes nothing by position, but a loss is passed \(member\)"):
        fresh_registry.register("loss", "x/*")(none)


@pytest.mark.parametrize(("kind", "meta"), [("augmentation", "place"), ("data", "facts")])
def test_what_a_kind_needs_beside_the_builder_is_asked_for(fresh_registry, kind, meta):
    with pytest.raises(PluginError, match=rf"register\(\) needs {meta}= \("):
        fresh_registry.register(kind, "x")(one)


def test_a_key_that_convrun_reads_must_be_there(fresh_registry):
    def without(parameter_groups, *, momentum: float = 0.9):
        pass

    with pytest.raises(
        PluginError, match=r"optimizer/x \(.*\) has no key lr, which an optimizer must have; put it after"
    ):
        fresh_registry.register("optimizer", "x")(without)


def test_a_key_that_every_section_has_already_is_refused(fresh_registry):
    def named(*, name: str = ""):
        pass

    def decayed(parameter_groups, *, lr: float, layer_decay: float = 1.0):
        pass

    with pytest.raises(PluginError, match=r"loss/x .* has a key name, which every loss section has already; rename it"):
        fresh_registry.register("loss", "x")(named)
    with pytest.raises(PluginError, match="has a key layer_decay, which every optimizer section has already"):
        fresh_registry.register("optimizer", "x")(decayed)


def test_a_key_without_an_annotation_is_told_when_it_is_needed(fresh_registry):
    def bare(*, x=0):
        pass

    fresh_registry.register("loss", "bare")(bare)
    with pytest.raises(PluginError, match=r"loss/bare from .*test_registry\.py:\d+\): no type annotation on x"):
        _ = fresh_registry.find("loss", "bare").own_keys


def test_an_annotation_that_names_nothing_is_told_when_it_is_needed(fresh_registry):
    module = {"__name__": "unresolved", "registry": fresh_registry}
    source = """
        from __future__ import annotations
        @registry.register("loss", "unresolved")
        def f(*, x: Missing = 0): pass
    """
    exec(textwrap.dedent(source), module)
    with pytest.raises(PluginError, match="an annotation cannot be read: name 'Missing' is not defined"):
        _ = fresh_registry.find("loss", "unresolved").own_keys


# What goes wrong inside a component


def broken(*, x: int = 0):
    """A loss."""
    raise ZeroDivisionError("by zero")


def test_a_plugins_error_is_reported_under_its_name(fresh_registry):
    with fresh_registry.providing("plugin mine.py"):
        fresh_registry.register("loss", "broken", check=broken)(broken)
    component = fresh_registry.find("loss", "broken")
    message = r"loss/broken from plugin mine\.py \(.*\) failed: ZeroDivisionError: by zero; run again with --debug"
    with pytest.raises(PluginError, match=message):
        component.create()
    with pytest.raises(PluginError, match=message):
        component.ask("check")


def test_a_refused_value_keeps_its_key(fresh_registry):
    def refusing():
        raise KeyProblem("x", "is odd", "take another")

    with fresh_registry.providing("plugin mine.py"):
        fresh_registry.register("loss", "refusing")(refusing)
    with pytest.raises(KeyProblem, match="is odd; take another"):
        fresh_registry.find("loss", "refusing").create()


def test_an_error_of_convruns_own_component_stays_what_it_is(fresh_registry):
    component = dataclasses.replace(fresh_registry.find("loss", "cross_entropy"), build=broken)
    with pytest.raises(ZeroDivisionError):
        component.create()


def test_nothing_stays_of_a_provider_that_fails(fresh_registry):
    with pytest.raises(RuntimeError, match="half way"), fresh_registry.providing("plugin mine.py"):
        fresh_registry.register("loss", "half")(none)
        raise RuntimeError("half way")
    with pytest.raises(UnknownComponent):
        fresh_registry.find("loss", "half")


# Lists


def test_components_are_listed_by_kind_then_name(fresh_registry):
    everything = fresh_registry.all()
    assert list(dict.fromkeys(c.kind for c in everything)) == list(KINDS)
    schedulers = [c.name for c in fresh_registry.all("scheduler")]
    assert schedulers == sorted(schedulers)
    assert {"cosine", "linear", "step", "constant"} <= set(schedulers)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("convnext_t*", {"convnext_tiny"}),
        ("_tiny", {"convnext_tiny", "convnextv2_tiny"}),
        ("scheduler/cos*", {"cosine"}),
        ("cosine", {"cosine"}),
        ("qqq", set()),
    ],
)
def test_a_pattern_is_a_shell_pattern_or_part_of_a_name(fresh_registry, pattern, names):
    assert {c.name for c in fresh_registry.all(pattern=pattern)} == names


def test_every_component_of_convruns_says_what_it_is_and_what_its_keys_mean(fresh_registry):
    for component in fresh_registry.all():
        if component.provider == "convrun":
            assert component.summary, component.name
            assert [k.name for k in component.keys.keys.values() if not k.meaning] == [], component.name


def test_a_plugins_limits_are_checked_like_our_own(fresh_registry):
    @fresh_registry.register("loss", "limited")
    def limited(*, share: Annotated[float, Limits(ge=0, lt=1)] = 0.5):
        pass

    (key,) = fresh_registry.find("loss", "limited").own_keys
    assert type_text(key.annotation) == "float ≥ 0 and < 1"
