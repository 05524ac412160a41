"""What PostgreSQL 15 and 18 have sent, byte by byte, and what they might send."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.connectors._pg_wire import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Message,
    Origin,
    Relation,
    RowChange,
    Truncate,
    Type,
    decode,
    relation_of,
    row_change,
)
from dualwrite.model import Kind

BIG = "0123456789" * 300
_T_COLUMNS = (
    b"\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff\x01name\x00\x00\x00\x00\x19\xff\xff\xff\xff"
    b"\x01mood\x00\x00\x00@&\xff\xff\xff\xff\x01big\x00\x00\x00\x00\x19\xff\xff\xff\xff"
)
_K_COLUMNS = b"\x01a\x00\x00\x00\x00\x17\xff\xff\xff\xff\x00b\x00\x00\x00\x00\x19\xff\xff\xff\xff"
_BIG_CELL = b"t\x00\x00\x0b\xb8" + BIG.encode()
FIFTEEN = [  # 15.18
    b"B\x00\x00\x00\x00\x05mo`\x00\x02\xb5\x82\xc4\x7f\xb1 \x00\x00\x07\xe6",
    b"O\x00\x00\x00\x00\x00\x00\n\xbcdualwrite_x_1\x00",
    b'M\x01\x00\x00\x00\x00\x05m.Xdualwrite_x\x00\x00\x00\x00\r{"number": 1}',
    b"Y\x00\x00@#public\x00mood\x00",
    b"R\x00\x00@'public\x00t\x00f\x00\x04" + _T_COLUMNS.replace(b"@&", b"@#"),
    b"I\x00\x00@'N\x00\x04t\x00\x00\x00\x011t\x00\x00\x00\x05\xc3\x9cnalt\x00\x00\x00\x07chang\xc3\xa9" + _BIG_CELL,
    b"U\x00\x00@'O\x00\x04t\x00\x00\x00\x011t\x00\x00\x00\x05\xc3\x9cnalt\x00\x00\x00\x07chang\xc3\xa9"
    + _BIG_CELL
    + b"N\x00\x04t\x00\x00\x00\x011nt\x00\x00\x00\x07chang\xc3\xa9u",
    b"R\x00\x00@.public\x00k\x00d\x00\x02" + _K_COLUMNS,
    b"I\x00\x00@.N\x00\x02t\x00\x00\x00\x011t\x00\x00\x00\x01x",
    b"U\x00\x00@.K\x00\x02t\x00\x00\x00\x011nN\x00\x02t\x00\x00\x00\x012t\x00\x00\x00\x01x",
    b"U\x00\x00@.N\x00\x02t\x00\x00\x00\x012t\x00\x00\x00\x01y",
    b"D\x00\x00@.K\x00\x02t\x00\x00\x00\x012n",
    b"D\x00\x00@'O\x00\x04t\x00\x00\x00\x011nt\x00\x00\x00\x07chang\xc3\xa9" + _BIG_CELL,
    b"T\x00\x00\x00\x02\x02\x00\x00@'\x00\x00@.",
    b"C\x00\x00\x00\x00\x00\x05mo`\x00\x00\x00\x00\x05mr\x10\x00\x02\xb5\x82\xc4\x7f\xb1 ",
]
EIGHTEEN = [  # 18.6
    b"B\x00\x00\x00\x00\x05\x91\x0e`\x00\x02\xb5\x82\xc4\x7f\xb1 \x00\x00\x07\xd2",
    b"O\x00\x00\x00\x00\x00\x00\n\xbcdualwrite_x_1\x00",
    b'M\x01\x00\x00\x00\x00\x05\x90\xcc\x90dualwrite_x\x00\x00\x00\x00\r{"number": 1}',
    b"Y\x00\x00@&public\x00mood\x00",
    b"R\x00\x00@+public\x00t\x00f\x00\x04" + _T_COLUMNS,
    b"I\x00\x00@+N\x00\x04t\x00\x00\x00\x011t\x00\x00\x00\x05\xc3\x9cnalt\x00\x00\x00\x07chang\xc3\xa9" + _BIG_CELL,
    b"U\x00\x00@+O\x00\x04t\x00\x00\x00\x011t\x00\x00\x00\x05\xc3\x9cnalt\x00\x00\x00\x07chang\xc3\xa9"
    + _BIG_CELL
    + b"N\x00\x04t\x00\x00\x00\x011nt\x00\x00\x00\x07chang\xc3\xa9u",
    b"R\x00\x00@3public\x00k\x00d\x00\x02" + _K_COLUMNS,
    b"I\x00\x00@3N\x00\x02t\x00\x00\x00\x011t\x00\x00\x00\x01x",
    b"U\x00\x00@3K\x00\x02t\x00\x00\x00\x011nN\x00\x02t\x00\x00\x00\x012t\x00\x00\x00\x01x",
    b"U\x00\x00@3N\x00\x02t\x00\x00\x00\x012t\x00\x00\x00\x01y",
    b"D\x00\x00@3K\x00\x02t\x00\x00\x00\x012n",
    b"D\x00\x00@+O\x00\x04t\x00\x00\x00\x011nt\x00\x00\x00\x07chang\xc3\xa9" + _BIG_CELL,
    b"T\x00\x00\x00\x02\x02\x00\x00@+\x00\x00@3",
    b"C\x00\x00\x00\x00\x00\x05\x91\x0e`\x00\x00\x00\x00\x05\x91\x11\x10\x00\x02\xb5\x82\xc4\x7f\xb1 ",
]
AT = 1709208000.5  # 2024-02-29 12:00:00.5 UTC


@pytest.mark.parametrize(
    ("sent", "xid", "lsns", "mood", "t", "k"),
    [
        pytest.param(FIFTEEN, 2022, (0x56D6F60, 0x56D7210, 0x56D2E58), 0x4023, 0x4027, 0x402E, id="15"),
        pytest.param(EIGHTEEN, 2002, (0x5910E60, 0x5911110, 0x590CC90), 0x4026, 0x402B, 0x4033, id="18"),
    ],
)
def test_a_transaction_of_a_server(sent, xid, lsns, mood, t, k) -> None:
    """Each message is what the statements that caused it say."""
    commit, end, message = lsns
    columns = (
        Column("id", 23, -1, True),
        Column("name", 25, -1, True),
        Column("mood", mood, -1, True),
        Column("big", 25, -1, True),
    )
    unnamed = ("1", None, "changé", BIG)
    assert [decode(data) for data in sent] == [
        Begin(commit, AT, xid),
        Origin(0xABC, "dualwrite_x_1"),
        Message(True, message, "dualwrite_x", b'{"number": 1}'),
        Type(mood, "public", "mood"),
        Relation(t, "public", "t", "f", columns),
        RowChange(Kind.INSERT, t, None, ("1", "Ünal", "changé", BIG), full=False),
        RowChange(Kind.UPDATE, t, ("1", "Ünal", "changé", BIG), unnamed, full=True),
        Relation(k, "public", "k", "d", (Column("a", 23, -1, True), Column("b", 25, -1, False))),
        RowChange(Kind.INSERT, k, None, ("1", "x"), full=False),
        RowChange(Kind.UPDATE, k, ("1", None), ("2", "x"), full=False),
        RowChange(Kind.UPDATE, k, None, ("2", "y"), full=False),
        RowChange(Kind.DELETE, k, ("2", None), None, full=False),
        RowChange(Kind.DELETE, t, unnamed, None, full=True),
        Truncate((t, k), cascade=False, restart=True),
        Commit(commit, end, AT),
    ]
    rows = [data for data in sent if data[:1] in (b"I", b"U", b"D")]
    assert [relation_of(data) for data in rows] == [t, t, k, k, k, k, t]


def test_unchanged_stays_without_the_full_row() -> None:
    """A large value that was not sent is filled in from the row before, never from its mere key."""
    assert row_change(b"U\x00\x00\x00\x01N\x00\x02t\x00\x00\x00\x011u").new == ("1", UNCHANGED)
    keyed = b"U\x00\x00\x00\x01K\x00\x02t\x00\x00\x00\x011nN\x00\x02t\x00\x00\x00\x012u"
    assert row_change(keyed) == RowChange(Kind.UPDATE, 1, ("1", None), ("2", UNCHANGED), full=False)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 1 << 24])
def test_cells_of_any_size(size: int) -> None:
    """The length of a cell takes four bytes."""
    cell = b"t" + size.to_bytes(4) + b"x" * size
    after = row_change(b"I\x00\x00\x00\x01N\x00\x03" + cell + b"n" + b"t\x00\x00\x00\x00").new
    assert after == ("x" * size, None, "")


def test_messages_of_other_sorts() -> None:
    """Types and tables of the catalog carry no schema; messages may stand outside of transactions."""
    assert decode(b"Y\x00\x00\x00\x17\x00int4\x00") == Type(23, "pg_catalog", "int4")
    assert decode(b"R\x00\x00\x00\x01\x00pg_x\x00n\x00\x00") == Relation(1, "pg_catalog", "pg_x", "n", ())
    assert decode(b"M\x00\x00\x00\x00\x00\x00\x00\x00\x09p\x00\x00\x00\x00\x02\xff\x00") == Message(
        False, 9, "p", b"\xff\x00"
    )
    assert decode(b"T\x00\x00\x00\x01\x01\x00\x00\x00\x05") == Truncate((5,), cascade=True, restart=False)


@pytest.mark.parametrize("data", [b"S\x00\x00\x00\x01\x01", b"I\x00\x00\x00\x01N\x00\x01b\x00\x00\x00\x01\x00"])
def test_what_nobody_asked_for_is_refused(data: bytes) -> None:
    """Streamed transactions and binary cells come with options that we do not use."""
    with pytest.raises(ValueError, match="pgoutput"):
        decode(data)


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).map(str) | st.sampled_from(
    ["", "t", "tn", "N", "n" * 116, "x" * 255, "x" * 256, "é" * 127, "é" * 128, "N\x14", "y" * 29_696]
)
_CELLS = _TEXTS | st.none() | st.just(UNCHANGED)


def _sent(image: Sequence[str | object | None]) -> bytes:
    """An image as the server sends it."""
    cells = [b"n" if cell is None else b"u" if cell is UNCHANGED else b"t" + _text(str(cell)) for cell in image]
    return len(image).to_bytes(2) + b"".join(cells)


def _text(cell: str) -> bytes:
    return len(cell.encode()).to_bytes(4) + cell.encode()


@given(st.data(), st.integers(1, 5) | st.sampled_from([116, 256, 300]))
def test_rows_are_what_was_sent_however_they_are_cut_up(data: st.DataObject, width: int) -> None:
    """Images come out as they went in, and what is said to be edited is what differs."""
    few = st.lists(_CELLS if width < 6 else _TEXTS | st.none(), min_size=1, max_size=3)
    filling = data.draw(st.sampled_from(["a", "", "t", None]))
    old = (data.draw(few) + [filling] * width)[:width]
    old = [None if cell is UNCHANGED else cell for cell in old]
    edits = data.draw(st.dictionaries(st.integers(0, width - 1), _CELLS, max_size=3))
    new = [edits.get(index, cell) for index, cell in enumerate(old)]
    told = row_change(b"U\0\0\0\1O" + _sent(old) + b"N" + _sent(new))
    whole = tuple(was if cell is UNCHANGED else cell for was, cell in zip(old, new, strict=True))
    assert (told.old, told.new) == (tuple(old), whole)
    assert told.edited is None or list(told.edited) == [i for i in range(width) if old[i] != whole[i]]
    assert row_change(b"I\0\0\0\1N" + _sent(new)).new == tuple(new)
    assert row_change(b"D\0\0\0\1O" + _sent(old)).old == tuple(old)
    assert row_change(b"U\0\0\0\1K" + _sent(old) + b"N" + _sent(new)).new == tuple(new)


def test_of_an_update_only_what_differs_is_decoded_twice() -> None:
    """The cells that stay are the same objects in both images, with nulls among them as well."""
    for nulls in ([], [None], [None, None]):
        old, new = [*nulls, "first", *nulls, "second", *nulls], [*nulls, "first", *nulls, "other", *nulls]
        told = row_change(b"U\0\0\0\1O" + _sent(old) + b"N" + _sent(new))
        at = len(nulls)
        assert told.edited == [new.index("other")]
        assert told.old is not None
        assert told.new is not None
        assert told.old[at] is told.new[at]
