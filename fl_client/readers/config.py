"""The `[dataset]` table of a node's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fl_client.readers import omop, phenopackets
from fl_client.readers.variables import Variable
from strategies.protections.suppression import check_profile
from strategies.question import is_name
from strategies.variants import ASSEMBLIES

SERVER = "postgresql"
"""The beginning of a URL, in the place of a path."""


class Absent(StrEnum):
    """What it means that a variant is not in a site's genotype file."""

    UNKNOWN = "unknown"
    REFERENCE = "reference"


@dataclass(frozen=True)
class DatasetConfig:
    """The `[dataset]` table of a node's configuration. Paths are relative to the configuration's folder.

    Attributes:
        identifier: the data set's name in permits, for example GDI-FI-DEMO-0001.
        assembly: GRCh37 or GRCh38.
        people: path of the people table: a .tsv, .csv, .parquet or .duckdb.
        genotypes: path of a .bed, .pgen, .bgen, .vcf, .vcf.gz or .bcf, or nothing.
        synthetic: whether no person stands behind the data.
        person: name of the people table's first column.
        minimum_cell: the data set's own minimum of people in a cell of an exact answer; the stricter of it and the
            policy's holds.
        version: number of the data set's version, which `fl-client data` fixed; version 1 is what a node first opened.
        exclude: path of a text file with one identifier a line, of people to leave out, or nothing: those whom a look
            at several people rules out (relatives, outliers), and those who withdrew.
        absent_means: what it means that a variant is not in the genotype file: "unknown" (everybody is missing), or
            "reference", where everybody was looked at and the file lists only where somebody differs.
        callable: path of the BED file of regions in which people were looked at; with "reference", and only then.
        reference: path of the build's FASTA file, with its .fai beside it, or nothing: with it, insertions and
            deletions are matched in whatever way they are spelt.
        table: name of the people table in a .duckdb file.
        events: path of a table of events beside the people table: a .tsv, .csv or .parquet.
        omop: in the place of `people`, an OMOP CDM 5.4: a .duckdb file, a folder or .zip of .parquet or .csv exports,
            or the URL of a PostgreSQL database.
        schema: where the CDM's tables are in a database; "main" in a .duckdb file and "public" on a server, if empty.
        statement_timeout: seconds after which a server's statement is given up.
        phenopackets: in the place of `people`, a folder of Phenopackets.
        link: path of a table with the columns `person` and `genotype`: who has which identifier in the genotype file.
            By default everybody's is the same in both.
        variables: what the people table's columns mean, by name.
    """

    identifier: str
    assembly: str
    people: str = ""
    genotypes: str = ""
    synthetic: bool = False
    person: str = "person"
    minimum_cell: int = 0
    version: int = 1
    exclude: str = ""
    absent_means: Absent = Absent.UNKNOWN
    callable: str = ""
    reference: str = ""
    table: str = ""
    events: str = ""
    omop: str = ""
    schema: str = ""
    statement_timeout: int = 300
    phenopackets: str = ""
    link: str = ""
    variables: Mapping[str, Variable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.assembly not in ASSEMBLIES:
            raise ValueError(f"assembly must be one of {', '.join(ASSEMBLIES)}.")
        if not (0 < len(self.identifier) <= 64 and self.identifier.isascii() and self.identifier.isprintable()):
            raise ValueError("identifier must be 1 to 64 printable ASCII characters.")
        if sum(map(bool, (self.people, self.omop, self.phenopackets))) != 1:
            raise ValueError("people must name the people table, or else omop a CDM, or phenopackets a folder.")
        if not self.people and (self.events or self.variables):
            raise ValueError("events and variables belong to a people table.")
        if bool(self.table) != self.people.endswith(".duckdb"):
            raise ValueError("table must name the people table in a .duckdb file, and only there.")
        if self.schema and not (self.omop and self.schema.isascii() and self.schema.isidentifier()):
            raise ValueError("schema must be an identifier: letters, digits and '_'; it belongs to omop.")
        if not 1 <= self.statement_timeout <= 86_400:
            raise ValueError("statement_timeout must be from 1 to 86,400 seconds.")
        if not all(map(is_name, self.variables)):
            raise ValueError("a variable's name is made of letters, digits, '_' and '-'.")
        check_profile(self.minimum_cell)
        if not 0 < self.version < 2**31:
            raise ValueError("version must be a number from 1.")
        if bool(self.callable) != (self.absent_means is Absent.REFERENCE):
            raise ValueError('callable must name the regions where absent_means is "reference", and only there.')
        if not self.genotypes and (self.callable or self.reference or self.link):
            raise ValueError("callable, reference and link belong to genotypes.")

    @property
    def served(self) -> bool:
        """Whether the people are in a server's database."""
        return self.omop.startswith(SERVER)

    @property
    def declared(self) -> Mapping[str, Variable]:
        """Its variables: those that are declared, or that its kind of source offers."""
        if self.omop:
            return omop.VARIABLES
        return phenopackets.VARIABLES if self.phenopackets else self.variables
