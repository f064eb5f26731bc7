"""Quality control of a data set, by its operator, before a version of it is fixed. Nothing in here answers anybody.

    thresholds   where the lines are drawn
    genotypes    the data set's genotypes, variant by variant, in blocks
    measures     call rates, heterozygosity and the X chromosome: one pass over the genotypes
    kinship      KING-robust for every pair of people: a second pass, and bits counted
    unrelated    whom to keep of those who are related
    verdict      who is outside the thresholds, and who is to be left out
    report       what the operator reads: a page, numbers, and tables of people, variants and relatives
    figures      its drawings

numba and matplotlib are loaded with `measures`, `kinship` and `figures`, so by this command alone.
"""
