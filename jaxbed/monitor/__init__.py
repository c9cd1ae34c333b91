"""What runs all night: a video source, alerts, and a page to watch them. It imports no JAX."""
