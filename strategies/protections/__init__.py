"""One protection, both ends, one page."""
