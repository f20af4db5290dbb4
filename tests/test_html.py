"""What notebooks show: every text escaped, every number in its cell."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from powersteer._util.html import heat_map, paragraphs, table

NASTY = "<script>alert('x')</script> & \"quotes\"\n  two lines"


class Reader(HTMLParser):
    """Tags, attributes and texts of a piece of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.titles = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.titles += [value for name, value in attrs if name == "title"]

    def handle_data(self, data):
        self.texts.append(data)


def test_tables_and_texts_are_escaped():
    read = Reader(table([NASTY], [[NASTY, 3], ["b", None]], caption=NASTY) + paragraphs([(NASTY, NASTY)]))
    assert "script" not in read.tags
    assert "".join(read.texts).count(NASTY) == 5 and {"3", "b", "None"} <= set(read.texts)
    assert read.tags.count("tr") == 3


def test_a_heat_map_has_a_cell_a_value():
    values = np.array([[1.0, np.nan], [3.5, 2.0]])
    read = Reader(heat_map(values, [0, 1], ["a", NASTY], "σ"))
    assert read.titles == ["1", "3.5", "2"] and read.tags.count("td") == 4
    assert Reader(heat_map(np.full((1, 2), np.nan), ["x"], ["a", "b"])).titles == []
    assert Reader(heat_map(np.ones((1, 1)), ["x"], ["a"])).titles == ["1"]
