"""Measured claims: training steps side by side with those of other libraries. Run `python -m retrograd.benchmarks`."""
