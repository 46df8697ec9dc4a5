"""Where things lie that tests read."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
CLIP = DATA / "pets09_excerpt.mp4"
MINI = DATA / "bccd_mini"
# What only this project's own workplace has; a clone has none of it, and its tests are skipped there.
SHARED = Path(os.environ.get("CENTERSTREAM_DATA", ROOT / "../shared/data"))
