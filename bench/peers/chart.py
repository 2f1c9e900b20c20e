# SPDX-License-Identifier: Apache-2.0
"""A chart of bars on a logarithmic scale, as SVG: one group for each case, one bar for each subject."""
import math
from xml.sax.saxutils import escape

BAR, GAP, LABEL, WIDTH, RIGHT = 16, 26, 150, 620, 90
OWN, OTHER, TEXT, GRID = "#0b6e75", "#b9c2c9", "#20262b", "#e3e7ea"


def text(x, y, words, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{TEXT}">{escape(words)}</text>')


def draw(path, title, groups, own):
    """groups: case -> {subject: value}; `own` are the subjects that stand out."""
    values = [value for bars in groups.values() for value in bars.values() if value > 0]
    if not values:
        return
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    span = max(1.0, math.log10(high / low))

    def place(value):
        return LABEL + WIDTH * math.log10(value / low) / span

    parts, y = [text(LABEL, 18, title, weight="bold")], 34
    for case, bars in groups.items():
        parts.append(text(LABEL, y + 12, case, weight="bold"))
        y += 20
        for subject, value in sorted(bars.items(), key=lambda bar: -bar[1]):
            colour = OWN if subject in own else OTHER
            parts += [text(LABEL - 6, y + BAR - 4, subject, "end"),
                      f'<rect x="{LABEL}" y="{y}" width="{max(1, place(value) - LABEL):.1f}" '
                      f'height="{BAR - 3}" fill="{colour}"/>',
                      text(place(value) + 5, y + BAR - 4, f"{value:,.0f}")]
            y += BAR
        y += GAP - BAR
    grid = []
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = place(10**power)
        grid += [f'<line x1="{x:.1f}" y1="26" x2="{x:.1f}" y2="{y}" stroke="{GRID}"/>',
                 text(x, y + 14, f"{10**power:,}", "middle")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + RIGHT}" '
                    f'height="{y + 24}" font-family="sans-serif" font-size="11">'
                    f'<rect width="100%" height="100%" fill="white"/>{"".join(grid + parts)}</svg>\n')
