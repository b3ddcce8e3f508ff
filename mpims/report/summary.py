"""What is said of a run when it is over: a dictionary for programs, lines for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from mpims.errors import brief
from mpims.report.wording import counted, duration, shorten


class Summary(TypedDict, total=False):
    """The contents of ``summary.json``.

    Attributes
    ----------
    status : str
        ``done``, ``failed`` or ``stopped``.
    error : str
        What went wrong, if anything did.
    job : str
    n_items, n_done, n_ranks, n_workers : int
    policy : str
    policy_reason : str
        What made a policy that learns choose as it did, as the last master saw it.
    n_chunks : int
        Chunks handed out, those handed out again included.
    n_reissued : int
        Attempts whose rest was given to another rank.
    n_recalled : int
        Chunks moved from a rank that had not begun them to an idle one.
    n_duplicates : int
        Items whose result came when another's was there already.
    n_split, n_twins : int
        Chunks of which an idle rank took half at the end, or which it computed as well.
    n_failures, n_skipped : int
        Blocks that failed, each time they did; items given up.
    n_timeouts, n_lost : int
        Times a rank was silent past its deadline; ranks that died.
    n_masters, n_resumed : int
        Times another rank became the master; times the run was resumed.
    wall_s : float
        From the start on the workers to the last result.
    workers_s : float
        The same summed over the workers: what they could have computed.
    busy_s : dict of str to float
        For each computing rank the seconds in the kernel.
    master_cpu_s : float
        Processor time of the master's loop (with one rank: of everything).
    noted_at : float
        When these figures were taken, Unix time.
    efficiency : float
        Busy time of all workers, for what was computed twice, too, over ``workers_s``. (What
        ``mpims report`` says of computing is without that.)
    imbalance : float
        Busy time of the busiest worker over the mean; 1.0 is even.
    result_file : str
    result_digest : str
        See `mpims.digest`.
    """

    status: str
    error: str
    job: str
    n_items: int
    n_done: int
    n_ranks: int
    n_workers: int
    policy: str
    policy_reason: str
    n_chunks: int
    n_reissued: int
    n_recalled: int
    n_duplicates: int
    n_split: int
    n_twins: int
    n_failures: int
    n_skipped: int
    n_timeouts: int
    n_lost: int
    n_masters: int
    n_resumed: int
    wall_s: float
    workers_s: float
    busy_s: dict[str, float]
    master_cpu_s: float
    noted_at: float
    efficiency: float
    imbalance: float
    result_file: str
    result_digest: str


def balance(busy_s: list[float], workers_s: float) -> tuple[float, float]:
    """Efficiency and imbalance, from each worker's busy seconds and what all had together.

    Examples
    --------
    >>> balance([3.0, 1.0], 8.0)
    (0.5, 1.5)
    """
    total = sum(busy_s)
    if not total or not workers_s:
        return 0.0, 1.0
    return total / workers_s, max(busy_s) * len(busy_s) / total


def summary_lines(summary: Summary, result: Any) -> list[str]:
    """The last lines on the terminal."""
    counts = [f"{counted(summary['n_chunks'], 'chunk')} by {summary['policy']}"]
    if summary.get("n_reissued"):
        counts.append(f"{summary['n_reissued']:,} reissued")
    for key, noun, what in (
        ("n_duplicates", "item", " computed twice"),
        ("n_timeouts", "timeout", ""),
        ("n_lost", "rank", " lost"),
        ("n_masters", "master", " lost"),
        ("n_resumed", "time", " resumed"),
        ("n_failures", "failure", ""),
    ):
        if summary.get(key):
            counts.append(counted(summary[key], noun) + what)  # type: ignore[literal-required]
    lines = [
        f"{summary['status']}: {counted(summary['n_items'], 'item')} in {duration(summary['wall_s'])} "
        f"on {_ranks(summary)}; {', '.join(counts)}",
        f"efficiency {summary['efficiency']:.0%}, imbalance {summary['imbalance']:.2f} "
        f"(busiest worker over the mean), master {summary['master_cpu_s'] / (summary['wall_s'] or 1):.1%} "
        "of a core",
    ]
    if summary["n_ranks"] == 1:
        del lines[1]
    if summary.get("policy_reason"):
        mean = summary["n_items"] / max(1, summary["n_chunks"])
        items = f"{mean:,.0f} items" if mean >= 1.5 else "1 item"
        lines.append(f"{summary['policy']}: chunks of {items}: {summary['policy_reason']}")
    if summary.get("n_skipped"):
        were = "was" if summary["n_skipped"] == 1 else "were"
        items = counted(summary["n_skipped"], "item")
        lines.append(
            f"{items} failed and {were} skipped: failed.json names {'it' if were == 'was' else 'them'}"
        )
    shown = shorten(brief(result, 200) if not hasattr(result, "shape") else array_text(result))
    lines.append(f"result {shown}")
    lines.append(f"sha256 {summary['result_digest']}")
    file = Path(summary["result_file"])
    lines.append(f"in     {file}")
    if file.suffix == ".pkl":  # pickle alone does not know the classes of a job's file
        lines.append(f"       to read it in Python: mpims.load({str(file.parent)!r})")
    return lines


def _ranks(summary: Summary) -> str:
    n = summary["n_ranks"]
    return "1 rank" if n == 1 else f"{n:,} ranks ({counted(summary['n_workers'], 'worker')})"


def array_text(array: Any) -> str:
    """An array in a few words: its form, and its value if that is short."""
    form = f"{array.dtype} array of shape {array.shape}" if array.shape else f"{array.dtype}"
    return f"{form}: {array.tolist()}" if array.size <= 4 else form
