import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment as timm_ops
from torchvision.transforms import functional as F

from convrun.augment import operations

FILL = (124, 116, 104)
WARP = {"fill": FILL, "resample": Image.Resampling.BICUBIC}
TIMM_WARP = {"fillcolor": FILL, "resample": Image.Resampling.BICUBIC}


def assert_equal(ours, theirs):
    assert ours.mode == theirs.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "invert"])
def test_operations_without_argument_equal_timm(photo, name):
    ours = getattr(operations, name)(photo)
    assert_equal(ours, getattr(timm_ops, name)(photo))
    assert ours.tobytes() != photo.tobytes()


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
@pytest.mark.parametrize("factor", [0.1, 0.19, 1.0, 1.37, 1.9])
def test_enhancements_equal_timm(photo, name, factor):
    assert_equal(getattr(operations, name)(photo, factor), getattr(timm_ops, name)(photo, factor))


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (operations.rotate, timm_ops.rotate, (-30.0, -12.3, 0.0, 27.0)),
        (operations.shear_x, timm_ops.shear_x, (-0.3, 0.11, 0.27)),
        (operations.shear_y, timm_ops.shear_y, (-0.3, 0.11, 0.27)),
        (operations.translate_x, timm_ops.translate_x_abs, (-20.25, 0.5, 13.0)),
        (operations.translate_y, timm_ops.translate_y_abs, (-20.25, 0.5, 13.0)),
    ],
)
def test_warps_equal_timm(photo, ours, theirs, arguments):
    for argument in arguments:
        assert_equal(ours(photo, argument, **WARP), theirs(photo, argument, **TIMM_WARP))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_equals_timm(photo, bits):
    assert_equal(operations.posterize(photo, bits), timm_ops.posterize(photo, bits))


@pytest.mark.parametrize("bits", [0, -1])
def test_posterize_to_no_bits_is_black(photo, bits):
    """As PIL did before release 13, whose mask was then 0."""
    assert operations.posterize(photo, bits).getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("threshold", [0, 25, 128, 255, 256])
def test_solarize_equals_timm(photo, threshold):
    assert_equal(operations.solarize(photo, threshold), timm_ops.solarize(photo, threshold))


@pytest.mark.parametrize("add", [0, 55, 99, 110])
def test_solarize_add_equals_timm(photo, add):
    assert_equal(operations.solarize_add(photo, add), timm_ops.solarize_add(photo, add))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.003, 0.25, 0.5])
def test_hue_equals_torchvision(photo, turn):
    assert_equal(operations.hue(photo, turn), F.adjust_hue(photo, turn))
