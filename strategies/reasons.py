"""Why a node refuses: closed codes, and what each means to people. Nothing else about a refusal crosses the wire."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """Why a node says no: a closed set. The text is the rule; details stay in the node's own log."""

    MALFORMED = "MALFORMED"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    EXPIRED = "EXPIRED"
    NOT_OPENED = "NOT_OPENED"
    STUDY_INVALID = "STUDY_INVALID"
    SESSION_CONFLICT = "SESSION_CONFLICT"
    COORDINATOR_NOT_ALLOWED = "COORDINATOR_NOT_ALLOWED"
    PURPOSE_NOT_ALLOWED = "PURPOSE_NOT_ALLOWED"
    ANALYSIS_NOT_ALLOWED = "ANALYSIS_NOT_ALLOWED"
    COLUMN_NOT_ALLOWED = "COLUMN_NOT_ALLOWED"
    RANGE_OUTSIDE_POLICY = "RANGE_OUTSIDE_POLICY"
    UNIT_NOT_CONVERTIBLE = "UNIT_NOT_CONVERTIBLE"
    CATEGORIES_DIFFER = "CATEGORIES_DIFFER"
    EVENTS_NOT_ALLOWED = "EVENTS_NOT_ALLOWED"
    CODE_NOT_ALLOWED = "CODE_NOT_ALLOWED"
    BY_SITE_NOT_ALLOWED = "BY_SITE_NOT_ALLOWED"
    HONEST_SITES = "HONEST_SITES"
    WRONG_ASSEMBLY = "WRONG_ASSEMBLY"
    VETOED = "VETOED"
    DATASET_UNAVAILABLE = "DATASET_UNAVAILABLE"
    NOT_IN_ROSTER = "NOT_IN_ROSTER"
    TOO_FEW_SITES = "TOO_FEW_SITES"
    ROSTER_ISOLATES = "ROSTER_ISOLATES"
    KEYS_INVALID = "KEYS_INVALID"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    NOT_DERIVED = "NOT_DERIVED"
    ALREADY_ANSWERED = "ALREADY_ANSWERED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    LEDGER_BEHIND = "LEDGER_BEHIND"
    TOO_FEW_PEOPLE = "TOO_FEW_PEOPLE"
    OVERLAP = "OVERLAP"
    TOO_MANY_REFUSALS = "TOO_MANY_REFUSALS"
    SUM_OVERFLOW = "SUM_OVERFLOW"
    NOT_ANSWERED = "NOT_ANSWERED"
    NOT_AGREED = "NOT_AGREED"
    AGREEMENT_STALE = "AGREEMENT_STALE"
    INTERNAL = "INTERNAL"


