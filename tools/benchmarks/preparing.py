"""What `prepare` takes for many photos, killed half way and started again: `python -m tools.benchmarks.preparing`.

Small photos are made from noise, with a label table, copies and files that cannot be read. The stage itself, as the
pipeline runs it, is killed when it has read half of them, started again, and run once more after one label was changed.
The resident memory of it and of all its processes is added up five times a second; what they share is counted for each.
`reports/benchmarks/` gets a table named by what it ran on. Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
import pyarrow as pa
from ruamel.yaml import YAML
from tqdm.auto import tqdm

from aerofuse.common.params import read_params_file
from tools.benchmarks.results import PREPARING
from tools.benchmarks.side_by_side import write_table

GOAL_BYTES = 2 * 10**9
_TYPES, _AIRLINES = 100, 60
_PHOTOS_PER_AIRFRAME = 4
_COPY_EVERY, _BAD_EVERY = 53, 1000  # photos: a copy of the one before, and a file that cannot be read
_SECONDS_BETWEEN_SAMPLES = 0.2
_SECONDS_TO_END = 30.0  # for the processes of one that was killed
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareRun:
    """A run of the stage. `photos_read` are those that it took in itself, in whole shards; the peaks are of resident
    bytes, of the stage's own process and of all together. `killed` is whether it was stopped half way.
    """

    run: str
    seconds: float
    photos_read: int
    photos_read_again: int
    peak_bytes: int
    peak_bytes_of_parent: int
    most_processes: int
    killed: bool


def make_photos(root: Path, count: int, width_px: int = 200) -> Path:
    """`count` files of 4:3 below `root`, a thousand a folder; returns their label table."""
    rng = np.random.default_rng(0)
    fields = ("filename", "typename", "airlinename", "clarity", "block", "registration", "photographer")
    labels = root / "labels.csv"
    root.mkdir(parents=True)
    with labels.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(fields)
        for number in tqdm(range(count), desc="photos made", unit="photo", disable=None):
            airframe = number // _PHOTOS_PER_AIRFRAME
            kind = airframe // 10 % _TYPES  # so that most copies have the type of the original
            name = f"{number // 1000:03}/{number:06}.jpg"
            path = root / name
            path.parent.mkdir(exist_ok=True)
            if number % _COPY_EVERY:
                image = _noise(rng, width_px)
                cv2.imwrite(str(path), image, (cv2.IMWRITE_JPEG_QUALITY, 90))
            else:  # of the photo before, where there is one: of the same airframe, with another registration
                small = 4 * width_px // 5
                copy = _noise(rng, width_px) if number == 0 else cv2.flip(cv2.resize(image, (small, small * 3 // 4)), 1)
                cv2.imwrite(str(path), copy, (cv2.IMWRITE_JPEG_QUALITY, 70))
            if number % _BAD_EVERY == _BAD_EVERY - 1:
                path.write_bytes(path.read_bytes()[:100])
            values = ("", "") if number % 3 == 0 else (round(rng.random(), 3), round(rng.random(), 3))
            airline = "" if number % 5 == 0 else f"Airline {airframe % _AIRLINES}"
            table.writerow((name, f"Type {kind}", airline, *values, f"R-{airframe:05}", "Zoë 佐伊"))
    return labels


def _noise(rng: np.random.Generator, width_px: int) -> npt.NDArray[np.uint8]:
    """A picture like no other `[H, W, 3]`, with as many bytes as a photo's: large patches under fine grain."""
    patches = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = cv2.resize(patches, (width_px, width_px * 3 // 4), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.integers(-12, 13, image.shape, dtype=np.int16)
    return np.asarray(np.clip(image + grain, 0, 255), dtype=np.uint8)


def write_params(workspace: Path, root: Path, labels: Path, image_size_px: int, engine: str = "local") -> None:
    """The repository's params.yaml in `workspace`, on these photos at this size."""
    params = read_params_file()
    params["data"] |= {"source": "table", "engine": engine, "root": str(root), "labels": str(labels)}
    params["recipes"][params["recipe"]]["image_size"] = image_size_px
    with (workspace / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params, file)


def run_prepare(workspace: Path, name: str, stop: Callable[[], bool] = lambda: False) -> PrepareRun:
    """Run the stage in `workspace`; it is killed as soon as `stop` says so.

    Raises `RuntimeError` where it fails, or where processes of one that was killed do not end.
    """
    shards = workspace / ".resume/prepare/photos"
    before = _modified(shards)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(Path.cwd()), environment.get("PYTHONPATH", "")))
    started = time.perf_counter()
    stage = psutil.Popen([sys.executable, "-m", "stages.prepare"], cwd=workspace, env=environment)
    peak = peak_of_parent = most = 0
    killed = False
    while stage.poll() is None:
        sizes = _resident_bytes(stage)
        peak, peak_of_parent = max(peak, sum(sizes)), max(peak_of_parent, sizes[0] if sizes else 0)
        most = max(most, len(sizes))
        if stop():
            killed = True
            _kill(stage)
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
    if stage.returncode and not killed:
        raise RuntimeError(f"prepare ended with {stage.returncode}; what it wrote above says why")
    seconds = time.perf_counter() - started
    after = _modified(shards)
    read = [path for path, modified in after.items() if before.get(path) != modified]
    return PrepareRun(
        name,
        round(seconds, 1),
        sum(map(_photos_in, read)),
        sum(_photos_in(path) for path in read if path in before),
        peak,
        peak_of_parent,
        most,
        killed,
    )


