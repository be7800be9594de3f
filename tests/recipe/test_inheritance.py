import pytest

from convrun.recipe import load_recipe
from convrun.recipe.inheritance import MOST_PARENTS
from convrun.recipe.problems import RecipeError
from convrun.recipe.shipped import FOLDER


@pytest.fixture
def child(write, whole):
    """Loads a recipe that extends the whole one."""
    parent = whole.replace("name: small", "name: small\nsummary: a summary\nnotes: a note\nexpect: {top1: 90}")

    def load(text):
        write(parent, "parent.yaml")
        return load_recipe(write(f"extends: parent\n{text}", "child.yaml"), plugins=False)

    return load


def refusal(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, plugins=False)
    (problem,) = caught.value.problems
    assert problem.path == ("extends",)
    return problem.message


def test_maps_merge_key_by_key(child):
    recipe = child("training: {epochs: 7}\nmodel: {drop_rate: 0.2}\n")
    assert (recipe.training.epochs, recipe.training.batch_size) == (7, 10)
    assert recipe.model.name == "convnext_atto"
    assert (recipe.model.values["drop_path_rate"], recipe.model.values["drop_rate"]) == (0.1, 0.2)


def test_lists_replace(child):
    assert [c.name for c in child("augmentations: [random_crop]\n").augmentations] == ["random_crop"]
    assert child("augmentations: []\n").augmentations == ()
    assert child("optimizer: {betas: [0.8, 0.9]}\n").optimizer.values["betas"] == (0.8, 0.9)


def test_another_name_replaces_the_section(child):
    recipe = child("model: {name: convnext_tiny}\n")
    assert recipe.model.values["drop_path_rate"] == 0.0, "0.1 was the parent's model's"


def test_the_same_name_merges(child):
    assert child("model: {name: convnext_atto}\n").model.values["drop_path_rate"] == 0.1


def test_a_section_that_is_only_a_name_means_a_map_with_that_name(child):
    assert child("model: convnext_atto\n").model.values["drop_path_rate"] == 0.1
    assert child("model: convnext_tiny\n").model.values["drop_path_rate"] == 0.0


def test_a_parents_section_that_is_only_a_name_takes_keys(write, whole):
    write(whole.replace("{name: cosine, warmup_epochs: 2}", "cosine"), "parent.yaml")
    child = write("extends: parent\nscheduler: {min_lr: 1e-6}\n", "child.yaml")
    assert load_recipe(child, plugins=False).scheduler.values["min_lr"] == 1e-6


def test_null_turns_a_parents_section_off(child):
    assert child("evaluation: null\n").evaluation is None
    assert child("ema: {decay: 0.9}\n").ema.decay == 0.9


def test_what_describes_the_parent_alone_is_not_inherited(child):
    recipe = child("")
    assert (recipe.name, recipe.summary, recipe.notes, recipe.expect) == ("child", "", "", None)


def test_grandparents_are_inherited_from(write, whole):
    write(whole, "a.yaml")
    write("extends: a\ntraining: {epochs: 6}\n", "b.yaml")
    recipe = load_recipe(write("extends: b\nseed: 4\n", "c.yaml"), plugins=False)
    assert (recipe.training.epochs, recipe.training.batch_size, recipe.seed) == (6, 10, 4)


@pytest.mark.parametrize("written", ["parents/base.yaml", "./parents/base.yaml", "parents/../parents/base.yaml"])
def test_a_parents_path_counts_from_the_child(write, whole, written, monkeypatch, tmp_path_factory):
    write(whole, "parents/base.yaml")
    child = write(f"extends: {written}\n", "child.yaml")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_recipe(child, plugins=False).training.epochs == 5


def test_an_absolute_path_is_a_parent_too(write, whole):
    child = write(f"extends: {write(whole, 'base.yml')}\n", "child.yaml")
    assert load_recipe(child, plugins=False).training.epochs == 5


def test_a_shipped_recipe_is_a_parent_by_name_from_any_folder(write):
    child = write("extends: convnext_tiny_in1k\ntraining: {epochs: 100}\n", "mine.yaml")
    recipe = load_recipe(child, plugins=False)
    assert (recipe.training.epochs, recipe.training.batch_size) == (100, 4096)


def test_a_shipped_parent_that_is_no_recipe_itself_is_found_by_name(write):
    assert (FOLDER / "_in1k.yaml").is_file()
    child = write("extends: _in1k\nmodel: convnext_small\n", "mine.yaml")
    assert load_recipe(child, plugins=False).model.name == "convnext_small"


def test_a_neighbour_wins_over_a_shipped_recipe_of_the_same_name(write, whole):
    write(whole, "digits_demo.yaml")
    assert load_recipe(write("extends: digits_demo\n", "mine.yaml"), plugins=False).data.name == "synthetic"


def test_a_recipe_that_extends_itself_names_the_circle(write):
    assert refusal(write("extends: a\n", "a.yaml")) == "the recipe extends itself: a.yaml -> a.yaml"


def test_a_longer_circle_is_named_whole(write):
    write("extends: b\n", "a.yaml")
    write("extends: c\n", "b.yaml")
    assert refusal(write("extends: a.yaml\n", "c.yaml")) == (
        "the recipe extends itself: c.yaml -> a.yaml -> b.yaml -> c.yaml"
    )


def test_a_circle_through_a_link_is_found(write):
    path = write("extends: link\n", "a.yaml")
    (path.parent / "link.yaml").symlink_to(path)
    assert "extends itself" in refusal(path)


def test_too_many_parents_end_in_a_message(write):
    for i in range(MOST_PARENTS + 2):
        last = write(f"extends: r{i - 1}\n" if i else "seed: 1\n", f"r{i}.yaml")
    assert f"more than {MOST_PARENTS} parents" in refusal(last)


def test_a_missing_parent_names_the_nearest_recipe(write):
    assert "did you mean convnext_tiny_in1k?" in refusal(write("extends: convnext_tiny_in1\n", "a.yaml"))
    write("seed: 1\n", "my_parent.yaml")
    assert "did you mean my_parent?" in refusal(write("extends: my_parnet\n", "a.yaml"))


def test_a_missing_parent_file_names_where_it_was_looked_for(write):
    path = write("extends: parents/base.yaml\n", "a.yaml")
    assert refusal(path) == f"there is no file {path.parent}/parents/base.yaml"


@pytest.mark.parametrize("written", ["[a, b]", "{a: b}", "3", "true"])
def test_there_is_one_parent(write, written):
    assert refusal(write(f"extends: {written}\n", "a.yaml")) == "must be the name or the path of one recipe"


@pytest.mark.parametrize("written", ["''", ".", "..", "'a\tb'", "x" * 5000])
def test_a_working_folder_with_a_recipe_is_no_parent(write, written, monkeypatch, whole):
    """`recipe.yaml` in the working folder is what `validate` takes without an argument, not what a name stands for."""
    monkeypatch.chdir(write(whole, "recipe.yaml").parent)
    assert "there is no file" in refusal(write(f"extends: {written}\n", "a.yaml"))
