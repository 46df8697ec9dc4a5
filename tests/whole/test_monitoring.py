"""The figures as a real Prometheus has them: those of the run's books; dashboard and alerts find what they ask for."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.kit.control import PATTERN
from tests.kit.harness import free_port, wait_until
from tests.kit.places import ROOT
from tests.kit.served import Page, served

MONITORING = ROOT / "configs" / "monitoring"
# More frames than can be computed: some are dropped.
FAST = PATTERN.replace("rate=10", "rate=400")

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus here (Debian: prometheus)")


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> dict:
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> dict[tuple[str, ...], float]:
        """By source, worker or output, stage and reason."""
        labels = ("source", "worker", "output", "stage", "reason", "state")
        return {
            tuple(row["metric"][label] for label in labels if label in row["metric"]): float(row["value"][1])
            for row in self.get("query", query=query)["result"]
        }


@contextmanager
def scraping(page: Page) -> Iterator[Prometheus]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="prom") as folder:
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{page.port}"]
        Path(folder, "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(MONITORING / "alerts.yml", folder)
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log)
        prometheus = Prometheus(port)

        def is_scraped() -> bool:
            assert process.poll() is None, Path(folder, "log").read_text()
            try:
                return len(prometheus.get("query", query="up[1h]")["result"][0]["values"]) > 3
            except (OSError, IndexError):
                return False

        try:
            wait_until(is_scraped, 60, "scrapes")
            yield prometheus
        finally:
            process.terminate()
            process.wait()


def queries_of_the_dashboard() -> list[str]:
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    return [target["expr"].replace("$instance", ".*") for panel in panels for target in panel["targets"]]


def queries_of_the_alerts() -> list[str]:
    """Without their thresholds, which nothing should be beyond."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    return [re.sub(r" (==|>) [\d.]+", "", part) for each in expressions for part in each.split(" or ")]


def test_a_real_prometheus_has_the_figures_of_the_books() -> None:
    seconds = float(os.environ.get("CENTERSTREAM_SCRAPE_SECONDS", "5"))
    with served(PATTERN, FAST, "--name", "door", "--name", "fast", "--realtime") as page:
        wait_until(lambda: all(each["drops"] or each["source_id"] == "door" for each in page.view()["sources"]))
        with scraping(page) as prometheus:
            wait_until(lambda: len(prometheus.get("query", query="up[1h]")["result"][0]["values"]) > seconds, 300)
            for query in queries_of_the_dashboard() + queries_of_the_alerts():
                assert prometheus.values(query), f"no data for {query}"
            for source_id in ("door", "fast"):
                page.say({"type": "hold", "source_id": source_id, "paused": True})
            wait_until(lambda: all(each["in_flight"] == 0 for each in page.view()["sources"]))
            view = {each["source_id"]: each for each in page.view()["sources"]}
            books = {
                f"centerstream_frames_{kind}_total": {(name,): each[kind] for name, each in view.items()}
                for kind in ("captured", "delivered")
            }
            wait_until(
                lambda: all(prometheus.values(name) == told for name, told in books.items()), 60, "the last scrape"
            )
            for name, each in view.items():
                of = f'{{source="{name}"}}'
                drops = {(name, drop["stage"], drop["reason"]): drop["frames"] for drop in each["drops"]}
                assert prometheus.values(f"centerstream_frames_dropped_total{of}") == drops
                lines = page.run.frames(name)
                assert len(lines) == each["captured"]
                assert sum(line["status"] == "ok" for line in lines) == each["delivered"]
            linted = subprocess.run(
                ["promtool", "check", "metrics"], input=page.get("/metrics").body, capture_output=True, check=False
            )
            assert linted.returncode == 0, linted.stderr.decode()


def test_promtool_finds_no_fault_with_what_ships() -> None:
    for command, file in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(["promtool", "check", command, str(MONITORING / file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
