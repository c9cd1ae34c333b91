"""One articulated body, rendered for every sensor of the package."""
