import pytest

from convrun.errors import UsageError
from convrun.launching.sweep import combinations, folder_name, with_every_axis_named


def test_every_combination_is_a_run():
    assert combinations(["optimizer.lr=1e-3,2e-3", "seed=0,1"]) == [
        ["optimizer.lr=1e-3", "seed=0"],
        ["optimizer.lr=1e-3", "seed=1"],
        ["optimizer.lr=2e-3", "seed=0"],
        ["optimizer.lr=2e-3", "seed=1"],
    ]


def test_commas_in_brackets_and_quotes_part_no_values():
    axes = ["optimizer.betas=[0.9, 0.99],[0.9, 0.999]", "augmentations=[{name: a, b: 1},c],[]", 'summary="a,b",c']
    assert [len(combinations([axis])) for axis in axes] == [2, 2, 2]
    assert combinations(axes)[0] == [
        "optimizer.betas=[0.9, 0.99]",
        "augmentations=[{name: a, b: 1},c]",
        'summary="a,b"',
    ]


@pytest.mark.parametrize("axis", ["seed", "seed=", "=1,2", "seed=1,,2", "seed=1,", ""])
def test_what_is_no_axis_is_refused(axis):
    with pytest.raises(UsageError, match=r"KEY=VALUE,VALUE"):
        combinations([axis])


def test_the_same_run_twice_is_refused():
    with pytest.raises(UsageError, match="has a value twice"):
        combinations(["seed=1,1"])
    with pytest.raises(UsageError, match="has seed twice"):
        combinations(["seed=1,2", "seed=3"])


def test_a_sweep_has_at_most_a_thousand_runs():
    thousand = [f"{key}={','.join(map(str, range(10)))}" for key in "abc"]
    assert len(combinations(thousand)) == 1000
    with pytest.raises(UsageError, match="more than 1000 runs"):
        combinations([*thousand, "d=1,2"])
    with pytest.raises(UsageError, match="more than 1000 runs"):  # and is not counted out first
        combinations([f"{key}={','.join(map(str, range(10)))}" for key in "abcdefghijklmnop"])


def test_the_words_after_sweep_are_axes_up_to_the_next_option():
    words = "a.yaml nodes=2 --sweep lr=1,2 seed=0,1 -o out --sweep x=1 --wait".split()
    assert with_every_axis_named(words) == (
        "a.yaml nodes=2 --sweep lr=1,2 --sweep seed=0,1 -o out --sweep x=1 --wait".split()
    )


def test_folder_names_tell_runs_apart_sort_by_number_and_need_no_quotes():
    assert folder_name(3, 12, ["optimizer.lr=2e-3", "seed=0"]) == "03-lr=2e-3-seed=0"
    assert folder_name(0, 2, ["optimizer.betas=[0.9, 0.999]", "data.root=/a b/c"]) == "0-betas=_0.9_0.999_-root=_a_b_c"
    assert len(folder_name(0, 2, ["notes=" + "x" * 500])) < 100
