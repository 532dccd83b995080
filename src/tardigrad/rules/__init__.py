"""Methods, one family a file."""
