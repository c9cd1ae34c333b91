"""The training core every experiment shares."""
