"""What a child of a rank does: it computes blocks, sends each as it is done, and leaves.

MPI is not touched in it, and it leaves by `os._exit`, so that nothing of MPI is finalized twice.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np

from mpims.errors import ExitStatus, describe, user_traceback
from mpims.runtime.frames import Frame, write_frame
from mpims.runtime.stopping import pass_signal
from mpims.runtime.wire import Buffer, encode_object
from mpims.streams import flush_output

HEARD_BY_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Terminals, launchers and batch systems send these to every process; the rank decides what follows."""

Compute: TypeAlias = Callable[[int, int], Any]
"""Gives the results of a block from its start and stop."""


def run_child(
    prepare: Callable[[], Compute],
    blocks: Sequence[tuple[int, int]],
    write_end: int,
    rank: int,
    end_with_rank: Callable[[], object],
    *,
    is_new: bool = False,
) -> NoReturn:
    """All that the child does; it never gets into the rank's code, nor into its exit handlers.

    Parameters
    ----------
    prepare
        Gives what is called with start and stop of each block; what it raises is the first block's fault.
    blocks
        Start and stop of each.
    write_end
        Of the pipe to the rank.
    rank
        The rank's process.
    end_with_rank
        Has the child end when the rank does.
    is_new
        Say when all is prepared.
    """
    status = ExitStatus.INTERNAL
    try:
        end_with_rank()
        if os.getppid() == rank:  # or the rank was gone before it could be asked to take the child along
            gc.freeze()  # what the rank left as garbage, perhaps of MPI, is not to be finalized here
            _leave_signals_to_rank(write_end)
            compute = _prepared(prepare, write_end)
            if compute is not None:
                if is_new:
                    write_frame(write_end, Frame(True, 0.0, []))
                _send_blocks(compute, blocks, write_end)
        status = ExitStatus.DONE
    except BrokenPipeError:  # nobody wants the rest
        status = ExitStatus.DONE
    except BaseException:  # a defect of ours, or the user's code closed the pipe: the rank sees a status
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(status)


def _leave_signals_to_rank(write_end: int) -> None:
    """Let the signals that all processes get pass; the rank kills the child if it is to end.

    They are not ignored: what the user's code starts would ignore them too, and could not be ended
    by SIGTERM. Its forks, as those of `multiprocessing`, get the rank's handlers back, before a
    signal can reach them. They do not hold the pipe either.
    """
    before = {
        number: signal.signal(number, pass_signal)
        for number in HEARD_BY_ALL
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.siginterrupt(number, False)  # no call in the user's C code is to fail of it
    hold = partial(signal.pthread_sigmask, signal.SIG_BLOCK, HEARD_BY_ALL)
    release = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, HEARD_BY_ALL)

    def undo() -> None:
        with suppress(OSError):  # the user's code may have closed it
            os.close(write_end)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler in (None, pass_signal) else handler)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=undo)
    release()


def _prepared(prepare: Callable[[], Compute], write_end: int) -> Compute | None:
    """What `prepare` gives; None, and the rank is told, if it raises."""
    try:
        return prepare()
    except BaseException as error:  # whatever the user's module, or its setup, raises
        reason = f"a new process for it could not begin: {describe(error)}"
        write_frame(write_end, Frame(False, 0.0, encode_object((reason, user_traceback(error)))))
        return None


def _send_blocks(compute: Compute, blocks: Sequence[tuple[int, int]], write_end: int) -> None:
    """Compute and send block after block, up to the first one that raises."""
    child = os.getpid()
    for start, stop in blocks:
        frame = _compute_block(compute, start, stop)
        if os.getpid() != child:
            os._exit(ExitStatus.FAILED)  # a child that the user's code forked: not for it to answer
        flush_output()  # the user's prints outlive the death of a later block
        write_frame(write_end, frame)
        if not frame.is_done:
            return


def _compute_block(compute: Compute, start: int, stop: int) -> Frame:
    began = time.perf_counter()
    try:
        results = compute(start, stop)
    except BaseException as error:  # whatever the user's code raises
        return Frame(False, 0.0, encode_object((describe(error), user_traceback(error))))
    busy_s = time.perf_counter() - began
    try:
        return Frame(True, busy_s, _encode_results(results))
    except Exception as error:  # whatever an object of the user's raises when it is pickled
        reason = f"a result cannot be pickled: {describe(error)}"
        return Frame(False, 0.0, encode_object((reason, "")))


def _encode_results(results: Any) -> list[Buffer]:
    """Pickle results; an array is not copied, for nothing is computed while it leaves."""
    if type(results) is not np.ndarray or results.dtype.hasobject:
        return encode_object(results)
    large: list[pickle.PickleBuffer] = []
    array = np.asarray(results, order="C")  # only a contiguous one leaves as a buffer
    stream = pickle.dumps(array, protocol=5, buffer_callback=large.append)
    return [stream, *(buffer.raw() for buffer in large)]
