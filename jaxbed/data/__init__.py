"""Prepared data, splits and batches, on the host."""
