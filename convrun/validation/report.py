"""`convrun validate`: a recipe's plan, or everything that is wrong with it, as text and as data."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from typing import Any

from convrun.display.plan_text import plan_text
from convrun.errors import ConvrunError
from convrun.plan import Machine, make_plan
from convrun.recipe import load_recipe, split_arguments
from convrun.recipe.problems import RecipeError
from convrun.registry import registry
from convrun.text.secrets import masked
from convrun.text.wording import printable


@dataclasses.dataclass(frozen=True)
class Report:
    """What `validate` says of one recipe."""

    exit_code: int
    text: str
    data: dict[str, Any]


def validate_and_print(
    arguments: Sequence[str],
    *,
    processes: int = 1,
    build: bool = False,
    groups: bool = False,
    data: bool = False,
    plugins: bool = True,
    as_json: bool = False,
) -> int:
    """Checks every recipe among the arguments under the overrides among them; returns the exit code."""
    sources, overrides = split_arguments(arguments)
    also = {name for name, wanted in (("build", build), ("groups", groups), ("data", data)) if wanted}
    reports = [validated(s, overrides, processes, also, plugins=plugins) for s in sources]
    if as_json:
        from convrun.text.json_text import json_text

        print(json_text(masked([report.data for report in reports])))
    else:
        for report in reports:
            print(masked(report.text), file=sys.stderr if report.exit_code else sys.stdout)
    return max(report.exit_code for report in reports)


def validated(
    source: str, overrides: Sequence[str], processes: int, also: Collection[str] = (), *, plugins: bool = True
) -> Report:
    """Checks one recipe.

    Args:
        source: a path or a shipped recipe's name.
        overrides: KEY=VALUE strings.
        processes: how many processes to plan for.
        also: `build` builds the model, `groups` names every parameter of its groups, `data` opens the data.
        plugins: whether plugins are loaded.
    """
    try:
        recipe = load_recipe(source, overrides, plugins=plugins)
        plan = make_plan(recipe, Machine(processes=processes))
        text, found = [plan_text(recipe, plan)], {"recipe": source, "valid": True, "plan": plan.as_dict()}
        if registry.searched:
            text.append(f"{'plugins':<12} {printable(', '.join(registry.searched))}")
            found["plugins"] = registry.searched
        elif not plugins:
            listed = f", though the recipe lists {printable(', '.join(recipe.plugins))}" if recipe.plugins else ""
            text.append(f"{'plugins':<12} none loaded (--no-plugins){listed}")
            found["plugins"] = []
        for name in recipe.plugins:
            if name in registry.failures:
                text.append(f"{'warning':<12} plugin {name} failed to import: {registry.failures[name]}")
        if "build" in also or "groups" in also:
            from convrun.validation.built_model import built_model

            lines, found["model"] = built_model(plan, with_names="groups" in also)
            text += lines
        if "data" in also:
            from convrun.validation.opened_data import opened_data

            lines, found["data"] = opened_data(plan)
            text += lines
        return Report(0, "\n".join(text), found)
    except RecipeError as error:
        problems = [
            {
                "place": str(p.place) if p.place else None,
                "key": ".".join(map(str, p.path)),
                "message": p.message,
                "cure": p.cure,
            }
            for p in error.problems
        ]
        count = len(problems)
        text = [f"{error}", f"{source}: {count} problem{'s' if count > 1 else ''}"]
        return Report(error.exit_code, "\n".join(text), {"recipe": source, "valid": False, "problems": problems})
    except ConvrunError as error:
        found = {"recipe": source, "valid": False, "problems": [{"message": str(error)}]}
        return Report(error.exit_code, f"error: {error}", found)
