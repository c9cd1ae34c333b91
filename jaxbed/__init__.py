"""jaxbed: in-bed and infant perception networks in JAX, measured for accuracy beside cost."""

__version__ = "0.1.0"
