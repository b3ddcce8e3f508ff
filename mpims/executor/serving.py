"""What this process is among the ranks of an executor, and what they call their job."""

from __future__ import annotations

is_worker = False
"""It computes tasks: there is no executor here."""
is_script = False
"""It runs a program for `mpims script`, which lets the other ranks go at its end."""

TASKS = "tasks"
"""The job of ranks that compute tasks, as they and their master call it: there is no file of it."""
