"""What a training shows while it runs: a progress bar or plain lines, a CSV of the epochs, TensorBoard when it is
installed. Knows no network."""

import csv
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.files import whole_file

LINE_SECONDS = 20.0


class Watch:
    """One training, watched; `folder` gets metrics.csv and a TensorBoard log. Use it in a `with`."""

    def __init__(self, folder: Path, steps: int, first_step: int, steps_per_epoch: int, silent: bool = False) -> None:
        self._console = Console(stderr=True, quiet=silent)
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        self._table = EpochTable(folder / "metrics.csv", first_step // steps_per_epoch)
        self._board = None if silent else _tensor_board(folder, first_step)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task("starting", total=steps, completed=first_step)
        self._started, self._first_step, self._next_line = time.monotonic(), first_step, 0.0

    def __enter__(self) -> "Watch":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._board:
            self._board.close()

    def tell(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, losses: Mapping[str, float], rate: float) -> None:
        """`step` was made, the first being 1."""
        epoch = (step - 1) // self._steps_per_epoch + 1
        words = f"epoch {epoch}  loss {losses['loss']:.3f}"
        self._progress.update(self._task, completed=step, description=words)
        if self._board:
            for name, value in losses.items():
                self._board.add_scalar(f"loss/{name}", value, step)
            self._board.add_scalar("learning rate", rate, step)
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self.tell(f"step {step}/{self._steps}  {words}  {self._left(step)} left")

    def _left(self, step: int) -> str:
        made = max(1, step - self._first_step)
        seconds = round((time.monotonic() - self._started) / made * (self._steps - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def epoch(self, row: Mapping[str, Any]) -> None:
        """The figures of an epoch that is over."""
        self._table.add(row)
        if self._board:
            for name in ("ap", "ap50", "images_per_second", "loader_wait_share"):
                if row.get(name) is not None:
                    self._board.add_scalar(name, row[name], row["step"])
        scores = f"  AP {row['ap']:.3f}  AP50 {row['ap50']:.3f}" if row.get("ap") is not None else ""
        speed = f"{row['images_per_second']:.1f} images/s, {row['loader_wait_share']:.0%} of it waiting for images"
        self.tell(f"epoch {row['epoch']}  loss {row['loss']:.3f}{scores}  {speed}")

    def picture(self, image_rgb_hwc: NDArray[Any], step: int) -> None:
        if self._board:
            self._board.add_image("pictures", image_rgb_hwc, step, dataformats="HWC")


class EpochTable:
    """A CSV with a row for each epoch; rows of epochs that will be made again are taken out."""

    def __init__(self, path: Path, epochs_done: int) -> None:
        self._path = path
        rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
        self._rows: list[dict[str, Any]] = [row for row in rows if int(row["epoch"]) <= epochs_done]

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append({name: "" if value is None else value for name, value in row.items()})
        names = list(dict.fromkeys(name for each in self._rows for name in each))
        with whole_file(self._path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self._rows)


def _tensor_board(folder: Path, first_step: int) -> Any:
    if not find_spec("tensorboard"):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
