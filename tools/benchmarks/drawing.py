"""Drawing speed on one core: `python -m tools.benchmarks.drawing`."""

from __future__ import annotations

import time

import cv2

from aerofuse.synthetic.fleet import built_in_fleet
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photo

SIZES_PX = (64, 96, 128, 224)


def images_per_second(image_size_px: int, count: int = 300) -> float:
    """Photos drawn per second of this process's own time, meshes and paint already made."""
    fleet = built_in_fleet(240, seed=0)
    config = SyntheticParams(num_images=count, num_airframes=240)
    for index in range(count):
        draw_photo(fleet, index, config, image_size_px, seed=0)
    start = time.process_time()
    for index in range(count):
        draw_photo(fleet, index, config, image_size_px, seed=0)
    return count / (time.process_time() - start)


def main() -> None:
    """Print one line per image size."""
    cv2.setNumThreads(1)
    for size in SIZES_PX:
        print(f"{size:4d} px  {images_per_second(size):6.1f} images/s")  # noqa: T201 (this is what the command is for)


if __name__ == "__main__":
    main()
