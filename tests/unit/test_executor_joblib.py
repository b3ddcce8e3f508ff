"""What joblib is told of ranks, before they are there too, and whether it leaves them the work."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

import pytest

pytest.importorskip("joblib")

import joblib

from mpims.executor import joblib_backend
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


class OneRank(ThreadPoolExecutor):
    """Another executor of one worker."""

    n_workers = 1

    def __init__(self, n=None):
        super().__init__(1)


def workers_of(n_jobs, **options):
    """The threads that joblib's calls were made in."""
    with joblib.parallel_config("mpims", **options):
        return set(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(get_ident)() for _ in range(5)))


def test_a_single_rank_is_left_the_work():
    with OneRank() as pool:
        assert workers_of(2, executor=pool) == {pool.submit(get_ident).result()}


def test_a_single_rank_that_was_started_for_a_call_ends_with_it(monkeypatch):
    started = []
    monkeypatch.setattr(joblib_backend, "Executor", lambda n: started.append(OneRank(n)) or started[-1])
    assert get_ident() not in workers_of(2)
    with pytest.raises(RuntimeError, match="after shutdown"):
        started[0].submit(get_ident)


def test_one_job_starts_no_ranks(monkeypatch):
    monkeypatch.setattr(joblib_backend, "Executor", None)
    assert workers_of(1) == {get_ident()}
