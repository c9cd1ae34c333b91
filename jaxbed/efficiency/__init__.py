"""Instruments for the cost of a network: counts, clocks, memory, traces."""
