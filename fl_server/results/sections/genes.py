"""Tests of rare variants gene by gene in the report."""

from __future__ import annotations

from functools import partial

import numpy as np

from fl_server.conduct import Result
from fl_server.results.figures import Size, figure
from fl_server.results.section import Section, Table, in_short
from fl_server.results.sections.associations import adjusted
from fl_server.results.words import count, fixed, floats, power, smallest
from strategies.analyses.rare_variants import draw_genes

TOP_GENES = 15


def tested(result: Result) -> Section:
    """Burden test, SKAT and SKAT-O of each gene."""
    answer, name, facts = result.answer, result.question.name, result.answer.facts
    table = answer.tables["genes"]
    names = ("skat_o_p", "skat_p", "burden_p", "burden_beta", "carriers", "variants", "collapsed")
    optimal, skat, burden, beta, carriers, variants, collapsed = (floats(table[c]) for c in names)
    tests = int(np.isfinite(optimal).sum())
    rows = tuple(
        (
            str(table["gene"][i]),
            count(variants[i]),
            count(collapsed[i]),
            count(carriers[i]),
            fixed(beta[i], 3),
            power(burden[i]),
            power(skat[i]),
            power(optimal[i]),
        )
        for i in smallest(optimal, TOP_GENES)
    )
    top = Table(
        f"The {len(rows)} genes with the smallest p values of SKAT-O",
        ("gene", "variants", "collapsed", "carriers", "burden, beta", "burden, p", "SKAT, p", "SKAT-O, p"),
        rows,
        (False, *(True,) * 7),
    )
    short = in_short(
        ("people with trait and covariates", count(float(facts["people"]))),
        ("genes asked", count(facts["genes"])),
        ("genes tested", count(tests)),
        ("genes withheld for few carriers", count(answer.withheld)),
        ("variants left out because fewer than three sites hold them", count(facts["held_by_few"])),
        ("level of 0.05 over the genes tested", power(0.05 / tests) if tests else "–"),
    )
    caption = "Genes along the genome, by the p of SKAT-O. The dashed line is 0.05 over the number of genes tested."
    drawn = figure(f"{name}-genes", caption, partial(draw_genes, answer), Size(720, 300), Size(352, 300))
    lead = f"Rare variants of {count(tests)} genes against {facts['trait']}{adjusted(result)}."
    return Section(f"Rare variants and {facts['trait']}", lead, (drawn,), (short, top))
