"""Images per second from files to batches: ours, and transformers' own image processor.

    python benchmarks/input.py

JPEG files of 640 x 480 become 336 x 336 pixels for CLIP. transformers' processor gives normalised
float32, as most training loops take it; ours gives bytes, which the device normalises. The pixels
are compared before anything is timed. CPU milliseconds are of all threads together: seconds also
depend on what else runs.
"""

import dataclasses
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image
from transformers import CLIPImageProcessorPil

from inbol_jax.data.images import load_image
from inbol_jax.defaults import TINY
from inbol_jax.models.families import make_model
from inbol_jax.models.loading import Checkpoint, load_without_weights
from inbol_jax.models.processor import READERS

SIDE = 336


@dataclasses.dataclass(frozen=True)
class Config:
    """Images per second, side by side."""

    images: int = 64
    """Number of files."""
    repeats: int = 5
    """Runs of each, in turn; the median counts."""


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Files with the detail of photographs: smooth shapes, and a little noise."""
    draw, files = np.random.default_rng(0), []
    for i in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (15, 20, 3), np.uint8))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + draw.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{i}.jpg")
        Image.fromarray(noisy).save(files[-1], quality=90)
    return files


def clip_checkpoint() -> tuple[Checkpoint, SimpleNamespace]:
    """A checkpoint without weights that takes CLIP's pixels, and its processor."""
    tiny = load_without_weights(TINY)
    vision = dataclasses.replace(tiny.config.vision, image_size=SIDE)
    config = dataclasses.replace(tiny.config, vision=vision)
    prepare = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    checkpoint = dataclasses.replace(tiny, config=config, model=make_model(config))
    return checkpoint, SimpleNamespace(image_processor=prepare)


def main(config: Config) -> None:
    checkpoint, processor = clip_checkpoint()

    def floats(file: Path) -> np.ndarray:
        picture = load_image(file)
        return processor.image_processor(picture, return_tensors="np")["pixel_values"][0]

    def ours(file: Path) -> dict[str, np.ndarray]:
        return checkpoint.image_inputs(load_image(file), processor)

    with tempfile.TemporaryDirectory() as folder:
        files = write_pictures(Path(folder), config.images)
        normalised = checkpoint.model.apply({}, ours(files[0]), method="normalised_pixels")
        difference = float(jnp.abs(normalised[0] - floats(files[0])).max())
        if not difference <= 1e-6:
            raise SystemExit(f"the pixels differ by {difference:.2g}")
        threads = os.cpu_count() or 1
        runs: dict[str, Callable[[], list]] = {
            "transformers, float32, 1 thread": lambda: list(map(floats, files)),
            "ours, bytes, 1 thread": lambda: list(map(ours, files)),
            f"ours, bytes, {threads} threads": lambda: list(READERS.map(ours, files)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        busy: dict[str, list[float]] = {name: [] for name in runs}
        for _, (name, run) in ((i, item) for i in range(config.repeats) for item in runs.items()):
            start, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - cpu)
    print(f"{config}; {threads} cores, pixels differ by {difference:.1g}\n")
    print("| | images/s | ratio | CPU ms per image | MB per image |\n|---|---|---|---|---|")
    middle = functools.partial(map, statistics.median)
    first = statistics.median(seconds[next(iter(runs))])
    for name, elapsed, cpu in zip(
        runs, middle(seconds.values()), middle(busy.values()), strict=True
    ):
        size = 3 * SIDE**2 * (1 if "bytes" in name else 4) / 1e6
        print(
            f"| {name} | {config.images / elapsed:.0f} | {first / elapsed:.2f} "
            f"| {1000 * cpu / config.images:.1f} | {size:.2f} |"
        )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main(tyro.cli(Config))
