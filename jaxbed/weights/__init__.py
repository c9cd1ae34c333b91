"""Published weights as our variables and back, strict: every tensor has a place or is named."""
