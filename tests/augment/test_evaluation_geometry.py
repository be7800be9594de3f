import subprocess
import sys

import pytest

from convrun.augment.evaluation_geometry import default_crop_ratio, evaluation_text, short_side


@pytest.mark.parametrize(
    ("input_size", "ratio"), [(28, 1.0), (32, 1.0), (33, 0.875), (224, 0.875), (383, 0.875), (384, None), (512, None)]
)
def test_default_crop_ratios(input_size, ratio):
    assert default_crop_ratio(input_size) == ratio


def test_224_is_cut_out_of_256():
    assert short_side(224, 0.875) == 256


@pytest.mark.parametrize(
    ("input_size", "ratio", "text"),
    [
        (224, 0.875, "resize the short side to 256 (bicubic), centre crop 224"),
        (32, 1.0, "resize the short side to 32 (bicubic), centre crop 32"),
        (384, None, "resize to 384x384 (bicubic), no crop"),
    ],
)
def test_the_words(input_size, ratio, text):
    assert evaluation_text(input_size, ratio, "bicubic") == text


@pytest.mark.parametrize("module", ["convrun.augment.evaluation_geometry", "convrun.augment.policy"])
def test_light_modules_import_nothing_heavy(module):
    code = f"import {module}, sys; print({{'torch', 'PIL', 'numpy', 'torchvision', 'timm'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
