"""What a GPU lent for minutes can show: `python -m tools.gpu_evidence --help`.

That machine has torch, timm, torchvision and accelerate, and what these bring. So nothing here may import pydantic,
pandas, DVC, MLflow and the like, and the project need not be installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("aerofuse") is None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
