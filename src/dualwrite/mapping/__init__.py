"""Table maps: written, checked, compiled to functions."""
