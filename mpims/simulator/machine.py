"""What a run is simulated on, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mpims.drill.plan import Moment

DETECTION_S = 0.03
"""The master knows of a death after so long: what MPI with ULFM takes on one host."""
REPORT_S = 1.0
"""A worker delivers what it has of a chunk this often, at the end of a block."""

MAX_WORKERS = 1_000_000
"""A simulated run has at most so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The ranks of a simulated run and what stands between them; ranks 1 to `n_workers` compute.

    Parameters
    ----------
    n_workers
        How many ranks compute, at least 1.
    overhead_s
        Seconds that each chunk costs its worker before the kernel begins: the h of the literature.
    service_s
        Seconds that each result, with what is handed out for it, keeps the master busy, and each message
        with chunks beside.
    latency_s
        Seconds that a message is under way.
    report_s
        A worker delivers what it has of a chunk this often; `inf` lets it deliver whole chunks only.
    detection_s
        Seconds until the master knows of a death.
    slowness
        How many times as long as the others a rank takes, for the ranks that do.
    deaths
        Ranks that die, and when.
    """

    n_workers: int
    overhead_s: float = 0.0
    service_s: float = 0.0
    latency_s: float = 0.0
    report_s: float = REPORT_S
    detection_s: float = DETECTION_S
    slowness: Mapping[int, float] = field(default_factory=dict)
    deaths: Sequence[tuple[int, Moment]] = ()


@dataclass(slots=True)
class Played:
    """How a simulated run went.

    Attributes
    ----------
    makespan_s
        Virtual seconds until the master had taken in the last result.
    largest, least
        Sizes of chunks, in blocks: of all that were handed out, those taken over from others included.
    n_messages
        Results that the master took in.
    served_s
        Seconds that the master was busy.
    waited_s, longest_wait_s
        Seconds that results waited for the master, all together and the longest.
    """

    makespan_s: float = 0.0
    largest: int = 0
    least: int = 0
    n_messages: int = 0
    served_s: float = 0.0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
