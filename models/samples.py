"""Pictures that ship with the package, as a network's input: engines are measured and judged on what they will see, not
on black or noise. Knows no engine."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.preprocess import input_pixels
from models.spec import ModelSpec

FOLDER = Path(__file__).parent / "samples"


def sample_images(spec: ModelSpec, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 RGB (N, height, width, 3), resized as `spec` says."""
    paths = sorted(FOLDER.glob("*.jpg"))
    return np.stack([input_pixels(_read_rgb(path), spec, (width, height)) for path in paths])


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    picture_bgr = cv2.imread(str(path))
    assert picture_bgr is not None, f"{path} is not there as it was packed"
    return picture_bgr[..., ::-1].astype(np.uint8, copy=False)
