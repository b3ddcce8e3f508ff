"""The end of a run: the workers say goodbye, and ranks that do not answer are fenced."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from functools import partial

from mpims.errors import ExitStatus, MpimsError, Stopped
from mpims.processes import Process, is_alive, send_signal
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import End, Failed, Fence, Kind, decode_object, encode_object

GOODBYE_WAIT_S = 5.0
"""After the end, workers have this long to finish the block that they are in, or to find that they cannot
begin ..."""
AT_ONCE_WAIT_S = 0.3
"""... or this long, if the user does not want to wait."""
FENCE_WAIT_S = 2.0
"""A rank that was killed is gone within this time, unless it waits for a dead file system."""
_LOOK_S = 0.05


def end_workers(
    transport: Transport,
    error: MpimsError | None,
    processes: Mapping[int, Process] | None = None,
    suspects: Set[int] = frozenset(),
    refused: Callable[[str], None] = lambda reason: None,
) -> list[int]:
    """Tell the workers that the run has ended and wait for their goodbyes; give the silent ones.

    What they had sent before is taken in and dropped, so that nothing of this run is under way when the
    next begins. Where the others survive a death, a rank that does not answer is fenced: killed from its
    own host, if it is surely that process; a suspect at once.

    Parameters
    ----------
    error
        What the run ended with; None if it is done.
    processes
        Who the ranks are, as far as they said so.
    suspects
        Ranks that were silent past their deadline already.
    refused
        Called with the reason why a rank could not begin, if it says so only now: the others were quicker.
    """
    lost = tuple(transport.lost)
    end = End(status=ExitStatus.DONE, lost=lost)
    if error is not None:
        end = End(status=error.exit_status, message=error.message, detail=error.detail, lost=lost)
    buffers = encode_object(end)
    waiting = transport.alive - {transport.rank}
    for rank in waiting:
        transport.send(rank, Kind.END, b"", buffers)
    said_goodbye: set[int] = set()
    # A suspect that is there after all answers at once.
    at_once = isinstance(error, Stopped) and error.at_once
    wait_s = AT_ONCE_WAIT_S if at_once else GOODBYE_WAIT_S
    take_goodbyes = partial(_take_goodbyes, transport, waiting, said_goodbye, refused)
    with suppress(MemoryError):  # for what is under way: then nobody can be heard
        take_goodbyes(wait_s, patient_with=waiting - suspects)
        if waiting and transport.survives_deaths:
            _fence(transport, waiting, said_goodbye, processes or {})
            take_goodbyes(FENCE_WAIT_S, patient_with=waiting)
    return sorted(waiting)


def _take_goodbyes(
    transport: Transport,
    waiting: set[int],
    said_goodbye: set[int],
    refused: Callable[[str], None],
    wait_s: float,
    patient_with: Set[int],
) -> None:
    """Wait until no rank is left that is to be waited for; with the others be patient for a moment."""
    began = time.monotonic()
    while waiting:
        waited_s = time.monotonic() - began
        if waited_s >= wait_s or (waited_s >= _LOOK_S and not waiting & patient_with):
            return
        message = transport.receive(_LOOK_S)
        if message is None:
            continue
        if message.kind is Kind.GOODBYE:
            said_goodbye.add(message.source)
        if message.kind in (Kind.GOODBYE, Kind.LOST):
            waiting.discard(message.source)
        elif message.kind is Kind.FENCED:
            _lose_if_gone(transport, waiting, decode_object(message.buffers))
        elif message.kind is Kind.FAILED:
            failed: Failed = decode_object(message.buffers)
            if failed.attempt == 0:
                refused(failed.reason)


def _lose_if_gone(transport: Transport, waiting: set[int], fence: Fence) -> None:
    if is_alive(fence.process) is False:
        transport.lose(fence.rank)
        waiting.discard(fence.rank)


def _fence(
    transport: Transport, silent: Set[int], healthy: Set[int], processes: Mapping[int, Process]
) -> None:
    """Kill silent ranks, each from a rank of its own host."""
    for rank in silent & processes.keys():
        process = processes[rank]
        if send_signal(process, signal.SIGKILL):
            continue
        neighbours = [r for r in healthy if _share_a_host(processes.get(r), process)]
        if neighbours:
            fence = Fence(rank, process, signal.SIGKILL)
            transport.send(neighbours[0], Kind.FENCE, b"", encode_object(fence))


def _share_a_host(one: Process | None, other: Process) -> bool:
    return one is not None and (one.boot, one.namespace) == (other.boot, other.namespace)
