"""The report as one HTML file: no script, no network, pictures as SVG. Whatever a user gave is escaped on its way in.

Knows the record and the trace's lines, and nothing of how either came about.
"""

import time
from collections.abc import Iterable, Sequence
from html import escape

from pipeline.profile.frames import Slice, slowest, spans
from pipeline.profile.record import Cameras, Figure, Profile
from pipeline.sinks.trace import TraceLine
from pipeline.stage import CHAIN

COLOURS = dict(zip(CHAIN, ("#4c78a8", "#9d8ec7", "#e45756", "#f2a541", "#54a24b", "#72b7b2"), strict=True))
WIDTH = 960
LEFT = 135  # room for names beside a picture
# The time line shows so many frames from the middle of the run.
TIMELINE_FRAMES = 24
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin-bottom:0}h2{font-size:1.15em;margin:2em 0 .3em}p{margin:.3em 0}.quiet{color:#666}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .8em .15em 0;text-align:right;white-space:nowrap}
td:first-child,th:first-child,td.text,th.text{text-align:left;white-space:normal}th{border-bottom:1px solid #bbb}
svg{display:block;margin:.3em 0}svg text{font:12px system-ui,sans-serif;fill:#333}
.key span{display:inline-block;width:.9em;height:.9em;margin:0 .3em 0 1em;vertical-align:-.1em}
.big{font-size:1.25em}
"""


def page(profile: Profile, lines: Sequence[TraceLine]) -> str:
    """The whole file. Sections of what was not measured, for the profile was stopped, are left out."""
    sections = [
        _head(profile),
        _section("What holds it up", _bottleneck(profile)),
        _section("Prediction and proof", _proofs(profile)),
        _section("Stages", _stages(profile)),
    ]
    if profile.levers:
        sections.append(_section("What would move it", _levers(profile)))
    if lines:
        sections.append(_section("Time line by stage", _timeline(lines)))
        sections.append(_section("The slowest frames", _waterfall(slowest(lines))))
    if run := profile.run:
        sections += [
            _section("Latency by percentile", _breakdown(run.breakdown)),
            _section("Waiting against working", _waiting_and_working(profile)),
            _section("Frames that wait before each stage, over time", _depths(profile)),
        ]
        if run.cpu_seconds:
            sections.append(_section("CPU by process", _cpu(run.cpu_seconds, run.seconds)))
    title = f"Profile of {profile.stream.source}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part)


def _head(profile: Profile) -> str:
    stream, machine, model = profile.stream, profile.machine, profile.model
    rate = f", {stream.frames_per_second:g} frames/s" if stream.frames_per_second else ""
    played = f", played {stream.played} times over" if stream.played > 1 else ""
    size = f"{stream.width}x{stream.height}{rate}{', live' if stream.is_live else ''}{played}"
    network = (
        f"{model.name} {model.input_width}x{model.input_height} on {model.device}, {model.engine}, {model.precision}, "
        f"{model.workers} × {model.threads} threads, batch {model.batch}"
    )
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(profile.made_unix))
    lines = [f"{size} · {network}", f"{machine.processor}, {machine.cores} cores · {made}"]
    if not profile.is_complete:
        lines.append("Not complete: it goes on, or was stopped.")
    told = "".join(f'<p class="quiet">{escape(line)}</p>' for line in lines + profile.notes)
    return f"<h1>{escape(f'Profile of {stream.source}')}</h1>{told}"


def _bottleneck(profile: Profile) -> str:
    why = f"<b>{escape(profile.bottleneck)}</b>: {escape(profile.bottleneck_why)}."
    gain = profile.stages[profile.bottleneck].gain if profile.bottleneck in profile.stages else 0.0
    return f'<p class="big">{why}</p><p>If it took half as long, the run would be {100 * gain:.0f} % faster.</p>'


def _proofs(profile: Profile) -> str:
    rows = [("this run, frames/s", profile.throughput)]
    if profile.applied:
        rows.append((f"with {profile.applied.change}, frames/s", profile.applied.throughput))
    cells = [_figure_cells(*row) for row in rows]
    run = profile.run
    if run and run.cores and run.for_its_cores:
        off = f"{100 * (run.for_its_cores / run.throughput - 1):+.1f} %" if run.throughput else ""
        name = f"the same, for the {run.cores:.2f} cores that it kept busy"
        cells.insert(1, [name, f"{run.for_its_cores:.1f}", "", "", f"{run.throughput:.1f}", off])
    table = _table(("", "predicted", "from", "to", "measured", "off by"), cells)
    return table + (_cameras(profile.cameras) if profile.cameras else "")


def _figure_cells(name: str, figure: Figure) -> list[str]:
    error = "" if figure.error is None else f"{100 * figure.error:+.1f} %"
    measured = "" if figure.measured is None else f"{figure.measured:.1f}"
    return [name, f"{figure.predicted:.1f}", f"{figure.low:.1f}", f"{figure.high:.1f}", measured, error]


def _cameras(cameras: Cameras) -> str:
    what = f"Cameras at {cameras.rate:g} frames/s, 95 % of ages below {cameras.max_age_ms:g} ms, at most 1 % dropped"
    proven = cameras.not_tried or ("" if cameras.proven is None else str(cameras.proven))
    rows = [["this machine", str(cameras.likely), str(cameras.low), str(cameras.high), proven]]
    for cores, (low, likely, high) in cameras.elsewhere.items():
        rows.append([f"{cores} such cores (an estimate)", str(likely), str(low), str(high), ""])
    runs = [
        [
            f"{run.cameras}",
            f"{run.age_p95_ms:.0f}",
            f"{100 * run.dropped_share:.1f} %",
            "kept up" if run.keeps_up else "did not",
        ]
        for run in cameras.runs
    ]
    tried = _table(("cameras tried", "age p95 ms", "dropped", ""), runs) if runs else ""
    return f"<p>{escape(what)}</p>" + _table(("", "predicted", "from", "to", "proven"), rows) + tried


def _stages(profile: Profile) -> str:
    titles = (
        "",
        "alone, frames/s",
        "CPU ms",
        "idle ms",
        "in the run: waiting p50",
        "p95",
        "working p50",
        "p95",
        "CPU ms",
    )
    rows = []
    for stage, each in profile.stages.items():
        row = [
            stage,
            f"{each.capacity:.1f}",
            f"{each.alone.cpu_ms + each.alone.round_ms:.2f}",
            f"{each.alone.idle_ms:.2f}",
        ]
        if each.run:
            waiting, working = each.run.waiting, each.run.working
            row += [f"{value:.2f}" for value in (waiting.p50_ms, waiting.p95_ms, working.p50_ms, working.p95_ms)]
            row.append("–" if each.run_cpu_ms is None else f"{each.run_cpu_ms:.2f}")
        rows.append(row)
    return _table(titles, rows) + f"<p>Handing a frame on costs {profile.hand_over_ms:.2f} ms of CPU a stage.</p>"


def _levers(profile: Profile) -> str:
    rows = [
        [
            row.lever,
            row.change,
            f"{row.throughput:.1f}",
            f"{100 * row.gain:+.0f} %",
            "model" if row.how == "model" else "trial of the stage",
            "the same" if row.keeps_results else "other",
        ]
        for row in profile.levers
    ]
    return _table(("", "change", "frames/s", "gain", "figure by", "results"), rows, text_columns=(0, 1))


# -- pictures


def _timeline(lines: Sequence[TraceLine]) -> str:
    """A row a stage; each bar a frame at work, in a light shade while it waits for the stage."""
    ordered = sorted((line for line in lines if line.hops), key=lambda line: line.captured_ns)
    middle = max(0, len(ordered) // 2 - TIMELINE_FRAMES // 2)
    chosen = ordered[middle : middle + TIMELINE_FRAMES]
    if not chosen:
        return ""
    start, end = min(line.hops[0].entered_ns for line in chosen), max(line.hops[-1].left_ns for line in chosen)
    scale, row = _scale(start, end), 34
    drawn = []
    for number, stage in enumerate(CHAIN):
        top = 8 + number * row
        drawn.append(_text(0, top + 17, stage))
        free: list[int] = []  # when the line of a lane ends
        for line in chosen:
            for span in spans(line):
                if span.stage != stage:
                    continue
                lane = next((n for n, until in enumerate(free) if until <= span.entered_ns), len(free))
                free[lane : lane + 1] = [span.left_ns]
                y = top + 2 + min(lane, 2) * 8
                title = f"{line.source} {line.seq}: waited {span.waiting_ms:.1f} ms, worked {span.working_ms:.1f} ms"
                drawn.append(
                    _bar(scale(span.entered_ns), y, scale(span.left_ns) - scale(span.entered_ns), 7, stage, title)
                )
    return _key() + _svg(8 + len(CHAIN) * row + 20, [*drawn, *_axis(start, end, 8 + len(CHAIN) * row)])


def _waterfall(lines: Sequence[TraceLine]) -> str:
    """A row a frame from capture to delivery: light while it waits for a stage, solid while that works on it."""
    if not lines:
        return ""
    longest, row = max(line.latency_ms for line in lines), 20
    scale = _scale(0.0, longest)
    drawn = []
    for number, line in enumerate(lines):
        y = 4 + number * row
        drawn.append(_text(0, y + 12, f"{line.source[:9]} {line.seq}"))
        for span in spans(line):
            came, entered, left = (
                (at - line.captured_ns) / 1e6 for at in (span.came_ns, span.entered_ns, span.left_ns)
            )
            title = f"{span.stage}: waiting {span.waiting_ms:.1f} ms, working {span.working_ms:.1f} ms"
            drawn.append(_bar(scale(came), y, scale(entered) - scale(came), 14, span.stage, title, light=True))
            drawn.append(_bar(scale(entered), y, scale(left) - scale(entered), 14, span.stage, title))
    bottom = 4 + len(lines) * row
    return _key(waits=True) + _svg(bottom + 20, [*drawn, *_axis(0.0, longest * 1e6, bottom)])


def _breakdown(slices: Sequence[Slice]) -> str:
    if not slices:
        return ""
    longest, row = max(each.latency_ms for each in slices), 26
    scale, drawn = _scale(0.0, longest), []
    for number, each in enumerate(slices):
        y, at = 4 + number * row, 0.0
        drawn.append(_text(0, y + 14, f"p{each.percent}: {each.latency_ms:.0f} ms"))
        for stage in CHAIN:
            for kind, values in (("waiting", each.waiting_ms), ("working", each.working_ms)):
                value = values.get(stage, 0.0)
                title = f"{stage}: {kind} {value:.1f} ms"
                drawn.append(_bar(scale(at), y, scale(at + value) - scale(at), 18, stage, title, kind == "waiting"))
                at += value
    bottom = 4 + len(slices) * row
    return _key(waits=True) + _svg(bottom + 20, [*drawn, *_axis(0.0, longest * 1e6, bottom)])


def _waiting_and_working(profile: Profile) -> str:
    times = {stage: each.run for stage, each in profile.stages.items() if each.run}
    longest = max((max(t.waiting.mean_ms, t.working.mean_ms) for t in times.values()), default=0.0)
    if not longest:
        return ""
    scale, drawn = _scale(0.0, longest), []
    for number, (stage, each) in enumerate((s, times[s]) for s in CHAIN if s in times):
        y = 4 + number * 32
        drawn.append(_text(0, y + 16, stage))
        for offset, kind, mean_ms in ((0, "waiting", each.waiting.mean_ms), (13, "working", each.working.mean_ms)):
            title = f"{stage}: {kind} {mean_ms:.2f} ms on average"
            drawn.append(_bar(LEFT, y + offset, max(1.0, scale(mean_ms) - LEFT), 11, stage, title, kind == "waiting"))
    bottom = 4 + len(times) * 32
    return _key(waits=True) + _svg(bottom + 20, [*drawn, *_axis(0.0, longest * 1e6, bottom)])


def _depths(profile: Profile) -> str:
    assert profile.run
    depths = profile.run.depths
    if not depths.seconds:
        return ""
    scale, drawn, row = _scale(0.0, depths.seconds[-1]), [], 44
    for number, stage in enumerate(CHAIN):
        counts, base = depths.waiting[stage], 40 + number * row
        most = max(1, max(counts))
        points = " ".join(
            f"{scale(at):.1f},{base - 30 * count / most:.1f}" for at, count in zip(depths.seconds, counts, strict=True)
        )
        drawn.append(_text(0, base - 8, f"{stage} (most {max(counts)})"))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[stage]}" stroke-width="1.5"/>')
    bottom = 46 + (len(CHAIN) - 1) * row
    return _svg(bottom + 20, [*drawn, *_axis(0.0, depths.seconds[-1] * 1e9, bottom)])


def _cpu(cpu_seconds: dict[str, float], seconds: float) -> str:
    most = max([seconds, *cpu_seconds.values()])
    scale, drawn = _scale(0.0, most / seconds), []
    for number, (worker, used) in enumerate(sorted(cpu_seconds.items(), key=lambda item: -item[1])):
        y, stage = 4 + number * 22, worker.partition(":")[0]
        drawn.append(_text(0, y + 12, worker[:16]))
        title = f"{worker}: {used:.2f} s of CPU in {seconds:.1f} s"
        drawn.append(_bar(LEFT, y, max(1.0, scale(used / seconds) - LEFT), 15, stage, title))
        drawn.append(_text(min(scale(used / seconds) + 6, WIDTH - 60), y + 12, f"{used / seconds:.2f}"))
    return "<p>cores kept busy</p>" + _svg(10 + len(cpu_seconds) * 22, drawn)


def _scale(start: float, end: float):  # type: ignore[no-untyped-def]
    """From a value to its place in the picture."""
    width = (WIDTH - LEFT - 20) / max(end - start, 1e-9)
    return lambda value: LEFT + (value - start) * width


def _axis(start_ns: float, end_ns: float, y: float) -> Iterable[str]:
    """Times below a picture, from 0."""
    total_ms = (end_ns - start_ns) / 1e6
    for part in range(6):
        x = LEFT + (WIDTH - LEFT - 20) * part / 5
        at_ms = total_ms * part / 5
        label = f"{at_ms / 1e3:.2f} s" if total_ms >= 3000 else f"{at_ms:.1f} ms"
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{y}" stroke="#ddd" stroke-width="0.6"/>'
        yield _text(x - (48 if part == 5 else 0), y + 15, label)


def _bar(x: float, y: float, width: float, height: float, stage: str, title: str, light: bool = False) -> str:
    fade = ' fill-opacity="0.3"' if light else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.4, width):.1f}" height="{height}" '
        f'fill="{COLOURS.get(stage, "#888")}"{fade}><title>{escape(title)}</title></rect>'
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(height: float, parts: Iterable[str]) -> str:
    return f'<svg width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}">{"".join(parts)}</svg>'


def _key(waits: bool = False) -> str:
    named = "".join(f'<span style="background:{colour}"></span>{stage}' for stage, colour in COLOURS.items())
    return f'<p class="key quiet">{named}{" · light: waiting for it" if waits else ""}</p>'


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        aligned = (" class=text" if n in text_columns else "" for n in range(len(cells)))
        return "".join(f"<{tag}{how}>{escape(cell)}</{tag}>" for how, cell in zip(aligned, cells, strict=True))

    body = "".join(f"<tr>{row('td', cells)}</tr>" for cells in rows)
    return f"<table><tr>{row('th', titles)}</tr>{body}</table>"
