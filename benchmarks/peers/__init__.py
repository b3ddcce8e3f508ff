"""One program per peer: how it maps a function over items. What is measured is in ``measure.py``."""
