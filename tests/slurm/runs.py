"""What run directories say of these tests: whether a run is done, how often each item was computed."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mpims
from mpims.pages.history import read_history
from mpims.runtime.computing import LONGEST_REPORT_INTERVAL_S
from tests.conftest import ROOT
from tests.slurm.slowly import Slowly

SCRIPTS = ROOT / "slurm"
SLOWLY = ROOT / "tests" / "slurm" / "slowly.py"


def settings(**parameters: Any) -> list[str]:
    """Parameters of the job, as they are typed."""
    return [text for name, value in parameters.items() for text in ("--set", f"{name}={value}")]


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary of a run; nothing while there is none."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def computed(folder: Path) -> Counter[int]:
    """How often each item was computed, by what the job printed, whatever became of the result."""
    printed = [path.read_text(errors="replace") for path in folder.glob("output/rank-*.txt")]
    return Counter(int(item) for text in printed for item in re.findall(r": computed (\d+)\n", text))


def in_flight(pause_s: float) -> int:
    """How many items a worker may have computed without having told of them, and have at hand."""
    return int(LONGEST_REPORT_INTERVAL_S / pause_s) + 2


def taken_over(folder: Path) -> int:
    """How often an idle rank took over what another held, who may have begun it."""
    return sum(summary_of(folder)[name] for name in ("n_twins", "n_split", "n_recalled"))


def check_result(folder: Path, tmp_path: Path, **parameters: Any) -> None:
    """The run is done, and its result has the bits of one that was never disturbed."""
    assert summary_of(folder)["status"] == "done"
    undisturbed = mpims.run(Slowly(**parameters), run_dir=tmp_path / "undisturbed", quiet=True)
    found = np.load(folder / "result.npy")
    assert found.dtype == undisturbed.value.dtype
    assert found.tobytes() == undisturbed.value.tobytes()


def handed_out_again(folder: Path) -> set[int]:
    """Items that a later part of a run handed out though an earlier one had their results, by the trace."""
    history = read_history(folder)
    again: set[int] = set()
    for part in range(1, len(history.stretches)):
        before = history.parts[history.parts["stretch"] < part]
        handed_out = history.sent[history.sent["stretch"] == part]
        again |= _items(before) & _items(handed_out)
    return again


def _items(records: NDArray[np.void]) -> set[int]:
    return {item for record in records for item in range(record["start"], record["stop"])}
