"""What this process is among the ranks of an executor."""

from __future__ import annotations

is_worker = False
"""It computes tasks: there is no executor here."""
is_script = False
"""It runs a program for `mpims script`, which lets the other ranks go at its end."""
