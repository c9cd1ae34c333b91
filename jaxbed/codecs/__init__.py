"""Representations with both directions in one file."""
