"""Ways to change files: bytes, JSON values, arrays and cells of tables. All chance comes from the dice that are given."""

from __future__ import annotations

import json
import sqlite3

import numpy as np

# What nobody expects where a number, a text or an object belongs.
VALUES = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        7,
        255,
        256,
        65535,
        2**31 - 1,
        2**31,
        -(2**31),
        2**32,
        2**53,
        2**62,
        2**63 - 1,
        -(2**63),
    ),
    *(10**12, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), "", "x", "\x00", "0", "-1", "../../x", "é" * 50),
    *([], {}, [[]], [None], {"a": None}, "[" * 5000, "{}", "null", "9" * 400),
]
BEYOND = [2**63, 2**64, 10**30, -(10**30)]  # for JSON, which has larger numbers than SQLite
NUMBERS = [0, 1, -1, 2, 5, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 2.0, 1e-30, 65504.0, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan")]


def change_bytes(dice, data: bytes) -> bytes:
    """Flip, cut, repeat or overwrite some of the bytes."""
    way = dice.randrange(8)
    if not data or way == 0:
        return data[: dice.randrange(len(data) + 1)]
    changed = bytearray(data)
    if way == 1:
        place = dice.randrange(len(data))
        changed[place : place + dice.choice([1, 4, 8, 100])] = b""
    elif way == 2:
        place = dice.randrange(len(data) + 1)
        changed[place:place] = dice.randbytes(dice.choice([1, 4, 8, 100]))
    elif way == 3:
        place, length = dice.randrange(len(data)), dice.choice([1, 4, 8, 64])
        changed[place : place + length] = bytes([dice.choice([0, 255])]) * length
    elif way == 4:
        place = dice.randrange(max(len(data) - 8, 1))
        changed[place : place + 8] = int(dice.choice(NUMBERS) % 2**64).to_bytes(8, "little")
    else:
        front = dice.random() < 0.3  # headers
        for _ in range(dice.choice([1, 1, 2, 8])):
            place = dice.randrange(min(len(data), 200) if front else len(data))
            changed[place] ^= 1 << dice.randrange(8)
    return bytes(changed)


def change_json(dice, value):
    """Replace, drop, repeat or add something at any depth."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        way = dice.random()
        if way < 0.1:
            return {key: inner for key, inner in value.items() if key != name}
        if way < 0.15:
            return value | {dice.choice(["x", "", "__class__", f"{name} "]): value[name]}
        return value | {name: change_json(dice, value[name])}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        way = dice.random()
        if way < 0.15:
            return value[:place] + value[place + 1 :]
        if way < 0.3:
            return [*value[:place], value[place], *value[place:]]
        return [*value[:place], change_json(dice, value[place]), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and dice.random() < 0.3:
        return value + dice.choice([-1, 1, 2, 10, -10])
    if isinstance(value, str) and value and dice.random() < 0.2:
        return value[: dice.randrange(len(value))]
    return dice.choice(VALUES + BEYOND)


def change_json_text(dice, text: bytes) -> bytes:
    """The text of a JSON value in which something was changed, or that is nested beyond all measure."""
    if dice.random() < 0.03:
        return dice.choice([b"[", b'{"a":']) * 100_000
    try:
        return json.dumps(change_json(dice, json.loads(text))).encode()
    except ValueError:
        return change_bytes(dice, text)


def change_array(dice, array):
    """Change some numbers of an array, its shape, or its type."""
    array = np.array(array)
    way = dice.randrange(9)
    if way < 5 and array.size:
        flat = array.reshape(-1)
        for _ in range(dice.choice([1, 1, 2, 5])):
            place = dice.choice([0, array.size - 1, dice.randrange(array.size)])
            if array.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    flat[place] = np.float64(dice.choice(FLOATS))
            elif dice.random() < 0.5:
                flat[place] = np.array(dice.choice(NUMBERS), np.int64).astype(array.dtype)
            else:
                flat[place] = (int(flat[place]) + dice.choice([-1, 1])) % 2 ** (8 * array.itemsize - (array.dtype.kind == "i"))
        return array
    if way == 5 and array.ndim:
        return array[: dice.randrange(len(array) + 1)]
    if way == 6 and array.ndim:
        return np.concatenate([array, array[: dice.randrange(len(array) + 1)]])
    if way == 7 and array.ndim:
        return np.ascontiguousarray(dice.choice([array[::-1], array[..., None], array[:0], array.reshape(-1), array.T]))
    kinds = ["<i8", "<i4", "<u4", "<u2", "|u1", "<f4", "<f2"]
    with np.errstate(all="ignore"):
        return array.astype(dice.choice(kinds))


def change_cell(dice, database) -> None:
    """Change one value of one row, or remove or repeat a row."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.set_progress_handler(lambda: 1, 10**7)  # SQLite may never end what it does to a damaged tree
        table, columns = dice.choice(
            [
                ("about", ["key", "value", "value", "value"]),
                ("passages", ["row", "id", "text", "metadata"]),
                ("fields", ["path", "kind", "value", "row"]),
                ("files", ["name", "kind", "position", "size", "sha256", "data"]),
                ("dead", ["row"]),
            ]
        )
        key = {"about": "key", "passages": "row", "fields": "path", "files": "name", "dead": "row"}[table]
        column = dice.choice(columns)
        keys = [row[0] for row in connection.execute(f"SELECT {key} FROM {table} ORDER BY {key}")]
        chosen = dice.choice(keys) if keys else 1
        value = dice.choice(
            [*VALUES, b"", b"\xff\xfe", b"x" * 100, 10, 20, 30, 33, "identity", '{"a": NaN}', "[1]", '{"n": 1e999}']
        )
        if not isinstance(value, int | float | str | bytes | type(None)):
            value = json.dumps(value)
        try:
            way = dice.random()
            if way < 0.12:
                connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (chosen,))
            elif way < 0.17:
                connection.execute("INSERT INTO dead VALUES (?)", (dice.randrange(40),))
            elif way < 0.27:  # bytes that are no text, in a column of text
                connection.execute(f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {key} = ?", (b"\xff\xfe\x80", chosen))
            else:
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, chosen))
        except (sqlite3.Error, OverflowError):
            connection.execute("UPDATE about SET value = ? WHERE key = 'dim'", (str(value)[:50],))
    finally:
        connection.close()


