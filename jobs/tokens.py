"""What Python code is made of: real files, a task per file, and a reduction by a function of one's own.

    mpirun -n 4 python -m mpims run jobs/tokens.py
    mpirun -n 4 python -m mpims run jobs/tokens.py --set folder=~/src --set limit=100

An item is one .py file below `folder`, by default the standard library of the Python that runs; files
are of very uneven size. The result is a dict of counts, merged along the fixed tree. The run directory
gets tokens.json; the token types and the most frequent names are printed.
"""

import io
import json
import keyword
import sys
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

import mpims

SKIPPED = ("__pycache__", "site-packages", "dist-packages")

# Whatever is wrong with a file itself. Any other OSError may be the trouble of one node: it is raised,
# and mpims tries the file again elsewhere.
UNREADABLE = (PermissionError, SyntaxError, ValueError, LookupError, tokenize.TokenError)


def merge(left, right):
    """Add the counts of `right` to those of `left`: associative, and `left` may be used up."""
    left["files"] += right["files"]
    for name in ("unreadable", "types", "names"):
        left[name].update(right[name])
    return left


class Tokens(mpims.Job):
    """The tokens of all Python files below a folder, by type, and the names by frequency."""

    folder: Path = Path(sysconfig.get_paths()["stdlib"])
    limit: int | None = None  # take only the first files

    output = mpims.Reduce(merge)

    def items(self):
        """The files' paths below `folder`, sorted: the list is the same on every rank."""
        if not self.folder.is_dir():
            raise mpims.UsageError(f"job Tokens: no folder {self.folder}: --set folder=PATH")
        paths = [p for p in self.folder.rglob("*.py") if p.is_file()]
        names = sorted(p.relative_to(self.folder).as_posix() for p in paths)
        names = [name for name in names if not any(part in SKIPPED for part in name.split("/"))]
        if not names:
            raise mpims.UsageError(f"job Tokens: folder {self.folder} holds no .py file")
        return names[: self.limit]

    def task(self, name):
        """Count the tokens of one file; a file that is no Python counts under the reason's name."""
        unreadable, tokens = Counter(), []
        try:
            with tokenize.open(self.folder / name) as file:
                text = file.read()  # all decoded before the tokeniser sees any
            tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        except UNREADABLE as error:
            unreadable[type(error).__name__] += 1
        names = (t.string for t in tokens if t.type == tokenize.NAME and not keyword.iskeyword(t.string))
        return {
            "files": 1,
            "unreadable": unreadable,
            "types": Counter(tokenize.tok_name[t.type] for t in tokens),
            "names": Counter(names),
        }

    def finish(self, counts):
        """Write tokens.json; print the token types and the most frequent names."""
        text = json.dumps(counts, indent=1, sort_keys=True)
        (self.run_dir / "tokens.json").write_text(text + "\n", encoding="utf-8")
        unreadable = ", ".join(f"{n} {reason}" for reason, n in by_frequency(counts["unreadable"]))
        print(f"{counts['files']:,} files; unreadable: {unreadable or 'none'}", file=sys.stderr)
        for title, rows in (
            ("token type", by_frequency(counts["types"])),
            ("name", by_frequency(counts["names"])[:15]),
        ):
            print(f"\n{title:<20}{'count':>12}", file=sys.stderr)
            for name, n in rows:
                print(f"{name:<20}{n:>12,}", file=sys.stderr)


def by_frequency(counter):
    """The entries of a counter, frequent ones first, equal ones by name."""
    return sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))
