"""Networks only: one file per paper or family."""
