"""A pool for programs that take one: `Executor`, what it is made of, and what makes other pools of it."""
