"""The journal: every verdict is here before it is published."""

from efficientad_stream.sinks.journal.store import Journal

__all__ = ["Journal"]
