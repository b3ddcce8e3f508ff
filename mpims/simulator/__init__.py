"""The real scheduler on a virtual clock: by the chunk and fast, or by the block and through faults."""
