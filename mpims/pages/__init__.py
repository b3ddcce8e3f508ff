"""What is told of a run afterwards, from its trace: tables, what limited it, charts, a page."""
