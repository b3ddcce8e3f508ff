"""Count the files that this Python opens, from its start: put this folder on the PYTHONPATH.

Python tells audit hooks what it opens and which compiled modules it loads. What the C libraries open
themselves, the MPI library above all, is not seen; it is the same for every program that uses them.
"""

import sys

opened = set()


def _note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.add(arguments[0])
    elif event == "import" and arguments[1]:
        opened.add(arguments[1])


sys.addaudithook(_note)
