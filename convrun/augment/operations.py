"""Image operations with explicit arguments, from which RandAugment and TrivialAugment are built.

Each takes an RGB image and returns a new one (or the same one if nothing changes). Those that move pixels take the
colour that fills the gaps and a PIL resampling filter.
"""

from __future__ import annotations

from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, int, int]
Resample = Image.Resampling


def auto_contrast(image: Image.Image) -> Image.Image:
    """Stretches each channel to the full range."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image) -> Image.Image:
    """Flattens each channel's histogram."""
    return ImageOps.equalize(image)


def invert(image: Image.Image) -> Image.Image:
    """The negative."""
    return ImageOps.invert(image)


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the `bits` highest bits of each channel; 0 or fewer leave a black image, 8 or more change nothing.

    Not PIL's function, because PIL 13 refuses 0 bits, which RandAugment at full magnitude draws.
    """
    if bits >= 8:
        return image
    mask = 0xFF & (0xFF << (8 - bits))
    return image.point([value & mask for value in range(256)] * 3)


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """Inverts values from `threshold` (0..256) up."""
    return image.point([value if value < threshold else 255 - value for value in range(256)] * 3)


def solarize_add(image: Image.Image, add: int, threshold: int = 128) -> Image.Image:
    """Adds `add` (0..128) to the values below `threshold`, up to 255."""
    return image.point([min(255, value + add) if value < threshold else value for value in range(256)] * 3)


def color(image: Image.Image, factor: float) -> Image.Image:
    """Saturation: factor 0 is grey, 1 the image itself."""
    return ImageEnhance.Color(image).enhance(factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Contrast: factor 0 is one grey, 1 the image itself."""
    return ImageEnhance.Contrast(image).enhance(factor)


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Brightness: factor 0 is black, 1 the image itself."""
    return ImageEnhance.Brightness(image).enhance(factor)


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """Sharpness: factor 0 is smoothed, 1 the image itself, 2 sharpened."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """Turns the hue by a share of the colour circle (-0.5..0.5), in PIL's 256 steps."""
    steps = int(turn * 255)
    channels = image.convert("HSV").split()
    turned = channels[0].point([(value + steps) % 256 for value in range(256)])
    return Image.merge("HSV", (turned, *channels[1:])).convert("RGB")


def rotate(image: Image.Image, degrees: float, fill: Colour, resample: Resample) -> Image.Image:
    """Rotates counter-clockwise about the centre, keeping the size."""
    return image.rotate(degrees, resample=resample, fillcolor=fill)


def shear_x(image: Image.Image, factor: float, fill: Colour, resample: Resample) -> Image.Image:
    """Moves each row left by `factor` times its distance from the top."""
    return _affine(image, (1, factor, 0, 0, 1, 0), fill, resample)


def shear_y(image: Image.Image, factor: float, fill: Colour, resample: Resample) -> Image.Image:
    """Moves each column up by `factor` times its distance from the left."""
    return _affine(image, (1, 0, 0, factor, 1, 0), fill, resample)


def translate_x(image: Image.Image, pixels: float, fill: Colour, resample: Resample) -> Image.Image:
    """Moves the image left by `pixels`."""
    return _affine(image, (1, 0, pixels, 0, 1, 0), fill, resample)


def translate_y(image: Image.Image, pixels: float, fill: Colour, resample: Resample) -> Image.Image:
    """Moves the image up by `pixels`."""
    return _affine(image, (1, 0, 0, 0, 1, pixels), fill, resample)


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour, resample: Resample) -> Image.Image:
    """`matrix` maps an output pixel to the input pixel it shows."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill)
