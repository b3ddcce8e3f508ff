"""The ranks that an executor has started: rank 0 is its master, the others compute."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run this rank; give the exit status."""
    from mpims.runtime.threads import set_thread_variables
    from mpims.streams import open_standard_streams
    from mpims.world import find_world

    open_standard_streams()
    set_thread_variables(os.environ)
    world = find_world(os.environ)
    if world is not None and world.rank > 0:
        from mpims.executor.taskworker import serve_rank

        return serve_rank()
    from mpims.executor.remote import run_master

    return run_master()


if __name__ == "__main__":
    sys.exit(main())
