"""The ranks as rank 0 sees them: all that takes several ranks to find out."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from mpims.doctor.cores import judge_seats, this_seat
from mpims.doctor.disk import held_token, judge_sharing, scratch_folder
from mpims.doctor.finding import Finding, Verdict
from mpims.doctor.handout import handout_finding
from mpims.doctor.library import judge_faults, judge_level
from mpims.doctor.links import gather_answers, judge_answers, judge_links, measure_links
from mpims.errors import ExitStatus, UsageError
from mpims.launch import Launcher
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind
from mpims.session import connect
from mpims.supervise import find_marked
from mpims.world import World

_RUN_BYTES = 4 << 20  # more than a run of items without work leaves


def world_findings(
    world: World, folder: Path, launcher: Launcher | None, n_allocated: int
) -> Iterator[Finding]:
    """Examine the ranks that a launcher started; called on rank 0.

    Parameters
    ----------
    world
        What the launcher says.
    folder
        Where the run directory is to be.
    launcher
        The launcher that belongs to the MPI library, if there is one.
    n_allocated
        How many nodes a batch system gave; 0 where there is none.
    """
    try:
        transport = connect(share=False)
    except UsageError as error:  # each process is a world of its own
        value, _, cure = error.message.partition("; ")
        cure = cure or "start the ranks with the launcher of that MPI"
        yield Finding("ranks", "world", value, Verdict.BAD, cure, {"launched": world.size})
        yield from judge_seats([this_seat()], 0)
        return
    from mpims.runtime.transport.mpi import thread_level

    yield judge_level(thread_level())
    if transport is None:
        yield from alone_findings("the launcher started one", "start three ranks or more: -n 3")
        return
    yield judge_faults(transport.survives_deaths, launcher, transport.size)
    yield from rank_findings(transport, folder, n_allocated)


def alone_findings(reason: str, cure: str, verdict: Verdict = Verdict.DOUBTFUL) -> Iterator[Finding]:
    """What can be said of this process alone, where there are no ranks to examine."""
    yield Finding("ranks", "world", f"one rank: {reason}", verdict, cure)
    yield from judge_seats([this_seat()])


def rank_findings(transport: Transport, folder: Path, n_allocated: int = 0) -> Iterator[Finding]:
    """Examine the other ranks of a transport, which answer as `mpims.doctor.partner` does."""
    with ExitStack() as stack:
        scratch = _scratch(folder, stack)
        try:
            answers = gather_answers(transport, stack.enter_context(held_token(scratch)) if scratch else "")
            yield from judge_answers(transport.size, answers, transport.lost)
            sights = {a.seat.host: a.sight for a in answers.values() if a.sight}
            yield from judge_sharing(transport.host, sights)
            yield from judge_seats(
                [this_seat(), *(answer.seat for answer in answers.values())], n_allocated
            )
            links = measure_links(transport, answers)
            yield from judge_links(links)
        finally:
            for rank in transport.alive - {transport.rank}:
                transport.send(rank, Kind.CLOSING)
        if len(answers) < transport.size - 1 or None in links.values():
            kill_silent(set(range(1, transport.size)) - answers.keys(), os.environ)
            transport.abandon(ExitStatus.FAILED)
        elif scratch is None:
            value = "not measured: the run directory cannot be written to"
            yield Finding("messages", "hand-outs", value, Verdict.DOUBTFUL, "cure the run directory")
        else:
            yield handout_finding(transport, scratch, min(link.trip_s for link in links.values() if link))


def kill_silent(ranks: Iterable[int], environ: Mapping[str, str]) -> None:
    """Kill ranks of this world and host that do not answer: with a stopped one, Open MPI's would never end.

    They have not said who they are, but the launcher gave them an environment.
    """
    world = find_marked(f"PMIX_NAMESPACE={environ.get('PMIX_NAMESPACE')}".encode())
    for rank in ranks:
        for process in set(world).intersection(find_marked(f"OMPI_COMM_WORLD_RANK={rank}".encode())):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)


def _scratch(folder: Path, stack: ExitStack) -> Path | None:
    """A folder that is removed at the end; None if the run directory takes none, or nothing in it."""
    try:
        scratch = stack.enter_context(scratch_folder(folder))
        (scratch / "room").write_bytes(bytes(_RUN_BYTES))
        return scratch
    except OSError:
        return None
