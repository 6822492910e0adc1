"""How prepared images are stored: as JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Processes read photos side by side, so threads would not help. A worker that is forked while OpenCV has a pool of
# threads would wait for them forever.
cv2.setNumThreads(1)

# Visually lossless and without chroma subsampling, so that the clarity labels stay true.
JPEG_QUALITY = 95
_JPEG_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


def encode_image(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image `[H, W, 3]` as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG_SETTINGS)
    return encoded.tobytes()


def decode_image(encoded: pa.Buffer | bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG as an RGB image `[H, W, 3]`."""
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8)
