"""``python -m mpims``: rank 0 reads the command line, every other rank waits for work.

NumPy is not imported before its threads are set, nor is anything that a worker does not run.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run this rank; give the exit status."""
    try:
        return _run_rank()
    except KeyboardInterrupt:  # while modules are imported, before a command could hear it
        from mpims.errors import ExitStatus
        from mpims.streams import say

        say("stopped by the user")
        return ExitStatus.INTERRUPTED


def _run_rank() -> int:
    lacks_folder = _search_here_last()
    from mpims.streams import open_standard_streams, say

    open_standard_streams()
    if lacks_folder:
        from mpims.errors import ExitStatus

        say(f"the current folder is gone or cannot be read ({lacks_folder}): change to another")
        return ExitStatus.USAGE
    from mpims.runtime.threads import set_thread_variables
    from mpims.world import find_world

    set_thread_variables(os.environ)
    world = find_world(os.environ)
    if world is not None and world.rank > 0:
        if sys.argv[1:2] == ["doctor"]:
            from mpims.doctor.partner import answer_doctor

            status = answer_doctor()
            if status is not None:
                return status
        if sys.argv[1:2] == ["script"]:
            from mpims.executor.taskworker import serve_rank

            return serve_rank()
        from mpims.cli.serve import serve_command

        return serve_command()
    from mpims.cli.main import main_command

    return main_command(sys.argv[1:])


def _search_here_last() -> str:
    """Let a file of the user's that is called like a module of ours, or numpy.py, hide nothing.

    ``python -m`` puts the current folder first in the search path. Give what is wrong if there is none.
    """
    try:
        here = os.getcwd()
    except OSError as error:
        return str(error.strerror)
    if sys.path and sys.path[0] in ("", here):
        sys.path.append(sys.path.pop(0))
    return ""


if __name__ == "__main__":
    sys.exit(main())
