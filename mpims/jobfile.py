"""Job files as modules: the name that one has, and how a process that knows just the name finds it.

What is pickled by its name, such as the function for a pool that a kernel makes by "spawn" or
"forkserver", is looked for where it is unpickled by importing its module. There the search path is that of
the rank, with the folder of the job file in it; without this a child would end at once, and
``multiprocessing`` begin another for ever.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__path__: list[str] = []
"""Makes this a package: its modules are what `JobFileFinder` finds."""

_DOT = "%2E"


def module_name(path: str) -> str:
    """The name of the module that a job file is: that of no other, however the file is called.

    Parameters
    ----------
    path
        Where the file is, from the root on.
    """
    digest = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{__name__}.{Path(path).stem.replace('.', _DOT)}_{digest}"


class JobFileFinder:
    """Finds modules by what `module_name` calls them."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Look for the file in the folders of the search path."""
        parent, _, name = fullname.rpartition(".")
        if parent != __name__:
            return None
        file_name = name.rpartition("_")[0].replace(_DOT, ".") + ".py"
        for folder in sys.path:
            file = os.path.join(folder, file_name)
            if module_name(file) == fullname and os.path.exists(file):
                return spec_from_file_location(fullname, file)
        return None


sys.meta_path.append(JobFileFinder)
