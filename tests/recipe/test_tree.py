import errno
import os
import time

import pytest

from convrun.recipe.problems import RecipeError
from convrun.recipe.tree import DEEPEST, MOST_NODES, read_file, read_text


def refusal(text):
    """What is wrong with a text: line, column, message."""
    with pytest.raises(RecipeError) as caught:
        read_text(text, "test")
    (problem,) = caught.value.problems
    return problem.place.line, problem.place.column, f"{problem.message}; {problem.cure}"


def file_refusal(path):
    with pytest.raises(RecipeError) as caught:
        read_file(path)
    (problem,) = caught.value.problems
    return problem.place.line, f"{problem.message}; {problem.cure}"


def test_maps_lists_and_scalars_become_plain_data():
    tree = read_text("a: 1\nb: [x, {c: ~}]\nd:\n  - 2.5\n", "test")
    assert tree.plain() == {"a": 1, "b": ["x", {"c": None}], "d": [2.5]}


def test_every_node_knows_its_line_and_column():
    tree = read_text("a: 1\nb:\n  - x\n  - {c: 2}\n", "test")
    node = tree.at(("b", 1, "c"))
    assert (node.place.line, node.place.column) == (4, 9)
    assert (node.key_place.line, node.key_place.column) == (4, 6)
    assert node.place.text == "  - {c: 2}"


def test_keys_are_text_whatever_they_look_like():
    assert list(read_text("1: a\non: b\n~: c\n4e-3: d", "test").value) == ["1", "on", "~", "4e-3"]


def test_a_duplicate_key_is_an_error_that_names_the_first_line():
    assert refusal("a: 1\nb: 2\na: 3\n") == (3, 1, "is given twice, first on line 1; keep one")


def test_two_duplicate_keys_are_both_reported():
    with pytest.raises(RecipeError) as caught:
        read_text("a: 1\na: 2\nb: {c: 1, c: 2}\n", "test")
    assert [(p.place.line, p.path) for p in caught.value.problems] == [(2, ("a",)), (3, ("c",))]


def test_a_merge_key_is_an_error_that_names_extends():
    assert refusal("a: &x {b: 1}\nc:\n  <<: *x\n") == (3, 3, "merge keys are YAML 1.1; use extends")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!int", "!!set", "!!binary", "!mine", "!!omap"])
def test_tags_are_refused_on_values(tag):
    line, column, message = refusal(f"a: 1\nb: {tag} x\n")
    assert (line, column) == (2, 4)
    assert "is not allowed; a recipe holds plain values only" in message


def test_tags_are_refused_on_maps_lists_and_keys():
    assert refusal("a: !x {b: 1}")[:2] == (1, 4)
    assert refusal("a: !x [1]")[:2] == (1, 4)
    assert refusal("!x a: 1")[:2] == (1, 1)


def test_an_alias_stands_for_its_anchor():
    assert read_text("a: &x [1, 2]\nb: *x\n", "test").plain() == {"a": [1, 2], "b": [1, 2]}


def test_an_alias_bomb_ends_in_a_message_at_once():
    bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    start = time.perf_counter()
    line, _, message = refusal(bomb)
    # a0 holds 11 values, a1 111, a2 1,111, a3 11,111: the second alias in a4 is past 20,000.
    assert (line, message) == (5, "more than 20,000 values, aliases counted each time; write them out, or fewer")
    assert MOST_NODES == 20_000
    assert time.perf_counter() - start < 20


def test_an_alias_before_its_anchor_is_an_error():
    assert refusal("a: *x\nb: &x 1\n") == (1, 4, "there is no &x before *x; define the anchor first")


def test_an_alias_within_its_own_anchor_is_an_error():
    assert refusal("a: &x [1, *x]\n") == (1, 11, "*x is inside the value it refers to; write it out")


def test_an_anchor_can_be_given_again():
    assert read_text("a: &x 1\nb: &x 2\nc: *x\n", "test").plain()["c"] == 2


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_100_000_levels_end_in_a_message_at_once(opening):
    start = time.perf_counter()
    line, _, message = refusal(opening * 100_000)
    assert line == 1
    assert f"nested deeper than {DEEPEST} levels" in message or "a key must be text" in message
    assert time.perf_counter() - start < 20


def test_the_deepest_allowed_nesting_is_read():
    text = "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1)  # the outermost is level 0
    assert read_text(text, "test").size == DEEPEST + 1
    assert refusal(f"[{text}]")[1] == DEEPEST + 2


def test_a_list_as_a_key_is_an_error():
    assert refusal("? [a, b]\n: 1\n") == (1, 3, "a key must be text; ")


def test_a_second_document_is_an_error():
    assert refusal("a: 1\n---\nb: 2\n") == (2, 1, "a second document starts here; one file is one recipe")


def test_a_tab_for_indentation_names_the_cure():
    line, column, message = refusal("model:\n\tname: x\n")
    assert (line, column) == (2, 1)
    assert "YAML indents with spaces, not tabs" in message


def test_an_unquoted_reference_in_a_flow_map_names_the_cure():
    assert 'put "${env:...}" in quotes' in refusal("data: {root: ${env:X}}")[2]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_ending_counts_as_one_line_and_leaves_the_text_whole(ending):
    node = read_text(ending.join(["a: 1", "b:", "  c: 2", ""]), "test").at(("b", "c"))
    assert (node.place.line, node.place.column, node.place.text, node.value) == (3, 6, "  c: 2", 2)


def test_a_control_character_is_found_in_its_line():
    line, column, message = refusal("a: 1\nb: x\x00y\n")
    assert (line, column) == (2, 5)
    assert "the control character '\\x00'" in message


def test_an_override_with_a_stray_byte_is_not_unicode():
    assert refusal("caf\udce9")[2].startswith("is not UTF-8")


# Files


def test_a_byte_order_mark_is_skipped(write):
    tree = read_file(write(b"\xef\xbb\xbfname: x\n"))
    assert tree.plain() == {"name": "x"}
    assert tree.value["name"].key_place.column == 1


def test_a_file_that_is_not_utf_8_names_the_line(write):
    assert file_refusal(write(b"name: x\nsummary: caf\xe9\n")) == (2, "byte 20 is not UTF-8; save the file as UTF-8")


def test_utf_16_is_not_utf_8(write):
    assert "is not UTF-8" in file_refusal(write("name: x".encode("utf-16")))[1]


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "is empty"), ("# only a comment\n", "is empty"), ("---\n", "is empty"), ("- a\n", "holds a list"),
     ("just words", "holds the value 'just words'"), ("3", "holds the value 3")],
)  # fmt: skip
def test_a_file_that_holds_no_map_says_what_it_holds(write, text, what):
    assert file_refusal(write(text)) == (0, f"{what}, but a recipe is a map of keys; convrun copy makes a start")


def test_a_file_of_more_than_a_mebibyte_is_refused_unread(write):
    assert "is larger than 1 MiB" in file_refusal(write(b"# " + b"x" * (1 << 20)))[1]
    assert read_file(write(b"a: 1\n# " + b"x" * ((1 << 20) - 7))).plain() == {"a": 1}


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    assert file_refusal(tmp_path / "none.yaml")[1] == "cannot be read: No such file or directory; "
    assert file_refusal(tmp_path)[1] == "cannot be read: Is a directory; "


def test_an_unreadable_file_says_so(write, monkeypatch):
    path = write("a: 1")

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(type(path), "open", refuse)  # root, as in a container, may read what chmod 0 forbids
    assert file_refusal(path)[1] == "cannot be read: Permission denied; "
