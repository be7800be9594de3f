"""Imports go one way, from the entry down to the ground. Imports inside functions and for type checkers count, too.

Components are no exception: the registry finds them by name, as it finds a plugin's, so no room imports them.
"""

import ast
import graphlib
import re
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "convrun"
# From the ground up, each room on the lowest floor that what it needs allows; the files of convrun/ itself are "".
FLOORS = (
    ("", "errors", "randomness", "text"),
    ("augment", "files", "keys", "models", "process"),
    ("contracts", "run_folder"),
    ("checkpoints", "registry"),
    ("distributed", "plugins"),
    ("recipe",),
    ("importing", "plan"),
    ("data", "display", "weights"),
    ("launching", "results", "training"),
    ("components", "validation"),
    ("verbs",),
    ("cli",),
    ("entry",),
    ("__main__", "task"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported_by(module):
    """The modules of convrun that a module names in any import statement, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute here"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return {name for name in found if name in MODULES} - {module}


def room_of(module):
    return module.partition(".")[2].partition(".")[0]


def test_a_room_imports_only_rooms_on_lower_floors():
    edges = [(room_of(a), room_of(b), f"{a} imports {b}") for a in MODULES for b in imported_by(a)]
    assert len(edges) > 500  # the graph is really read
    assert not [line for a, b, line in edges if a != b and FLOOR_OF[a] <= FLOOR_OF[b]]
    assert not [line for a, b, line in edges if a != b == "components"]


def test_every_room_stands_on_a_floor_and_on_the_map_in_contributing():
    rooms = {room_of(module) for module in MODULES}
    assert sorted(FLOOR_OF) == sorted(rooms)
    words = re.findall(r"[\w/]+", (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert not [room for room in rooms - {"", "__main__"} if room not in words and f"{room}/" not in words]


def test_no_modules_import_each_other_in_a_circle():
    try:
        graphlib.TopologicalSorter({module: imported_by(module) for module in MODULES}).prepare()
    except graphlib.CycleError as error:
        circle = " imports ".join(reversed(error.args[1]))
    else:
        circle = ""
    assert not circle


def test_contracts_import_nothing_of_convrun_but_keys_and_what_lies_on_the_ground():
    for module in MODULES:
        if room_of(module) == "contracts":
            rooms = {room_of(name) for name in imported_by(module)}
            assert rooms <= {"contracts", "keys", "errors", "randomness"}, module
