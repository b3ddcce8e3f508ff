"""Builds mpims, which is plain Python; with ``MPIMS_COMPILE=1`` mypyc compiles what a simulation waits for.

That takes a C compiler, and is not for an editable installation: a compiled module there would hide each
later change of its source.
"""

import os
import sys

from setuptools import setup

COMPILED = [
    "core/dispatch",
    "core/events",
    "core/ledger",
    "core/measures",
    "core/policies/sizer",
    "core/ranges",
    "core/scheduler",
    "core/silence",
    "core/takeover",
    "core/workers",
    "simulator/agenda",
    "simulator/engine",
]
BUILDING = {"bdist_wheel", "build", "build_ext"}
"""The other commands only ask what there is, and what it takes."""


def compile_modules() -> list:
    """Translate the modules into C; give the extension modules to be built of it."""
    from mypyc.build import mypycify

    # What these modules import need not be there yet, and is not looked at.
    alone = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    files = [f"mpims/{name}.py" for name in COMPILED]
    return mypycify([*alone, *files], group_name="mpims", opt_level="1", debug_level="0")


compiles = os.environ.get("MPIMS_COMPILE", "0") not in ("", "0")
if compiles and {"editable_wheel", "develop"} & set(sys.argv):
    sys.exit("MPIMS_COMPILE is not for an editable installation: leave one of the two out")
setup(
    setup_requires=["mypy>=1.10"] if compiles else [],
    ext_modules=compile_modules() if compiles and BUILDING & set(sys.argv) else [],
)
