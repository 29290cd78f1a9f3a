"""Signals that come in chunks."""
