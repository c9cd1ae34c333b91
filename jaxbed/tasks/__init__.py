"""What each paper optimises and measures: losses and metrics of a network's outputs."""
