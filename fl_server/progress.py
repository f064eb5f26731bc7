"""What a person sees while a study runs: one line a question, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from fl_server.conduct import Progress


@contextmanager
def shown(title: str) -> Iterator[Callable[[Progress], None]]:
    """A display of a study's progress; the value is what a Conductor calls."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("exchanges"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console) as bars:
        bars.console.print(title, style="bold", highlight=False)
        lines: dict[int, TaskID] = {}

        def step(at: Progress) -> None:
            for question, line in lines.items():
                if question < at.question:
                    bars.update(line, completed=bars.tasks[line].total)
            if at.question not in lines:
                name = f"question {at.question} of {at.questions}  {at.name}"
                lines[at.question] = bars.add_task(name, total=at.steps)
            bars.update(lines[at.question], completed=at.done)

        yield step
