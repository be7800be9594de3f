import pytest

from convrun.launching.command_words import overrides_of
from convrun.recipe.problems import RecipeError
from convrun.registry import registry

SLURM = registry.find("launcher", "slurm")


@pytest.mark.parametrize(
    ("word", "override"),
    [
        ("nodes=4", "launcher.nodes=4"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
        ("launcher.nodes=2", "launcher.nodes=2"),
        ("seed=1", "seed=1"),
        ("model=convnext_small", "model=convnext_small"),
        ("account=0123", 'launcher.account="0123"'),
        ("constraint=[a|b]", 'launcher.constraint="[a|b]"'),
        ("constraint='a&b'", "launcher.constraint='a&b'"),
        ("partition=null", "launcher.partition=null"),
        ("time=1-12:00:00", "launcher.time=1-12:00:00"),
        ("mem=64G", "launcher.mem=64G"),
        ("setup=module load cuda/12.1", 'launcher.setup=["module load cuda/12.1"]'),
        ("srun_args=[--mpi=none, --label]", "launcher.srun_args=[--mpi=none, --label]"),
    ],
)
def test_a_word_without_a_dot_is_the_launchers_if_it_has_the_key_else_the_recipes(word, override):
    assert overrides_of([word], SLURM) == [override]


def test_every_word_that_is_nobodys_is_named_with_the_nearest_of_both():
    with pytest.raises(RecipeError) as error:
        overrides_of(["nodse=4", "seeed=1", "nodes=2", "zzzzzz=1"], SLURM)
    text = str(error.value)
    assert "nodse: is neither a key of launcher/slurm nor at the top of a recipe; did you mean nodes" in text
    assert "did you mean seed (the recipe)?" in text
    assert "launcher/slurm takes account, array_parallel, " in text
    assert len(error.value.problems) == 3


def test_no_key_of_a_launcher_hides_one_at_the_top_of_a_recipe():
    from convrun.launching.command_words import top_level_keys

    for launcher in registry.all("launcher"):
        assert set(launcher.keys.keys) & top_level_keys() == set()
