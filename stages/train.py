"""One training stage, from pretrained weights or from the best model of the phase before: `python -m stages.train`."""

from __future__ import annotations

import argparse

from aerofuse.training.distributed import launch
from aerofuse.training.phases import PHASES
from aerofuse.training.stage import train_stage
from stages import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=PHASES)
    chosen: str = parser.parse_args().stage
    run(lambda: launch(lambda: train_stage(chosen), "stages.train", chosen))
