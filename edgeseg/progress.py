"""Progress bars for anything over two seconds; on stderr, so that stdout stays for results."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar


class Progress:
    """Says nothing: what a library call uses unless it is given a RichProgress."""

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A piece of work of `total` steps (None: not known); yields `advance(steps)`."""
        yield lambda steps: None


class RichProgress(Progress):
    """Bars with elapsed and remaining time on stderr, gone when it is done; silent where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
        from rich.text import Text

        class Count(ProgressColumn):
            """ "3/8"; nothing where the number of steps is not known."""

            def render(self, task: Task) -> Text:
                return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")

        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            Count(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._open_tasks = 0

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        if self._open_tasks == 0:
            self._bars.start()
        self._open_tasks += 1
        identifier = self._bars.add_task(description, total=total)
        try:
            yield lambda steps: self._bars.advance(identifier, steps)
        finally:
            self._bars.remove_task(identifier)
            self._open_tasks -= 1
            if self._open_tasks == 0:
                self._bars.stop()


Item = TypeVar("Item")


def counted(items: Iterable[Item], advance: Callable[[int], None]) -> Iterator[Item]:
    """The items, each of them a step of a task once it is done with."""
    for item in items:
        yield item
        advance(1)
