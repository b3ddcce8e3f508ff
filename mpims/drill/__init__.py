"""Faults injected into a run, from outside and for real, and what became of it."""
