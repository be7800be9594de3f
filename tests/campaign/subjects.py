"""The runs that are disturbed: small, with everything on, and as different as faults may care about."""

import dataclasses
import shutil
from pathlib import Path

# Accumulation, mixup, EMA, drop path, layer decay, clipping; logged, evaluated and saved in different rhythms.
RECIPE = """
name: NAME
seed: 3
input_size: 8
model: {name: convnext, depths: [1, 1, 1, 1], dims: [8, 16, 32, 32], patch_size: 1, kernel_size: 3, drop_path_rate: 0.2}
DATA
augmentations:
  - {name: random_crop, padding: 1}
  - {name: horizontal_flip}
  - {name: random_erasing, probability: 0.5}
  - {name: mixup_cutmix, mixup_alpha: 0.8, cutmix_alpha: 1.0}
loss: {name: cross_entropy, label_smoothing: 0.1}
optimizer: {name: adamw, lr: 5e-3, layer_decay: 0.8}
scheduler: {name: cosine, warmup_steps: 5}
training: {steps: 200, batch_size: 8, micro_batch: 4, clip_grad_norm: 1.0, precision: PRECISION}
ema: {decay: 0.9}
evaluation: {every_steps: 20, report: ema, batch_size: 4}
logging: {every_steps: 3, to: [jsonl, tensorboard]}
checkpoints: {every_steps: 7, keep: {last: 3}}
callbacks:
  - {name: early_stopping, metric: loss, patience: 100}
"""
SYNTHETIC = "data: {name: synthetic, train_images: 67, val_images: 10, num_classes: 3, image_size: 8, workers: WORKERS}"
FOLDER = (
    "data: {name: image_folder, root: photos, num_classes: 3, train_images: 67, val_images: 12, workers: WORKERS EXTRA}"
)
FOREVER_BROKEN = ("train/class1/4.png", "train/class2/20.png", "val/class0/1.png")


@dataclasses.dataclass(frozen=True)
class Subject:
    """One kind of run.

    Attributes:
        name: for the report.
        data: the recipe's data section.
        workers: loader processes.
        precision: of the forward pass.
        is_broken: whether some images cannot be read from the start, and are skipped.
        ranks: processes that share each step.
    """

    name: str
    data: str
    workers: int
    precision: str = "float32"
    is_broken: bool = False
    ranks: int = 1

    @property
    def has_photos(self) -> bool:
        """Whether its images are files."""
        return self.data == FOLDER

    def write(self, folder: Path) -> Path:
        """Writes recipe and images into a folder; the recipe's path."""
        skip = ", bad_images: skip, bad_images_limit: 4" if self.is_broken else ""
        text = RECIPE.replace("DATA", self.data.replace("WORKERS", str(self.workers)).replace(" EXTRA", skip))
        recipe = folder / "recipe.yaml"
        recipe.write_text(text.replace("NAME", self.name).replace("PRECISION", self.precision))
        if self.has_photos:
            write_photos(folder / "photos")
            for name in FOREVER_BROKEN if self.is_broken else ():
                (folder / "photos" / name).write_bytes(b"no image")
        return recipe


SUBJECTS = (
    Subject("plain", SYNTHETIC, workers=0),
    Subject("workers-fp16", SYNTHETIC, workers=2, precision="fp16"),
    Subject("photos", FOLDER, workers=1),
    Subject("photos-broken", FOLDER, workers=0, is_broken=True),
    Subject("two-ranks", SYNTHETIC, workers=0, ranks=2),
)


def write_photos(root: Path) -> None:
    """67 + 12 small PNGs in 3 classes; each differs from all others."""
    from PIL import Image

    shutil.rmtree(root, ignore_errors=True)
    for split, count in (("train", 67), ("val", 12)):
        for i in range(count):
            path = root / split / f"class{i % 3}" / f"{i // 3}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = bytes((37 * i + 11 * k * (i % 3 + 1)) % 256 for k in range(10 * 10 * 3))
            Image.frombytes("RGB", (10, 10), pixels).save(path)
