"""`mpims.Executor`, on real ranks and beside the libraries that take a pool."""
