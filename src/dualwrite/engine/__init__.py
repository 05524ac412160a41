"""Carrying changes: flows, comparing, initial sync, and the engine that runs a link."""
