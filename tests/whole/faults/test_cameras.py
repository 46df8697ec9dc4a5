"""Cameras that are lost in each way there is, and come back."""

import time

import pytest

from tests.whole.faults.network import own_network
from tests.whole.faults.rig import Options, run_of
from tests.whole.witness.account import Allowed

pytestmark = pytest.mark.faults


def test_nothing_happens(tmp_path) -> None:
    with run_of(tmp_path, "none") as run:
        run.fault_begins()
        time.sleep(3)
        run.fault_ends()


@pytest.mark.parametrize(("cameras", "rate"), [(8, 10), (30, 2)])
def test_nothing_happens_to_many(cameras: int, rate: int, tmp_path) -> None:
    options = Options(cameras=cameras, site=("--rate", rate))
    with run_of(tmp_path, f"none, {cameras} cameras of {rate} frames/s", options) as run:
        run.fault_begins()
        time.sleep(3)
        run.fault_ends()


def test_the_server_is_killed_and_back_after_a_while(tmp_path) -> None:
    with run_of(tmp_path, "RTSP server killed, back after 4 s") as run:
        run.site.kill()
        run.fault_begins()
        run.wait_for_signal("cam0", "lost")
        time.sleep(4)
        run.site.begin()
        run.fault_ends(is_back=run.is_after_outage)


def test_the_server_is_begun_again_at_once(tmp_path) -> None:
    with run_of(tmp_path, "RTSP server restarted") as run:
        run.fault_begins()
        run.site.kill()
        run.site.begin()
        run.fault_ends(is_back=run.is_after_outage)


def test_the_server_stands_still(tmp_path) -> None:
    with run_of(tmp_path, "RTSP server frozen (SIGSTOP) for 6 s") as run:
        run.site.freeze()
        run.fault_begins()
        run.wait_for_signal("cam0", "lost")
        time.sleep(3)
        run.site.thaw()
        run.fault_ends(is_back=run.is_after_outage)


def test_the_server_asks_for_a_password_after_a_while(tmp_path) -> None:
    with run_of(tmp_path, "401 after a while, for 4 s") as run:
        run.fault_begins()
        run.site.tell("* password s3cret")
        run.wait_for_signal("cam0", "lost")
        time.sleep(4)
        run.site.tell("* password off")
        run.fault_ends(is_back=run.is_after_outage)


def test_the_wire_is_cut_and_nobody_is_told(tmp_path) -> None:
    with own_network() as network, run_of(tmp_path, "half-open connection for 6 s", Options(network=network)) as run:
        network.cut()
        run.fault_begins()
        run.wait_for_signal("cam0", "lost")
        time.sleep(3)
        network.heal()
        run.fault_ends(is_back=run.is_after_outage)


@pytest.mark.parametrize("percent", [3, 20])
def test_packets_are_lost(percent: int, tmp_path) -> None:
    with own_network() as network:
        options = Options(network=network, source={"rtsp_transport": "udp"}, allowed=Allowed(damage=True))
        with run_of(tmp_path, f"{percent} % of UDP packets lost for 8 s", options) as run:
            network.lose_udp(percent)
            run.fault_begins()
            time.sleep(8)
            if percent < 10:
                run.wait_for_results(run.fault.at_unix or 0.0)
            network.heal()
            run.fault_ends()
