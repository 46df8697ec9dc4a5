"""A picture as a JPEG. Knows nobody who looks, and nothing of where its pixels come from."""

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 80


def encode_jpeg(image_bgr: NDArray[np.uint8]) -> bytes:
    """Of (H, W, 3). Raises ValueError for a side of more than 65,500 pixels."""
    try:
        _, jpeg = cv2.imencode(".jpg", image_bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    except cv2.error as error:
        raise ValueError(f"cannot make a JPEG of {image_bgr.shape[1]}x{image_bgr.shape[0]}: {error.err}") from None
    return jpeg.tobytes()
