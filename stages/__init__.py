"""One page per stage of dvc.yaml, run as `python -m stages.NAME` from the root of the repository.

Temporary and queued experiments run in a copy of the repository; putting the copy's own `src/` first makes them
run the copy's code, whatever is installed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from aerofuse.common.threads import spin_briefly_while_waiting

spin_briefly_while_waiting()  # a stage imports torch after this package


def run(stage: Callable[[], object]) -> None:
    """Run a stage; an error that a user can mend ends it with its message instead of a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        stage()
    except (
        ValueError,
        FileNotFoundError,
        ConnectionError,
        ChildProcessError,
        MemoryError,
        FloatingPointError,
    ) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
