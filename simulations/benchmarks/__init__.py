"""Speed and memory, measured beside what the field uses, in one run."""
