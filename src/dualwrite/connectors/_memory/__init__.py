"""The parts of the in-memory system, see ``connectors.memory``."""
