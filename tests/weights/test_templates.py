import pytest

from convrun.weights.templates import Template


def test_the_example_of_the_module():
    template = Template("features.{2s+1}.{b}.block.0.{p}")
    assert template.match("features.5.8.block.0.bias") == {"s": "2", "b": "8", "p": "bias"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("features.{2s+1}.{b}.{p}", "features.4.0.weight"),  # no whole s
        ("features.{2s+1}.{b}.{p}", "features.0.0.weight"),  # s would be negative
        ("features.{2s+1}.{b}.{p}", "features.1.0.scale"),
        ("features.{s}.{p}", "featuresX1.weight"),
        ("head.{p}", "head.weight.more"),
        ("head.{p}", "the.head.weight"),
    ],
)
def test_other_names_do_not_match(text, key):
    assert Template(text).match(key) is None


@pytest.mark.parametrize("text", ["a.{s}.{b}.{p}", "{2s}.x", "a.{3s+2}", "gamma", "{i}.{p}.end"])
def test_match_and_fill_are_inverse(text):
    template = Template(text)
    values = {"s": "12", "b": "0", "i": "3", "p": "bias"}
    key = template.fill(values)
    found = template.match(key)
    assert found is not None
    assert found.items() <= values.items()
    assert template.fill(found) == key