MEANING: Mapping[Reason, tuple[str, str]] = {
    Reason.MALFORMED: ("A message must be one of the protocol's.", "use the same version on both sides"),
    Reason.BAD_SIGNATURE: (
        "A message must be signed by a party of the federation file.",
        "compare both sides' federation files",
    ),
    Reason.VERSION_MISMATCH: ("Both sides run the same shared code.", "install the same version on both sides"),
    Reason.EXPIRED: ("A request is answered before it expires.", "check both clocks and ask again"),
    Reason.NOT_OPENED: ("A study is opened before its questions are asked.", "run the study again"),
    Reason.STUDY_INVALID: ("A study must satisfy every rule of its format.", "run `fl-server plan` on it"),
    Reason.SESSION_CONFLICT: (
        "A session belongs to one study, one coordinator and one version of the data.",
        "run the study again",
    ),
    Reason.COORDINATOR_NOT_ALLOWED: (
        "The node's policy names the coordinators that it answers.",
        "ask the node's operator",
    ),
    Reason.PURPOSE_NOT_ALLOWED: ("The node's policy names the purposes that it serves.", "ask the node's operator"),
    Reason.ANALYSIS_NOT_ALLOWED: (
        "The node's policy names the analyses and regimes that it runs.",
        "ask the node's operator",
    ),
    Reason.COLUMN_NOT_ALLOWED: ("The node's policy names the columns that may be read.", "drop the column or the site"),
    Reason.BY_SITE_NOT_ALLOWED: (
        "The node's policy says whether answers are given for it alone; exact ones are either such parts or totals.",
        "ask the other way, or the node's operator",
    ),
    Reason.HONEST_SITES: (
        "Shared noise counts on no more honest sites than the node's policy does.",
        "ask with fewer honest_sites, or the node's operator",
    ),
    Reason.RANGE_OUTSIDE_POLICY: (
        "A study's range lies within the policy's range, and is the policy's where a question is exact.",
        "take the range that the site publishes",
    ),
    Reason.UNIT_NOT_CONVERTIBLE: (
        "A study's unit is the site's, or one that it converts to.",
        "take the unit that the site publishes",
    ),
    Reason.CATEGORIES_DIFFER: (
        "A study's categories are among the policy's, and are the policy's where a question is exact; what the policy "
        "has as numbers is asked for as numbers.",
        "take the categories that the site publishes",
    ),
    Reason.EVENTS_NOT_ALLOWED: (
        "The node's policy names the kinds of clinical events that cohorts and derived columns may read.",
        "ask without them, or the node's operator",
    ),
    Reason.CODE_NOT_ALLOWED: (
        "The node's policy names codes that no question may ask about.",
        "leave the code out, or ask the node's operator",
    ),
    Reason.WRONG_ASSEMBLY: ("A panel is in the build of the node's data.", "lift the panel over"),
    Reason.VETOED: ("A node's operator can always say no.", "ask the node's operator"),
    Reason.DATASET_UNAVAILABLE: ("A node answers from data that it can read.", "the operator runs `fl-client check`"),
    Reason.NOT_IN_ROSTER: ("A node answers requests whose roster names it.", "ask with another roster"),
    Reason.TOO_FEW_SITES: (
        "A sum covers as many sites as every policy asks and as its noise counts on.",
        "wait for more sites",
    ),
    Reason.ROSTER_ISOLATES: (
        "Totals over different rosters must not single out a site by subtraction.",
        "ask with an earlier roster, or agree `own_total` with the site's operator",
    ),
    Reason.KEYS_INVALID: ("Every site of the roster has a study key signed by its identity.", "run the study again"),
    Reason.OUT_OF_ORDER: ("Rounds and slices lie within the signed study.", "run the study again"),
    Reason.NOT_DERIVED: ("A later round's parameters follow from the earlier totals.", "run the study again"),
    Reason.ALREADY_ANSWERED: (
        "A slice of a question, or a question's exchange of keys, is answered to one request only.",
        "resume with the original request",
    ),
    Reason.BUDGET_EXHAUSTED: (
        "A question's loss fits into what is left of the data set's budget, and of a permit's and a year's share.",
        "ask for less, or the operator",
    ),
    Reason.LEDGER_BEHIND: (
        "A node's ledger knows every mark that the node ever issued.",
        "the operator runs `fl-client ledger adopt`, which charges what was lost",
    ),
    Reason.TOO_FEW_PEOPLE: ("A site has at least as many people as its policy asks.", "leave the site out"),
    Reason.OVERLAP: (
        "The people of exact answers are the same or differ by at least as many as the site's policy asks.",
        "ask about the same people as before, ask privately, or leave the site out",
    ),
    Reason.TOO_MANY_REFUSALS: (
        "A coordinator is refused a bounded number of times a year for reasons that tell of a site's people, and then "
        "every exact question.",
        "ask privately, leave the site out, or wait for the next calendar year",
    ),
    Reason.SUM_OVERFLOW: ("A sum over the sites stays within the ring.", "narrow the ranges"),
    Reason.NOT_ANSWERED: ("Seeds are returned for requests that this node answered.", "ask first"),
    Reason.NOT_AGREED: (
        "Every site of a roster signs the same agreement before the roster is asked or its sum is opened.",
        "run the study again",
    ),
    Reason.AGREEMENT_STALE: (
        "A roster is agreed on after the last one that the node signed, and an attempt ends where a later one begins.",
        "agree once more, or run the study again",
    ),
    Reason.INTERNAL: ("A node computes what it was asked.", "the operator reads the node's log"),
}
