"""Shared by all tests: one thread, and small prepared data drawn by the real code."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
import torch

from aerofuse.data.labels import ClassLists
from aerofuse.data.shards import ShardParams
from aerofuse.ingest.params import SplitParams
from aerofuse.ingest.prepare import prepare_photos
from aerofuse.ingest.sources import SyntheticSource
from aerofuse.planning.estimates import Estimated
from aerofuse.synthetic.params import SyntheticParams
from tests.pipeline import FinishedRun, finished_run

os.environ["AEROFUSE_PROFILES"] = ""  # nothing of another run's, also in processes that tests start

IMAGE_SIZE_PX = 96
ESTIMATED = Estimated(flops_per_second=5e10, bytes_per_second=1e10)

torch.set_warn_always(True)  # not only once in a process: what fails must not depend on the tests that ran before

# In the background of a shell, processes are started deaf to Ctrl-C, and would start others so that are to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Minutes each. The first makes the finished run that the third and the fourth start from.
LONGEST = (
    "test_pipeline.py",
    "test_pipeline_photos.py",
    "test_pipeline_experiments.py",
    "test_chaos.py",
    "test_docs_commands.py",
    "test_pipeline_killed.py",
    "test_pipeline_hub.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, then what is slow as a whole: at the end, the other processes would wait."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        is_slow = item.get_closest_marker("slow") is not None
        return LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST), not is_slow

    items.sort(key=place)


@pytest.fixture(scope="module", autouse=True)
def _modules_are_no_garbage() -> None:
    """Leave what is imported and collected out of garbage collections: with it, each takes a second or two."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # The tests run side by side, one process a core.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_is_timed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that is given no stopwatch estimates; with the mark `timed` it measures, as it does for users."""
    if request.node.get_closest_marker("timed") is None:
        monkeypatch.setattr("aerofuse.planning.planner.Measured", lambda: ESTIMATED)


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.arrow`, `validation.arrow`, `test.arrow` and class lists of 160 drawn photos."""
    return _prepare(tmp_path_factory.mktemp("prepared"), ShardParams(size=None, url=None))


@pytest.fixture(scope="session")
def sharded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos in shards of a store. Set `DVC_ROOT` to where they are to be kept."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "store").mkdir()
    return _prepare(folder, ShardParams(size="100 kB", url=f"file://{folder}/store"))


def _prepare(folder: Path, shards: ShardParams) -> Path:
    source = SyntheticSource(SyntheticParams(num_images=160, num_airframes=60), seed=0)
    split = SplitParams(train=0.6, validation=0.2, test=0.2, seed=0)
    prepare_photos(source, split, IMAGE_SIZE_PX, folder, shards=shards)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="session")
def classes(prepared_folder: Path) -> ClassLists:
    return ClassLists.load(prepared_folder)
