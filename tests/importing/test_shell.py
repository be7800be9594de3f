import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convrun.errors import UsageError
from convrun.importing.shell import simple_commands


@pytest.mark.parametrize(("text", "commands"), [
    ("python a.py --x 1", [["python", "a.py", "--x", "1"]]),
    ("python a.py \\\n  --x 1 \\\n  --y 2\n", [["python", "a.py", "--x", "1", "--y", "2"]]),
    ("python a.py \\   \n  --x 1", [["python", "a.py", "--x", "1"]]),
    ("python a.py \\\r\n  --x 1\r\n", [["python", "a.py", "--x", "1"]]),
    ("a --x 'b c' \"d  e\" f\\ g '' \"it's\"", [["a", "--x", "b c", "d  e", "f g", "", "it's"]]),
    ("a --x='b c'd", [["a", "--x=b cd"]]),
    ("# a comment\na b # another\nc", [["a", "b"], ["c"]]),
    ("a b#c", [["a", "b#c"]]),
    ("cd /x && a b; c | tee log", [["cd", "/x"], ["a", "b"], ["c"], ["tee", "log"]]),
    ("a b > log 2>&1 &", [["a", "b"]]),
    ("nohup a b &> log", [["nohup", "a", "b"]]),
    ("X=1 a b", [["X=1", "a", "b"]]),
    ("$ a b", [["a", "b"]]),
    ("", []),
])  # fmt: skip
def test_words_of_simple_commands(text, commands):
    assert simple_commands(text) == commands


def test_a_line_that_starts_with_a_dash_goes_on_with_the_command():
    assert simple_commands("a --x 1\n--y 2\nb") == [["a", "--x", "1", "--y", "2"], ["b"]]


def test_variables_that_the_text_sets_are_filled_in():
    text = "export ROOT=/data\nN=8; NAME='my run'\na --path $ROOT/in1k --n ${N} --name \"$NAME\" '$N'"
    assert simple_commands(text) == [["a", "--path", "/data/in1k", "--n", "8", "--name", "my run", "$N"]]


def test_other_variables_are_for_the_recipe_to_look_up():
    words = simple_commands('a $HOME/x "${DATA}" ${ROOT:-/data}')[0]
    assert words == ["a", "${env:HOME}/x", "${env:DATA}", "${env:ROOT:/data}"]


@pytest.mark.parametrize(("text", "message"), [
    ("a 'b", "line 1: the quote ' is never closed"),
    ('a\nb "c', 'line 2: the quote " is never closed'),
    ("a $(hostname)", "line 1: a command in"),
    ('a "$(hostname)"', "line 1: a command in"),
    ("a `hostname`", "backticks"),
    ("cat << EOF\nEOF", "here-document"),
    ("python main.py \"$@\"", "argument $@"),
    ("python main.py $1", "argument $1"),
])  # fmt: skip
def test_what_only_a_shell_could_know_is_refused_with_its_line(text, message):
    with pytest.raises(UsageError, match=message.replace("$", r"\$")):
        simple_commands(text)


WORDS = st.lists(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"])), min_size=1)


@given(WORDS.filter(lambda words: not words[0].startswith("$") and "=" not in words[0] and words[0] != "export"))
def test_quoted_words_come_back_as_they_were(words):
    assert simple_commands(shlex.join(words)) == [words]


@given(st.text(max_size=60))
def test_any_text_gives_commands_or_a_message(text):
    with contextlib.suppress(UsageError):
        simple_commands(text)
