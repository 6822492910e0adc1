"""One photo with its labels, as every source gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Photo:
    """An RGB image `[H, W, 3]` and what is known of it; a label that is not known is `None`, never a guess."""

    image: npt.NDArray[np.uint8]
    filename: str
    typename: str | None
    airlinename: str | None
    clarity: float | None
    block: float | None
    registration: str | None
