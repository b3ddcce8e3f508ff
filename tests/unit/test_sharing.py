"""A run directory that the nodes do not share is found at the start."""

from __future__ import annotations

import pytest

from mpims.errors import UsageError
from mpims.options import RunOptions
from mpims.processes import Process
from mpims.runtime import sharing
from mpims.runtime.ending import GOODBYE_WAIT_S
from mpims.runtime.sharing import check_shared
from mpims.runtime.wire import Start
from mpims.storage.rundir import MANIFEST, write_json

PATIENCE_S = sharing._PATIENCE_S
N1 = Process("n1", "boot", "ns", 1, 1)


def start_in(folder, run_id="abc"):
    return Start(
        source=None,
        parameters={},
        options=RunOptions(),
        run_id=run_id,
        epoch=0,
        run_dir=str(folder),
        command=(),
        master=N1,
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sharing, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(sharing, "_POLL_S", 0.001)


def test_the_manifest_is_looked_for_under_its_name():
    assert sharing._MANIFEST == MANIFEST


def test_the_run_is_seen_from_another_host(tmp_path):
    write_json(tmp_path / MANIFEST, {"run_id": "abc"})
    check_shared(start_in(tmp_path), 3, "n2")


def test_the_master_s_own_host_is_not_asked(tmp_path):
    check_shared(start_in(tmp_path / "none"), 3, "n1")


@pytest.mark.parametrize("left_over", [None, {"run_id": "of another run"}])
def test_a_run_directory_of_one_node_is_refused(tmp_path, left_over):
    if left_over is not None:
        write_json(tmp_path / MANIFEST, left_over)
    with pytest.raises(
        UsageError, match=r"of the master \(n1\) is not the same on rank 3 \(n2\): put it on"
    ):
        check_shared(start_in(tmp_path), 3, "n2")


def test_what_is_found_can_be_said_before_the_end_of_a_short_run():
    assert PATIENCE_S < GOODBYE_WAIT_S