SCHEMAS = [
    "DROP TABLE {table}",
    "ALTER TABLE {table} RENAME TO other",
    "ALTER TABLE {table} ADD COLUMN more TEXT",
    "DROP INDEX fields_of_row",
    "CREATE VIEW other AS SELECT * FROM {table}",
    "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM passages; END",
    "CREATE TABLE other(x)",
    "CREATE INDEX other ON passages(text)",
    "ALTER TABLE {table} RENAME TO other; CREATE VIEW {table} AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS row, 'a' AS id, 'x' AS text, '{{}}' AS metadata, i AS key, i AS value, i AS name FROM n",
    "DROP TABLE dead; CREATE TABLE dead(row INTEGER, other TEXT)",
    "DROP TABLE dead; CREATE TABLE dead(row PRIMARY KEY) WITHOUT ROWID",
    "PRAGMA application_id = 1",
    "PRAGMA user_version = {version}",
    "PRAGMA journal_mode = DELETE",
    "DELETE FROM {table}",
    "ANALYZE",
]


def change_schema(dice, database) -> None:
    """Put something else in the place of a table, or beside it."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.set_progress_handler(lambda: 1, 10**7)
        statement = dice.choice(SCHEMAS)
        table = dice.choice(["about", "passages", "fields", "files", "dead"])
        connection.executescript(statement.format(table=table, version=dice.choice([-1, 0, 1, 2, 3, 2**31 - 1])))
    finally:
        connection.close()
