"""Calls and chunks from CUDA graphs."""
