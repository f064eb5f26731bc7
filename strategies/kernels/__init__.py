"""Loops over packed genotypes, compiled. All of them add integers, so their order does not matter."""
