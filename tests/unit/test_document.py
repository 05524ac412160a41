"""Reading YAML as text, and writing it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dualwrite
from dualwrite.document import CODES, Findings, Quoted, block, flow, plain, quote, read


def loaded(text: str) -> object:
    """The text's plain values."""
    findings = Findings("f.yaml")
    node = read(text, findings)
    assert node is not None
    values = plain(node, findings)
    findings.raise_if_any()
    return values


def test_every_scalar_is_text():
    """Nothing becomes a number, a date or a boolean; only unquoted null, ~ and nothing are null."""
    text = (
        "a: [no, 001, 1e3, 1.0, 2024-01-01, 0x1f, null, ~, '', \"null\", 'null', Null, =, <<]\nb:\nc: |\n  two\n  lines"
    )
    assert loaded(text) == {
        "a": ["no", "001", "1e3", "1.0", "2024-01-01", "0x1f", None, None, "", "null", "null", "Null", "=", "<<"],
        "b": None,
        "c": "two\nlines",
    }


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("accounts", "accounts"),
        ("Customers V3 (accounts)", "Customers V3 (accounts)"),
        ("-1.50", "-1.50"),
        ("no", "no"),
        (None, "null"),
        ("null", '"null"'),
        ("", '""'),
        ("Item #", '"Item #"'),
        ("a: b", '"a: b"'),
        (' say "x\\y" ', '" say \\"x\\\\y\\" "'),
        ("é\n\x01\u2028\U000e0001", '"é\\x0a\\x01\\u2028\\U000e0001"'),
        (Quoted("park"), '"park"'),
    ],
)
def test_quotes_only_where_needed(text: str | None, written: str):
    """A scalar is written plainly where it reads back as itself."""
    assert quote(text) == written
    assert loaded(f"a: {written}") == {"a": text}


def test_long_values_go_below_their_key():
    """What does not fit on the line is indented; numbers become their text."""
    value = {"a": ["x" * 50, "y" * 50], "b": {"c": ["z" * 60, {"d": "e" * 60, None: 5}]}, "f" * 600: []}
    text = f"top:{block(value, 2, 4)}\n"
    assert text.startswith("top:\n  a: [xxx")
    assert "\n  b:\n    c:\n      - zzz" in text
    value["b"]["c"][1] = {"d": "e" * 60, "": "5"}
    assert loaded(text.replace("null: 5", '"": 5')) == {"top": value}
    assert flow({"a": 1, None: [None]}) == "{a: 1, null: [null]}"


def test_every_code_of_a_file_is_explained():
    """Codes are part of what people may rely on: each has its sentence, and none is left over."""
    folder = Path(dualwrite.__file__).parent
    used: set[str] = set()
    maps = ("mapping/notation.py", "mapping/lines.py")
    for name in ("document.py", "declared.py", "project.py", "settings.py", *maps):
        source = (folder / name).read_text()
        used.update(re.findall(r'(?:\.add|Problem)\(\s*"([a-z_]+)"', source))
    assert used == set(CODES)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"a\\0b"', "a value holds a character that no system can store"),
        ('"\\ud800"', "a value holds a character that no system can store|found invalid Unicode"),  # by parser
    ],
)
def test_characters_that_cannot_be_stored(value: str, said: str):
    """Escapes can spell what no database or file takes: told at once instead of failing later."""
    findings = Findings("f.yaml")
    read(f"a: {value}", findings)
    (problem,) = findings.sorted()
    assert re.search(said, problem.message)
