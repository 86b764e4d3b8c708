#!/usr/bin/env python3
"""Draws the pictures of docs/concepts.md: `draw.py` writes them all beside itself. Readable on light and on dark pages."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2933 }
.small { font-size: 12px; fill: #52606d } .strong { font-weight: 600 } .middle { text-anchor: middle } .end { text-anchor: end }
.box { fill: #f5f7fa; stroke: #7b8794; stroke-width: 1.5 } .warm { fill: #fdebd3; stroke: #c2701c } .cold { fill: #dbeafb; stroke: #2b6cb0 }
.dead { fill: none; stroke: #9aa5b1; stroke-dasharray: 4 3 } .line { fill: none; stroke: #52606d; stroke-width: 1.5 } .tip { fill: #52606d }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb } .small { fill: #a9b4c0 } .box { fill: #252d37; stroke: #7b8794 } .warm { fill: #4a3115; stroke: #e0994d }
  .cold { fill: #173352; stroke: #63a4e8 } .dead { stroke: #7b8794 } .line { stroke: #a9b4c0 } .tip { fill: #a9b4c0 }
}
"""


class Picture:
    def __init__(self, name: str, title: str, width: int, height: int):
        self.name, self.title, self.width, self.height = name, title, width, height
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, *lines: str) -> None:
        """A box with lines in its middle; the first is strong."""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="box {kind}"/>')
        for index, line in enumerate(lines):
            top = y + height / 2 + 5 - (len(lines) - 1) * 9 + index * 18
            self.text(x + width / 2, top, line, "middle strong" if index == 0 else "middle small")

    def arrow(self, *points: tuple[float, float], curve: bool = False) -> None:
        first, *rest = points
        if curve:
            path = f"M{first[0]:g} {first[1]:g} Q" + " ".join(f"{x:g} {y:g}" for x, y in rest)
        else:
            path = f"M{first[0]:g} {first[1]:g} " + " ".join(f"L{x:g} {y:g}" for x, y in rest)
        self.parts.append(f'<path d="{path}" class="line" marker-end="url(#tip)"/>')

    def write(self, folder: Path) -> None:
        (folder / f"{self.name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0 L8 4 L0 8 z" class="tip"/></marker></defs>\n' + "\n".join(self.parts) + "\n</svg>\n")


def tiers() -> Picture:
    picture = Picture("tiers", "Writes and reads go to RAM; a writer appends to the file, readers bring cold items back", 720, 330)
    picture.text(200, 22, "set, incr, delete ...", "middle")
    picture.arrow((200, 30), (200, 66))
    picture.text(500, 22, "get", "middle")
    picture.arrow((500, 30), (500, 66))
    picture.text(14, 118, "RAM", "strong")
    picture.box(70, 70, 290, 80, "warm", "hot tier", "values, order of use, expiry")
    picture.box(390, 70, 290, 80, "warm", "cold index", "key to row, 20 bytes an item")
    picture.text(14, 268, "file", "strong")
    picture.box(70, 220, 610, 80, "cold", "cold tier", "rows in the order of writing; one SQLite file")
    picture.arrow((150, 152), (150, 216))
    picture.text(160, 182, "written within", "small")
    picture.text(160, 198, "the interval", "small")
    picture.arrow((320, 218), (320, 154))
    picture.text(330, 182, "promoted", "small")
    picture.text(330, 198, "when read", "small")
    picture.arrow((540, 152), (540, 216))
    picture.text(550, 182, "read in batches,", "small")
    picture.text(550, 198, "one read a key", "small")
    return picture


def life() -> Picture:
    picture = Picture("life", "States: unsaved, clean, cold, absent, and what leads from one to the other", 720, 300)
    picture.box(60, 60, 150, 64, "warm", "unsaved", "in RAM alone")
    picture.box(300, 60, 150, 64, "warm", "clean", "in RAM and in the file")
    picture.box(540, 60, 150, 64, "cold", "cold", "in the file alone")
    picture.box(300, 216, 150, 64, "dead", "absent", "a miss")
    picture.arrow((212, 82), (296, 82))
    picture.text(254, 74, "written", "middle small")
    picture.arrow((298, 106), (214, 106))
    picture.text(254, 122, "changed", "middle small")
    picture.arrow((452, 82), (536, 82))
    picture.text(494, 74, "demoted", "middle small")
    picture.arrow((538, 106), (454, 106))
    picture.text(494, 122, "promoted", "middle small")
    picture.arrow((615, 58), (375, -20), (140, 56), curve=True)
    picture.text(375, 34, "changed", "middle small")
    picture.arrow((298, 236), (135, 236), (135, 128))
    picture.text(150, 228, "stored", "small")
    picture.arrow((375, 126), (375, 212))
    picture.text(384, 172, "deleted, expired", "small")
    picture.arrow((615, 126), (615, 248), (454, 248))
    picture.text(606, 228, "and when the file is full", "end small")
    return picture


def log() -> Picture:
    picture = Picture("log", "Rows in order of writing; the newest row of a key counts, a tombstone deletes, the oldest make room", 720, 230)
    rows = [("a = 1", "dead"), ("b = 7", "cold"), ("c = 3", "dead"), ("a = 2", "cold"), ("c = 4", "dead"), ("d = 9", "cold"), ("c deleted", "cold")]
    for index, (words, kind) in enumerate(rows):
        picture.box(20 + index * 88, 80, 84, 50, kind, words)
    picture.box(20 + 7 * 88, 80, 64, 50, "dead")
    picture.text(20 + 7 * 88 + 32, 110, "next", "middle small")
    picture.text(20, 30, "oldest", "small")
    picture.text(700, 30, "newest", "end small")
    picture.arrow((66, 26), (650, 26))
    picture.arrow((62, 76), (194, 26), (326, 74), curve=True)
    picture.text(194, 72, "replaced", "middle small")
    picture.arrow((414, 76), (502, 40), (590, 74), curve=True)
    picture.text(502, 72, "deleted", "middle small")
    picture.arrow((62, 134), (62, 184))
    picture.text(20, 204, "full: the oldest", "small")
    picture.text(20, 220, "rows are removed", "small")
    picture.arrow((150, 134), (400, 210), (664, 136), curve=True)
    picture.text(400, 196, "live and read since: written anew (second chance)", "middle small")
    return picture


def restart() -> Picture:
    picture = Picture("restart", "The server answers at once; the scan goes from the newest row to the oldest, RAM is refilled in order of last use", 720, 250)
    picture.text(20, 34, "clients", "strong")
    picture.box(110, 14, 70, 32, "dead")
    picture.text(145, 35, "waits", "middle small")
    picture.box(184, 14, 516, 32, "warm", "served, what is in RAM and all that the scan has met")
    picture.text(20, 94, "scan", "strong")
    picture.box(184, 74, 330, 32, "cold", "newest row ... oldest row")
    picture.text(524, 95, "every key is known", "small")
    picture.text(20, 154, "refill", "strong")
    picture.box(214, 134, 400, 32, "warm", "used last ... used before, until RAM is full")
    picture.arrow((110, 200), (704, 200))
    picture.parts += [f'<path d="M{x} 194 V206" class="line"/>' for x in (110, 184, 514)]
    picture.text(110, 224, "start", "middle small")
    picture.text(194, 224, "some 10 ms", "middle small")
    picture.text(514, 224, "a second for each million rows", "middle small")
    return picture


if __name__ == "__main__":
    for picture in (tiers(), life(), log(), restart()):
        picture.write(Path(__file__).parent)
