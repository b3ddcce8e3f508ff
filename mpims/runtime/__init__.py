"""What a rank runs: the master's loop, the worker's loop, and the messages between them."""
