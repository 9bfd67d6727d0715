"""Measures the worker between a stand-in engine and a bare edge, and on the real engine."""
