"""One statistic, one page."""