def _modified(folder: Path) -> Mapping[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}


def _photos_in(shard: Path) -> int:
    with pa.memory_map(str(shard)) as source:
        return int(pa.ipc.open_file(source).read_all().num_rows)


def _resident_bytes(process: psutil.Process) -> list[int]:
    """Of a process and of all below it, itself first; of those that have just ended, nothing."""
    sizes = []
    try:
        for one in (process, *process.children(recursive=True)):
            sizes.append(one.memory_info().rss)
    except psutil.NoSuchProcess:
        pass
    return sizes


def _kill(stage: psutil.Popen) -> None:
    below = stage.children(recursive=True)
    stage.kill()
    stage.wait()
    _, alive = psutil.wait_procs(below, timeout=_SECONDS_TO_END)
    if alive:
        for process in alive:
            process.kill()
        raise RuntimeError(f"{len(alive)} processes go on after prepare was killed")


def measure(folder: Path, count: int, image_size_px: int) -> list[PrepareRun]:
    """Killed half way, started again, and once more after one label was changed."""
    labels = make_photos(folder / "photos", count)
    workspace = folder / "workspace"
    workspace.mkdir()
    write_params(workspace, folder / "photos", labels, image_size_px)
    shards = workspace / ".resume/prepare/photos"
    read = 0
    counted: set[Path] = set()

    def half_is_read() -> bool:
        nonlocal read
        new = set(shards.glob("*.arrow")) - counted
        counted.update(new)
        read += sum(map(_photos_in, new))
        return 2 * read >= count

    runs = [run_prepare(workspace, "killed half way", half_is_read), run_prepare(workspace, "started again")]
    table = labels.read_text(encoding="utf-8")
    labels.write_text(table.replace(",Airline 1,", ",Airline 2,", 1), encoding="utf-8")
    shutil.rmtree(workspace / "data")  # as DVC does before a stage
    return [*runs, run_prepare(workspace, "after one label was changed")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the table, and say whether the goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.preparing", description=__doc__)
    parser.add_argument("--photos", type=int, default=100_000, help="photos (default: 100000)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side in training (default: 224)")
    parser.add_argument("--folder", type=Path, help="where photos and results are kept meanwhile, 60 KB a photo")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        runs = measure(Path(folder), options.photos, options.image_size)
    table = pd.DataFrame([asdict(run) for run in runs])
    table["photos_read_per_second"] = (table["photos_read"] / table["seconds"]).round(1)
    table["photos"] = options.photos
    table["image_size_px"] = options.image_size
    table["cores"] = len(os.sched_getaffinity(0))
    write_table(table, PREPARING)
    peak = max(run.peak_bytes for run in runs)
    reached = "kept" if peak < GOAL_BYTES else "exceeded"
    logger.info("%.2f GB at most; the limit of %.0f GB is %s", peak / 1e9, GOAL_BYTES / 1e9, reached)


if __name__ == "__main__":
    main()
