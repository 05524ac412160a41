"""Draws ``demo.svg``: what ``make demo`` shows, recorded from a real run and cut to the height of a screen.

``python docs/picture.py`` takes as long as the demo does.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dualwrite.demo.show import show
from dualwrite.printing import terminal

PICTURE = Path(__file__).parent / "demo.svg"
WIDTH, MARGIN = 120, 8
MARK = "── "
"""How a part of the demo begins."""
HEIGHTS = {
    "Dry run": 7,
    "Initial sync": 7,
    "Live sync": 9,
    "Both sides": 9,
    "The same column": 9,
    "Do both": 7,
    "Summary": 6,
}
"""The parts that are shown, and how many lines of each."""


def recorded() -> list[Text]:
    """The lines of a demo, in colour."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    shown, terminal.console = terminal.console, console
    here = Path.cwd()
    try:
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            if not show(Path("demo")):
                raise SystemExit("the demo did not end well")
    finally:
        os.chdir(here)
        terminal.console = shown
    return list(Text.from_ansi(console.export_text(styles=True)).split("\n", allow_blank=True))


def parts(lines: list[Text]) -> Iterator[tuple[str, list[Text]]]:
    """The lines of each part of the demo by its title."""
    title, held = "", list[Text]()
    for line in lines:
        if line.plain.startswith(MARK):
            yield title, held
            title, held = line.plain.removeprefix(MARK), []
        held.append(line)
    yield title, held


def settled(lines: list[Text]) -> list[Text]:
    """The lines without the bars' earlier states: they are drawn again and again, each time from the first one on."""
    bars = [number for number, line in enumerate(lines) if " · " in line.plain and "/" in line.plain]
    if not bars:
        return lines
    name = lines[bars[0]].plain.partition(" · ")[0][2:]
    last = max(number for number in bars if lines[number].plain[2:].startswith(f"{name} · "))
    return lines[: bars[0]] + lines[last:]


def cut(lines: list[Text], height: int) -> list[Text]:
    """At most so many lines: the first ones, a sign that some are missing, and the last one."""
    while lines and not lines[-1].plain.strip():
        lines = lines[:-1]
    return lines if len(lines) <= height else [*lines[: height - 2], Text("…", style="dim"), lines[-1]]


def main() -> None:
    """Draw the picture."""
    console = Console(record=True, width=WIDTH + MARGIN, file=io.StringIO(), force_terminal=True)
    for title, lines in parts(recorded()):
        height = next((height for start, height in HEIGHTS.items() if title.startswith(start)), 0)
        for line in cut(settled(lines), height) if height else ():
            console.print(line)
        if height:
            console.print()
    PICTURE.write_text(console.export_svg(title="make demo"), encoding="utf-8")


if __name__ == "__main__":
    main()
