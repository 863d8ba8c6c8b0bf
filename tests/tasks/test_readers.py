from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from er import choices, config
from er.errors import UserError
from er.tasks import json_stream, load_task
from er.tasks.readers import csv_table, json_lines, tables, text_file
from er.tasks.task import SPLITS

TABLES = tables()
SUFFIXES = sorted(TABLES)
PAIRS = [("a text", "x"), ("quoted: \"b\", 'c'", "y"), ("ünï¢ødé 語 \u2028 🙂", "x")]

Pair = tuple[str, str]


def written(suffix: str, rows: list[Pair]) -> bytes:
    records = [{"text": text, "label": label} for text, label in rows]
    if suffix == ".json":
        return json.dumps(records, ensure_ascii=False).encode()
    if suffix in (".jsonl", ".txt"):
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if suffix == ".csv":
        out = io.StringIO(newline="")
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
        return out.getvalue().encode()
    if suffix == ".tsv":
        return "".join("\t".join(row) + "\n" for row in [("text", "label"), *rows]).encode()
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()


def read(suffix: str, data: bytes) -> list[Pair]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, f"train{suffix}")
        file.write_bytes(data)
        return [(row.fields["text"], row.fields["label"]) for row in TABLES[suffix](file)]


def storable(suffix: str) -> st.SearchStrategy[str]:
    excluded = {".csv": "\0", ".tsv": "\0\t\r\n"}.get(suffix, "")
    alphabet = st.characters(codec="utf-8", exclude_characters=excluded)
    return st.text(alphabet, min_size=1).filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_was_written_is_read(suffix: str, data: st.DataObject) -> None:
    texts = storable(suffix)
    rows = data.draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))

    assert read(suffix, written(suffix, rows)) == rows


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".parquet"])
def test_byte_order_mark_crlf_and_blank_lines_are_no_content(suffix: str) -> None:
    data = written(suffix, PAIRS).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n\r\n  \r\n")

    assert read(suffix, b"\xef\xbb\xbf" + data) == PAIRS


def test_json_file_may_hold_lines() -> None:
    assert read(".json", written(".jsonl", PAIRS)) == PAIRS


def test_quotes_in_tsv_are_ordinary_characters() -> None:
    rows = [('"opened, never closed', "x"), ('closed"', "y")]

    assert read(".tsv", written(".tsv", rows)) == rows


def test_long_csv_field_is_read() -> None:
    rows = [("word " * 50_000, "x")]

    assert read(".csv", written(".csv", rows)) == rows


def test_row_says_where_it_stands(tmp_path: Path) -> None:
    lines, table = tmp_path / "train.jsonl", tmp_path / "train.csv"
    lines.write_text('\n{"text": "a"}\n\n{"text": "b"}\n')
    table.write_text('text,label\n"two\nlines",x\nb,y\n')

    assert [row.where for row in json_lines(lines)] == [f"{lines}:2", f"{lines}:4"]
    assert [row.where for row in csv_table(table)] == [f"{table}:2", f"{table}:4"]


@pytest.mark.parametrize(("suffix", "tab"), [(".tsv", "\t"), (".txt", "\t"), (".csv", ",")])
def test_columns_name_what_has_no_header(suffix: str, tab: str, tmp_path: Path) -> None:
    file = tmp_path / f"train{suffix}"
    file.write_text(f"one{tab}two{tab}0\nthree{tab}four{tab}1\n")

    rows = list(tables(["a", "b", "c"])[suffix](file))

    assert [row.fields for row in rows] == [{"a": "one", "b": "two", "c": "0"}, {"a": "three", "b": "four", "c": "1"}]
    assert [row.where for row in rows] == [f"{file}:1", f"{file}:2"]
    with pytest.raises(UserError, match=rf"train{suffix}:1: 3 fields, but task\.columns has 2 \(a, b\)"):
        list(tables(["a", "b"])[suffix](file))


