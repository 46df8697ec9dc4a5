"""The page about a training: its curves, what it came to by class, its best and worst images, speed, recipe, machine.

One HTML file with everything in it: nothing is fetched, no script runs. Knows no network.
"""

import base64
import csv
import math
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import metadata
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models.devices import processor_name
from models.files import whole_file
from train.average_precision import SHOWN_SCORE, Scores
from train.coco import CocoData
from train.confusion import LEAST_IOU, confusion
from train.curves import Point, chart
from train.dataset import read_pixels
from train.evaluate import best_threshold_line, percent, span
from train.intervals import Interval
from train.pictures import compared
from train.recipe import Recipe

Row = dict[str, float]

# What is on the other axis.
MEASURES = ("epoch", "step", "seconds")
PRECISIONS = ("ap", "ap50", "ap75")
PERCENT = (*PRECISIONS, "loader_wait_share")
TITLES = {
    "ap": "average precision in percent",
    "loss": "loss, all heads",
    "hm": "loss of hm, the heat maps",
    "wh": "loss of wh, the sizes",
    "reg": "loss of reg, the offsets",
    "learning_rate": "learning rate",
    "images_per_second": "images a second",
    "loader_wait_share": "percent of the time spent waiting for images",
}
PACKAGES = ("torch", "torchvision", "numpy", "numba", "opencv-python-headless", "opencv-python", "pycocotools")

