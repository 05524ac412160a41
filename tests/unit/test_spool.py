"""What goes to disk is found again, whatever objects its keys were made of."""

from __future__ import annotations

from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from dualwrite.engine import spool
from dualwrite.engine.spool import BLOCK, PARTITIONS, Overflow, Partitioned, Spool, in_chunks, parts_of
from dualwrite.lined import LARGEST, PIECE, Lined, text_of
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Change, Key, Kind, Position, Row, Side
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName


def change(number: int, key: str) -> Change:
    """A change of the record with that key."""
    return Change("items", Kind.INSERT, (key,), None, (key, None), 0.0, Position("feed", (number,)))


def test_overflow_finds_equal_keys_made_of_other_objects() -> None:
    """Interned or not, referred to once or often: a key is a key."""
    overflow = Overflow()
    literal = "abc"
    overflow.add([("items", (literal,), change(1, literal)), ("items", ("".join(["ab", "c"]), None), change(2, "x"))])
    assert [found.position.place for found in overflow.find("items", ("".join(["a", "bc"]),))] == [(1,)]
    assert [found.position.place for found in overflow.find("items", (literal, None))] == [(2,)]
    assert overflow.find("items", ("ab",)) == []


def test_overflow_gives_back_what_is_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything up to a position goes, a block at a time; of that, what is asked for comes with the record under which
    it was kept."""
    monkeypatch.setattr(spool, "BLOCK", 2)
    overflow = Overflow()
    overflow.add([("items", (f"k{number}",), change(number, f"k{number}")) for number in range(1, 7)])
    taken, blocks, is_all = list[tuple[str, Key, Change]](), 0, False
    while not is_all:
        block, is_all = overflow.take(Position("feed", (5,)), lambda name, key: (name, key) != ("items", ("k1",)))
        taken += block
        blocks += 1
    assert [(name, key, kept.position.place) for name, key, kept in taken] == [
        ("items", (f"k{number}",), (number,)) for number in range(2, 6)
    ]
    assert blocks == 3
    assert len(overflow) == 1
    assert overflow.oldest() == Position("feed", (6,))


def test_lines_that_are_kept_are_their_rows_again(tmp_path: Path) -> None:
    """What a spool has got as lines, another process finds, reads and carries as the rows that they are."""
    compiled, boundary = compiled_map(), Position("feed", (7,))
    rows: list[Row] = [(str(number), "\t\\N" if number % 2 else None) for number in range(PIECE + 2)]
    first = Spool(compiled, Side.LEFT, (tmp_path / "rows").open("w+b"))
    first.seal(boundary, boundary)
    weak = first.passing(Lined(text_of(rows).splitlines(keepends=True), 2))
    assert [weak.change(number).after for number in (0, 1)] == rows[:2]
    first.close()
    again = Spool(compiled, Side.LEFT, (tmp_path / "rows").open("r+b"))
    again.recover()
    again.go_on(boundary, boundary, 0)
    assert [row for block in again.reread() for row in block] == rows
    assert [row for chunk in again.chunks(lambda: 300, after=PIECE - 1) for row in chunk.rows] == rows[PIECE - 1 :]
    found = again.find(("1",))
    assert found is not None
    assert (found.after, found.position) == (rows[1], Position("feed", (7, 0, 2)))
    again.close()


def compiled_map() -> CompiledMap:
    """Two columns that pass as they are."""
    text = ColumnType(TypeName.TEXT)
    table = Table("t", (Column("code", text, nullable=False), Column("note", text)), ("code",), (("code",),))
    schema = Schema({"t": table})
    lines = "map: m\nleft: t\nright: t\nkey: [code]\ncolumns:\n  - code = code\n  - note = note\n"
    return compile_map(read_map(lines, ""), schema, schema)


def test_what_is_kept_is_found_while_more_of_it_comes() -> None:
    """One thread appends chunks, another one asks for records of those that it knows to be there."""
    held, boundary = Spool(compiled_map(), Side.LEFT), Position("feed", (7,))
    held.seal(boundary, boundary)
    chunks = [[(f"{chunk}.{number}", "x" * 500) for number in range(100)] for chunk in range(200)]
    done: Queue[int | None] = Queue()

    def append() -> None:
        for number, rows in enumerate(chunks):
            held.passing(rows)
            done.put(number)
        done.put(None)

    thread = Thread(target=append)
    thread.start()
    while (number := done.get()) is not None:
        for row in chunks[number][::40]:
            found = held.find(row[:1])
            assert found is not None
            assert found.after == row
    thread.join()
    assert [row for weak in held.chunks(lambda: 1_000) for row in weak.rows] == [row for rows in chunks for row in rows]
    held.close()


@pytest.mark.parametrize("largest", [100, 1 << 20])
def test_parts_have_every_row_once_beside_those_with_its_key(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also parts that are cut up again and again, and rows of which all have one key, which nothing can part."""
    monkeypatch.setattr(spool, "LARGEST", largest)
    monkeypatch.setattr(spool, "LARGEST_PART", largest)
    lefts, rights = Partitioned(), Partitioned()
    keys = [(f"k{number}",) for number in range(2_000)]
    lefts.add(keys, [(*key, "left") for key in keys])
    rights.add([("same",)] * 500, [(str(number),) for number in range(500)])
    rights.add(keys[::2], [(*key, "right") for key in keys[::2]])
    found = list(parts_of(lefts, rights))
    assert sorted(key for part, _ in found for key, _ in part) == sorted(keys)
    assert sorted(row for _, part in found for _, row in part if len(row) == 1) == sorted((str(n),) for n in range(500))
    for left, right in found:
        assert {key for key, _ in right} - {("same",)} == {key for key, _ in left} & set(keys[::2])
    assert (len(found) > PARTITIONS) is (largest == 100)


def test_what_waits_for_its_counterpart_is_held_by_its_size() -> None:
    """A few large rows go to disk as many small ones do."""
    large, small = Partitioned(), Partitioned()
    for number in range(BLOCK // 2):
        large.add([(str(number),)], [(str(number), "x" * (LARGEST // 50))])
        small.add([(str(number),)], [(str(number), "x")])
    assert sum(large.size(index) for index in range(PARTITIONS)) > 3 * LARGEST
    assert not any(small.size(index) for index in range(PARTITIONS))
    assert len([row for (part,) in parts_of(large) for row in part]) == BLOCK // 2


@pytest.mark.parametrize("lined", [False, True])
def test_chunks_have_as_many_rows_as_asked_or_fewer_large_ones(lined: bool) -> None:
    """In their order, and none of them twice."""
    small: list[Row] = [(str(number), "small") for number in range(1_000)]
    large: list[Row] = [(str(number), "x" * (LARGEST // 10)) for number in range(1_000, 1_030)]
    blocks = [*([row] * 1 for row in small), *([row] for row in large), *([row] for row in small)]
    given = [Lined([text_of(block)], 2) if lined else block for block in blocks]
    chunks = list(in_chunks((([True], block) for block in given), lambda: 300))
    assert [row for _, rows in chunks for row in rows] == [*small, *large, *small]
    assert all(len(inserts) == len(rows) <= 300 for inserts, rows in chunks)
    assert max(sum(len(cell) for row in rows for cell in row) for _, rows in chunks) < 1.2 * LARGEST
    assert len(chunks) <= 12