def test_a_text_file_may_hold_tab_separated_values(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_bytes(b'\xef\xbb\xbf\nQuality\t#1 String\r\n1\t"an open quote\r\n')

    assert [row.fields for row in text_file(file)] == [{"Quality": "1", "#1 String": '"an open quote'}]


WRONG = [
    (".jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", \n', ["train.jsonl:2", "no JSON"]),
    (".jsonl", b'{"text": "a", "label": "x"}\n\n[1, 2]\n', ["train.jsonl:3", "a JSON list"]),
    (".jsonl", b"[" * 100_000, ["train.jsonl:1", "unreadable JSON"]),
    (".jsonl", b'{"text": "a", "label": ' + b"1" * 5_000 + b"}", ["train.jsonl:1"]),
    (".jsonl", b'{"text": "a", "label": "x"}\n{"text": "\xe9"}\n', ["train.jsonl:2", "not UTF-8", "0xe9"]),
    (".jsonl", '{"text": "a"}\n'.encode("utf-16"), ["train.jsonl:1", "not UTF-8"]),
    (".txt", b"plain prose\n", ["train.txt:1", "no JSON", "one object"]),
    (".json", b'[{"text": "a", "label": "x"},\n {"text": }]', ["train.json:2", "no JSON"]),
    (".json", b'[{"text": "a", "label": "x"}, null]', ["train.json, entry 2", "NoneType"]),
    (".csv", b"text,label\na,x\nb\n", ["train.csv:3", "1 fields", "header has 2", "text, label"]),
    (".csv", b"text,label\na,x\nb,y,z\n", ["train.csv:3", "3 fields"]),
    (".csv", b'text,label\na,x\n"b,y\n', ["train.csv:3", "broken quoting"]),
    (".csv", b"text,text\na,x\n", ["train.csv:1", "'text' twice", "task.columns"]),
    *(
        (suffix, b"a text\tx\nanother\ty\n", [f"train{suffix}:2", "'text'", "task.columns"])
        for suffix in (".tsv", ".txt")
    ),
    (".jsonl", b'{"tekst": "a"}', ["train.jsonl:1", "task.text."]),
    (".tsv", b"text\tlabel\na\tb\tx\n", ["train.tsv:2", "3 fields"]),
    (".parquet", b"PAR1 and nothing else PAR1", ["train.parquet", "not readable as parquet"]),
    (".parquet", written(".parquet", PAIRS)[:-9], ["train.parquet", "not readable as parquet"]),
    *((suffix, b"", ["holds no examples"]) for suffix in SUFFIXES if suffix != ".parquet"),
    (".csv", b"text,label\n", ["train.csv", "holds no examples"]),
    (".json", b"[]", ["train.json", "holds no examples"]),
]


@pytest.mark.parametrize(("suffix", "data", "message"), WRONG)
def test_unreadable_file_is_a_user_error(suffix: str, data: bytes, message: list[str], tmp_path: Path) -> None:
    (tmp_path / f"train{suffix}").write_bytes(data)
    task = config.Task(name="own", kind=choices.Kind.classification, path=str(tmp_path))

    with pytest.raises(UserError) as error:
        load_task(task, None)

    for part in message:
        assert part in str(error.value)


def changed(data: bytes, position: int, byte: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes([byte]) + data[position + 1 :]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_give_a_task_or_a_user_error(suffix: str, data: st.DataObject) -> None:
    sound = written(suffix, [(f"text {i}", "xy"[i % 2]) for i in range(40)])
    damaged = st.builds(changed, st.just(sound), st.integers(0, len(sound) - 1), st.integers(0, 255))
    content = data.draw(st.one_of(st.binary(), damaged))
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, f"train{suffix}").write_bytes(content)
        try:
            loaded = load_task(config.Task(name="own", kind=choices.Kind.classification, path=directory), None)
        except UserError as error:
            assert str(error)
        else:
            assert set(loaded.sizes) == set(SPLITS)


BROKEN = {
    ".jsonl": b"{",
    ".json": b"{",
    ".csv": b"one,two,three\n",
    ".tsv": b"one\ttwo\tthree\n",
    ".txt": b"{",
}


@pytest.mark.parametrize("suffix", BROKEN)
def test_rows_are_read_one_by_one(suffix: str, tmp_path: Path) -> None:
    """Those before a mistake are there before it is met: nothing reads the file whole."""
    sound = written(suffix, [("a word " * 20, "x")] * 2000)
    end = len(sound) - 1 if suffix == ".json" else len(sound)
    file = tmp_path / f"train{suffix}"
    file.write_bytes(sound[:end] + (b"," if suffix == ".json" else b"") + BROKEN[suffix])

    rows = TABLES[suffix](file)

    assert len([next(rows) for _ in range(2000)]) == 2000
    with pytest.raises(UserError):
        next(rows)


def test_parquet_is_read_part_by_part(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    with pq.ParquetWriter(file, pa.schema([("text", pa.string())]), compression="none") as out:
        for part in range(3):
            out.write_table(pa.table({"text": [f"{part} {number} " * 50 for number in range(2000)]}))
    content = file.read_bytes()
    at = content.index(b"2 7 2 7")
    file.write_bytes(content[: at - 20_000] + b"\xff" * 19_000 + content[at - 1000 :])

    rows = TABLES[".parquet"](file)

    assert [next(rows).fields["text"][:4] for _ in range(2)] == ["0 0 ", "0 1 "]


@example(value=-0.0, piece=2, indent=None)
@example(value=[1e300, 1e-7, True], piece=1, indent=None)
@given(
    value=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
        lambda inside: st.one_of(st.lists(inside), st.dictionaries(st.text(), inside)),
    ),
    piece=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
)
def test_json_read_piece_by_piece_is_what_was_written(value: object, piece: int, indent: int | None) -> None:
    text = json.dumps([value, {"data": value}], indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "PIECE", piece)
        items = json_stream.Reading(io.StringIO(text), Path("a.json"), "").items()
        assert list(items) == [value, {"data": value}]
        reading = json_stream.Reading(io.StringIO(text[:-1]), Path("a.json"), "")
        with pytest.raises(UserError, match=r"a\.json:\d+: no JSON"):
            list(reading.items())
