"""Average precision of many draws of the same images with repetition, each image so many times. Knows no box: of each
detection it is known whether it was right.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

WRONG, RIGHT, IGNORED = 0, 1, -1
NO_OBJECTS = -1.0
# As COCO has it: precision at so many recalls, and what keeps it from dividing by nothing.
RECALLS = np.linspace(0, 1, 101)
TINY = np.spacing(1)


@njit(nogil=True, cache=True)
def average_precisions(
    images: NDArray[np.int64],
    verdicts: NDArray[np.int8],
    objects: NDArray[np.int64],
    times: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Of one class, (S, T): for each draw and each IoU; `NO_OBJECTS` where a draw has none of it.

    images    (N,) the image of each detection, best first
    verdicts  (T, N) RIGHT, WRONG or IGNORED, at each IoU
    objects   (I,) to be found in each image
    times     (S, I) how often a draw has each image

    The same as if the images were in the set so many times: copies of a detection come one after the other, and of
    those that are right the last has the highest precision, which is what counts.
    """
    found = np.full((len(times), len(verdicts)), NO_OBJECTS)
    recall, precision = np.empty(len(images)), np.empty(len(images))
    for draw in range(len(times)):
        total = 0.0
        for image in range(len(objects)):
            total += times[draw, image] * objects[image]
        if total > 0:
            for level in range(len(verdicts)):
                count = _curve(images, verdicts[level], times[draw], total, recall, precision)
                found[draw, level] = _area(recall, precision, count)
    return found


@njit(nogil=True, cache=True)
def _curve(
    images: NDArray[np.int64],
    verdicts: NDArray[np.int8],
    times: NDArray[np.int64],
    total: float,
    recall: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> int:
    """Writes recall and precision after each detection that counts; how many that are."""
    right, wrong, count = 0.0, 0.0, 0
    for place in range(len(images)):
        often = times[images[place]]
        if often == 0 or verdicts[place] == IGNORED:
            continue
        if verdicts[place] == RIGHT:
            right += often
        else:
            wrong += often
        recall[count], precision[count] = right / total, right / (right + wrong + TINY)
        count += 1
    return count


@njit(nogil=True, cache=True)
def _area(recall: NDArray[np.float64], precision: NDArray[np.float64], count: int) -> float:
    """The mean, over `RECALLS`, of the best precision from where that recall is reached."""
    best, total, at = 0.0, 0.0, len(RECALLS) - 1
    for place in range(count - 1, -1, -1):
        best = max(best, precision[place])
        before = recall[place - 1] if place else -1.0
        while at >= 0 and RECALLS[at] > recall[place]:
            at -= 1
        while at >= 0 and RECALLS[at] > before:
            total += best
            at -= 1
    return total / len(RECALLS)
