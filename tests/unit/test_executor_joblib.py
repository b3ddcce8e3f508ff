"""What joblib is told of ranks that are not there yet."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("joblib")

from mpims.executor.joblib_backend import MpimsBackend


@pytest.mark.parametrize(("n_jobs", "expected"), [(None, 8), (-1, 8), (1, 2), (3, 3)])
@pytest.mark.parametrize("size", [None, "9"])
def test_all_ranks_unless_joblib_is_asked_for_less(monkeypatch, n_jobs, expected, size):
    for variable in [name for name in os.environ if name.startswith(("OMPI_", "PMI", "SLURM_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    if size is not None:
        monkeypatch.setenv("PMI_RANK", "0")
        monkeypatch.setenv("PMI_SIZE", size)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert MpimsBackend().effective_n_jobs(n_jobs) == expected


def test_versions_of_joblib_before_1_5_ask_by_another_name():
    assert MpimsBackend.apply_async is MpimsBackend.submit
