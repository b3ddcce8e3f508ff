"""The real scheduler on a virtual clock, chunk by chunk."""