GALLERY = 6  # images each of the worst and of the best
LONGER_SIDE = 800  # of their pictures, in pixels
# Thin lines in colour need the colour of every pixel.
JPEG = (
    cv2.IMWRITE_JPEG_QUALITY,
    80,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


def write_report(
    folder: Path, recipe: Recipe, data: CocoData, scores: Scores, name: str = "test", flipped: Scores | None = None
) -> Path:
    """Writes report.html into `folder`, whole or not at all, from the metrics.csv there, if there is one.

    `scores` are those of `data`, whose `name` says what it was for: "test", "validation". Columns of metrics.csv that
    are missing, empty or no numbers are left out, and those not known here get curves too. `flipped` are the scores of
    detections that are averaged with those in the mirrored image. Raises OSError.
    """
    path, rows = folder / "report.html", read_metrics(folder / "metrics.csv")
    body = "\n".join(
        [
            _head(recipe, rows, scores, name, flipped),
            _section("Curves", _curves(rows)),
            _section("Average precision by class", _by_class(scores)),
            *_confusion(data, scores),
            *_gallery(data, scores),
            _section("Recipe", f"<pre>{escape(msgspec.yaml.encode(recipe).decode())}</pre>"),
            _section("Machine", _table(("", ""), machine())),
        ]
    )
    page = PAGE.format(title=escape(f"{folder.name}: training report"), body=body)
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def read_metrics(path: Path) -> list[Row]:
    """The rows of a CSV, of each what is a number."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return [dict(_numbers(row)) for row in csv.DictReader(line.replace("\0", "") for line in file)]


def _numbers(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        try:
            value = float(text)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            yield name, value


# -- parts of the page


def _head(recipe: Recipe, rows: list[Row], scores: Scores, name: str, flipped: Scores | None) -> str:
    best = max((row for row in rows if "ap" in row), key=lambda row: row["ap"], default=None)
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    sure = scores.intervals
    cards = [
        ("AP", _with_span(scores.ap, sure.ap if sure else None)),
        ("AP50", _with_span(scores.ap50, sure.ap50 if sure else None)),
        ("AP75", _with_span(scores.ap75, sure.ap75 if sure else None)),
        ("best epoch", f"{best['epoch']:g} of {len(rows)}" if best and "epoch" in best else "-"),
        ("images a second", _plain(_mean(rows, "images_per_second"))),
        ("waiting for images", f"{percent(_mean(rows, 'loader_wait_share'))} %"),
        ("training time", _duration(seconds) if seconds else "-"),
    ]
    drawn = "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in cards)
    about = f"AP in percent on {scores.images} {escape(name)} images; speed is that of the training."
    if flipped:
        about += f" Averaged with the mirrored image: AP {percent(flipped.ap)}, AP50 {percent(flipped.ap50)}."
    if scores.threshold:
        line = best_threshold_line(scores)
        about += f" {line[0].upper()}{line[1:]}."
    if sure:
        about += " Beside a figure: where it lies in 95 of 100 draws of as many of these images, with repetition."
    return f"<h1>{escape(recipe.model.name)}: training report</h1>\n<dl>{drawn}</dl>\n<p>{about}</p>"


def _with_span(share: float, interval: Interval | None) -> str:
    return percent(share) + (f" <small>{span(interval)}</small>" if interval else "")


def _mean(rows: list[Row], name: str) -> float:
    """Over the time: epochs that took longer count more."""
    known = [(row[name], row.get("seconds", 1.0)) for row in rows if name in row]
    total = sum(seconds for _, seconds in known)
    return sum(value * seconds for value, seconds in known) / total if total > 0 else math.nan


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def _curves(rows: list[Row]) -> str:
    names = dict.fromkeys(name for row in rows for name in row)
    x_name = "epoch" if "epoch" in names else "step"
    groups = [PRECISIONS, *((name,) for name in names if name not in (*MEASURES, *PRECISIONS))]
    figures = [_curve(rows, x_name, [name for name in group if name in names]) for group in groups]
    return f'<div class="curves">{"".join(figures)}</div>' if names else "<p>There is no metrics.csv with figures.</p>"


def _curve(rows: list[Row], x_name: str, names: list[str]) -> str:
    if not names:
        return ""
    lines = {name: _points(rows, x_name, name) for name in names}
    legend = (
        [f'<b class="line{i}">{escape(name.upper())}</b>' for i, name in enumerate(names)] if len(names) > 1 else []
    )
    title = " ".join([escape(TITLES.get(names[0], names[0])), *legend])
    return f"<figure><figcaption>{title}</figcaption>{chart(lines, x_name)}</figure>"


def _points(rows: list[Row], x_name: str, name: str) -> list[Point]:
    factor = 100 if name in PERCENT else 1
    return [(row.get(x_name, place), factor * row[name]) for place, row in enumerate(rows, start=1) if name in row]


def _by_class(scores: Scores) -> str:
    sure = scores.intervals
    rows = []
    for name, each in scores.by_class.items():
        spans = (span(sure.by_class[name].ap), span(sure.by_class[name].ap50)) if sure else ("", "")
        rows.append((name, str(each.objects), percent(each.ap), spans[0], percent(each.ap50), spans[1]))
    sizes = [("small", scores.small), ("medium", scores.medium), ("large", scores.large), ("AR100", scores.ar100)]
    spans_of = {"small": sure.small, "medium": sure.medium, "large": sure.large} if sure else {}
    by_size = ", ".join(f"{title} {_with_span(value, spans_of.get(title))}" for title, value in sizes)
    note = "objects up to 32² pixels, up to 96², above; - where there is none"
    headings = ("class", "objects", "AP", "", "AP50", "")
    return _table(headings, rows) + f"<p>All classes: {by_size} <small>({note})</small></p>"


def _confusion(data: CocoData, scores: Scores) -> Iterator[str]:
    if not scores.threshold:
        return
    table = confusion(data, scores.detections, scores.threshold.score)
    titles = [*data.class_names, "nothing"]
    rows = [(f"is {title}", *map(str, row)) for title, row in zip(titles, table, strict=True)]
    note = f"<p>Of what scores {scores.threshold.score:.2f} or more, at IoU {LEAST_IOU}.</p>"
    yield _section("What is taken for what", note + _table(("", *(f"as {title}" for title in titles)), rows))


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{f"<tr>{head}</tr>" if any(headings) else ""}{body}</table></div>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>"


# -- images


def _gallery(data: CocoData, scores: Scores) -> Iterator[str]:
    worst, best = choose_images(scores.f1_by_image, [len(image.boxes_xyxy) for image in data.images])
    colours = "In colour what was found, below it what is annotated: white with a dark edge."
    note = f"<p>By F1 at IoU 0.5 of what scores {SHOWN_SCORE} or more. {colours}</p>"
    for title, places in (("Worst images", worst), ("Best images", best)):
        figures = "".join(_figure(data, scores, place) for place in places)
        yield _section(title, f'{note}<div class="gallery">{figures}</div>')


def choose_images(f1_by_image: NDArray[np.float64], objects: Sequence[int]) -> tuple[list[int], list[int]]:
    """Places of the worst and of the best images, each worst or best first, no image among both; of equals first the
    one with more objects."""
    counts = -np.asarray(objects)
    worst, best = np.lexsort((counts, f1_by_image)), np.lexsort((counts, -f1_by_image))
    few = min(GALLERY, len(f1_by_image) // 2)
    chosen = best[: min(GALLERY, len(f1_by_image) - few)].tolist()
    return [place for place in worst.tolist() if place not in chosen][:few], chosen


def _figure(data: CocoData, scores: Scores, place: int) -> str:
    image, found = data.images[place], scores.detections[place]
    try:
        image_bgr = np.ascontiguousarray(read_pixels(image)[:, :, ::-1])
    except ValueError as error:
        return f"<figure><p>{escape(str(error))}</p></figure>"
    factor = LONGER_SIDE / max(image_bgr.shape)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    scaled = np.concatenate((found[:, :4] * factor, found[:, 4:]), axis=1)
    picture = compared(
        cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC).astype(np.uint8),
        image.boxes_xyxy * factor,
        scaled,
        data.class_names,
    )
    jpeg = base64.b64encode(cv2.imencode(".jpg", picture, JPEG)[1].tobytes()).decode()
    name, shown = escape(image.path.name), int((found[:, 4] >= SHOWN_SCORE).sum())
    words = f"F1 {scores.f1_by_image[place]:.2f}: {len(image.boxes_xyxy)} objects, {shown} shown"
    source = f"data:image/jpeg;base64,{jpeg}"
    return (
        f'<figure><img src="{source}" width="{size[0]}" height="{size[1]}" alt="{name}: {words}">'
        f"<figcaption>{name}<br>{words}</figcaption></figure>"
    )


# -- the machine


def machine() -> list[tuple[str, str]]:
    """What this runs on, in lines of (what, which)."""
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = [
        ("processor", f"{processor_name()}, {os.cpu_count()} cores"),
        ("GPU", ", ".join(cuda) or "none"),
        ("system", platform.platform()),
        ("Python", platform.python_version()),
    ]
    return facts + [(name, version) for name in PACKAGES if (version := _version(name))]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{
  color-scheme: light dark;
  --page: #fff; --card: #f4f6f8; --ink: #1c2126; --quiet: #5c6670; --rule: #d9dfe5;
  --line0: #0b63c5; --line1: #b4530a; --line2: #1a7f4b;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --page: #14181c; --card: #1e2429; --ink: #e6eaee; --quiet: #9aa6b2; --rule: #343c44;
    --line0: #6cb0ff; --line1: #f2a35e; --line2: #5fcf94;
  }}
}}
body {{ margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .7rem; }}
p, small, dt, figcaption {{ color: var(--quiet); }}
dl {{ display: flex; flex-wrap: wrap; gap: .7rem; margin: 0; }}
dl div {{ background: var(--card); border-radius: 8px; padding: .6rem 1rem; }}
dt, figcaption {{ font-size: .85rem; }}
dd {{ margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }}
.curves {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }}
.gallery {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }}
figure {{ margin: 0; background: var(--card); border-radius: 8px; padding: .7rem; }}
.curves figcaption {{ color: var(--ink); margin-bottom: .3rem; }}
img {{ display: block; width: 100%; height: auto; border-radius: 4px; margin-bottom: .4rem; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ fill: var(--quiet); font-size: 11px; font-variant-numeric: tabular-nums; }}
svg path {{ fill: none; stroke: var(--rule); }}
svg .axis {{ stroke: var(--quiet); }}
svg polyline {{ fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }}
svg circle {{ fill: currentColor; }}
.line0 {{ color: var(--line0); }} .line1 {{ color: var(--line1); }}
.line2 {{ color: var(--line2); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid var(--rule); }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ color: var(--quiet); font-weight: normal; font-size: .85rem; }}
pre {{ overflow-x: auto; background: var(--card); border-radius: 8px; padding: 1rem; font-size: .85rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
