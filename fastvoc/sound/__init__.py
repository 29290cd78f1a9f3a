"""Waveforms and spectrograms: reading, writing, front ends."""
