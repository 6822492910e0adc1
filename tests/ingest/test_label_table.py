from __future__ import annotations

import re
from pathlib import Path

import pytest

from aerofuse.ingest.label_table import read_label_table

HEADER = "filename,typename,airlinename,clarity,block,registration"
GOOD = "a.jpg,A320,Air,0.5,0.1,D-ABCD"


def _write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def _table(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_a_table_is_read(tmp_path: Path) -> None:
    table = read_label_table(_write(tmp_path, _table(GOOD, "nested/b.jpg,B747,,,,", " c.jpg , A320 ,Sky, 1 ,0,")))
    frame = table.frame
    assert list(frame["row"]) == [2, 3, 4]
    assert list(frame["filename"]) == ["a.jpg", "nested/b.jpg", "c.jpg"]
    assert list(frame["airlinename"]) == ["Air", None, "Sky"]
    assert list(frame["clarity"]) == [0.5, None, 1.0]
    assert list(frame["registration"]) == ["D-ABCD", None, None]
    assert table.types == ("A320", "B747")
    assert table.airlines == ("Air", "Sky")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_chinese_names_and_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    table = read_label_table(_write(tmp_path, _table("照片/一.jpg,空客A320,中国国际航空,,,"), encoding))
    assert table.types == ("空客A320",)
    assert table.airlines == ("中国国际航空",)
    assert table.frame["filename"].item() == "照片/一.jpg"


def test_columns_of_the_users_own_are_kept(tmp_path: Path) -> None:
    text = _table("a.jpg,A320,Zoë,007", header="filename,typename,photographer,shot")
    frame = read_label_table(_write(tmp_path, text)).frame
    assert frame["photographer"].item() == "Zoë"
    assert frame["shot"].item() == "007"
    assert frame["clarity"].item() is None


def test_ids_order_the_classes(tmp_path: Path) -> None:
    text = _table("a.jpg,A320,1", "b.jpg,B747,0", "c.jpg,A320,", header="filename,typename,typeid")
    assert read_label_table(_write(tmp_path, text)).types == ("B747", "A320")


def test_empty_rows_at_the_end_and_windows_line_ends(tmp_path: Path) -> None:
    table = read_label_table(_write(tmp_path, f"{HEADER}\r\n{GOOD}\r\n,,,,,\r\n\r\n"))
    assert len(table.frame) == 1


def test_cells_left_out_at_the_end_are_empty_and_empty_ones_too_many_nothing(tmp_path: Path) -> None:
    table = read_label_table(_write(tmp_path, _table("a.jpg,A320", f"b{GOOD[1:]},,")))
    assert list(table.frame["clarity"]) == [None, 0.5]
    assert list(table.frame["registration"]) == [None, "D-ABCD"]


def test_values_with_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    table = read_label_table(_write(tmp_path, _table('"a, b.jpg","A ""320""",,,,', GOOD, header=HEADER)))
    assert table.frame["filename"].tolist() == ["a, b.jpg", "a.jpg"]
    assert table.types == ('A "320"', "A320")


def test_a_column_without_a_heading_has_its_number(tmp_path: Path) -> None:
    frame = read_label_table(_write(tmp_path, _table("a.jpg,A320,x,y", header="filename,typename,,"))).frame
    assert frame[["column 3", "column 4"]].to_numpy().tolist() == [["x", "y"]]


def test_ids_stay_whole_where_some_are_missing(tmp_path: Path) -> None:
    text = _table("a.jpg,A320,1", "b.jpg,B747,0", "c.jpg,A320,", header="filename,typename,typeid")
    assert read_label_table(_write(tmp_path, text)).frame["typeid"].tolist() == [1, 0, None]


def test_a_long_table_is_checked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aerofuse.ingest.label_table._ROWS_AT_A_TIME", 3)
    rows = [f"{number}.jpg,A320,{'Air' if number == 7 else ''},{number / 10},," for number in range(8)]
    frame = read_label_table(_write(tmp_path, _table(*rows))).frame
    assert list(frame["row"]) == list(range(2, 10))
    assert list(frame["clarity"]) == [number / 10 for number in range(8)]
    assert list(frame["airlinename"]) == [None] * 7 + ["Air"]
    with pytest.raises(ValueError, match=r"row 10, clarity '2': must be from 0 to 1"):
        read_label_table(_write(tmp_path, _table(*rows, "8.jpg,A320,,2,,")))


def test_a_backslash_separates_folders(tmp_path: Path) -> None:
    table = read_label_table(_write(tmp_path, _table("spring\\a.jpg,A320,,,,")))
    assert table.frame["filename"].item() == "spring/a.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it needs a header"),
        (_table(), "has a header and no photos"),
        ("file,typename\na.jpg,A320\n", "has no column 'filename'.*; it has: file, typename"),
        ("filename,type_name\na.jpg,A320\n", "no column 'typename'; is it 'type_name'"),
        ("filename;typename\na.jpg;A320\n", "separated by semicolons or tabs"),
        ("filename,typename,typename \na.jpg,A,B\n", "the column 'typename' twice"),
        (_table('a.jpg,"A320,,,,'), "is not a table"),
        (_table("a.jpg,,,,,"), r"row 2, typename '': every photo needs a type"),
        (_table(",A320,,,,"), "row 2, filename '': name the photo's file"),
        (_table(GOOD, "b.jpg,A320,,1.2,,"), r"row 3, clarity '1.2': must be from 0 to 1; a percentage"),
        (_table("a.jpg,A320,,,-0.1,"), r"row 2, block '-0.1': must be from 0 to 1"),
        (_table("a.jpg,A320,,sharp,,"), r"row 2, clarity 'sharp': write a number, or leave the cell empty"),
        (_table("a.jpg,A320,,nan,,"), r"row 2, clarity 'nan': write a number, or leave"),
        (_table('a.jpg,A320,,"0,5",,'), r"row 2, clarity '0,5': write it with a point"),
        (_table(GOOD, GOOD), r"rows 2, 3, filename 'a.jpg': listed more than once"),
        (_table(GOOD, "./a.jpg,A320,,,,"), r"rows 2, 3, filename 'a.jpg'"),
        (
            _table(GOOD, "b.jpg,a320,,,,"),
            r"typename: 'A320' \(row 2\), 'a320' \(row 3\) look alike; write one of them everywhere",
        ),
        (_table("a.jpg,A 320,,,,", "b.jpg,A  320,,,,"), "look alike; write one of them everywhere"),
        (_table(GOOD, "b.jpg,A320,AIR,,,"), r"airlinename: 'Air' \(row 2\), 'AIR' \(row 3\)"),
        (_table("../a.jpg,A320,,,,"), r"row 2, filename '../a.jpg': the path leaves data.root"),
        (_table("x/../../a.jpg,A320,,,,"), "the path leaves data.root"),
        (_table("/home/a.jpg,A320,,,,"), "write the path relative to data.root"),
        (_table("C:\\photos\\a.jpg,A320,,,,"), "write the path relative to data.root"),
        (_table(GOOD, "b.jpg,A320,Air, Inc,0.5,0.1,D"), "row 3: 7 values under 6 headings; quote values"),
        (_table("a.jpg,A320,N/A,,,"), r"row 2, airlinename 'N/A': leave the cell empty where it is not known"),
        (_table("a.jpg,A320,,,,unknown"), r"row 2, registration 'unknown': leave the cell empty"),
        (_table("a.jpg,?,,,,"), r"row 2, typename '\?': every photo needs a type"),
        (_table(GOOD, "b.jpg,A320,,,,d-abcd"), r"registration: 'D-ABCD' \(row 2\), 'd-abcd' \(row 3\) look alike"),
        (_table("a.jpg,A3\x0020,,,,"), "row 2: a character NUL, which no text has"),
        ("Filename,typename\na.jpg,A320\n", "no column 'filename'; is it 'Filename'"),
        ("filename,typename,split\na.jpg,A320,testing\n", "row 2, split 'testing': write train, validation or test"),
        ("filename,typename,split\na.jpg,A320,train\nb.jpg,A320,\n", "row 3, split '': .*take out the whole column"),
        ("filename,typename,given_split\na.jpg,A,test\n", "a column 'given_split', which the prepared table has"),
        ("filename,typename,row\na.jpg,A320,7\n", "a column 'row', which the prepared table has .*'my_row'"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_label_table(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.jpg,A320,0", "b.jpg,A320,1"], r"typename 'A320' has typeid 0 \(row 2\), 1 \(row 3\): one name has one id"),
        (["a.jpg,A320,0", "b.jpg,B747,0"], r"typeid 0 has typename 'A320' \(row 2\), 'B747' \(row 3\)"),
        (["a.jpg,A320,0", "b.jpg,B747,2"], r"the typeid values are \[0, 2\]; they must be 0 to 1 without gaps"),
        (["a.jpg,A320,0", "b.jpg,B747,"], "typename 'B747': no row gives its typeid"),
        (["a.jpg,A320,-1"], r"row 2, typeid '-1': an id is a whole number"),
        (["a.jpg,A320,0.5"], r"row 2, typeid '0.5': an id is a whole number"),
    ],
)
def test_ids_must_agree_with_names(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_label_table(_write(tmp_path, _table(*rows, header="filename,typename,typeid")))


def test_an_airline_id_needs_a_name(tmp_path: Path) -> None:
    text = _table("a.jpg,A320,,3", header="filename,typename,airlinename,airlineid")
    with pytest.raises(ValueError, match="row 2, airlineid 3: no airlinename beside it"):
        read_label_table(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1,2,3,", "row 2: a box needs all of xmin, ymin, xmax, ymax, and has xmin 1, ymin 2, xmax 3 alone"),
        ("5,2,3,9", r"row 2: the box \[5.0, 2.0, 3.0, 9.0\] is empty"),
        ("a,2,3,9", "row 2, xmin 'a': write a number"),
        ("-1,2,3,9", "row 2, xmin '-1'"),
    ],
)
def test_boxes_are_whole(tmp_path: Path, box: str, message: str) -> None:
    text = _table(f"a.jpg,A320,{box}", header="filename,typename,xmin,ymin,xmax,ymax")
    with pytest.raises(ValueError, match=message):
        read_label_table(_write(tmp_path, text))


def test_another_encoding_is_named_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 3: not UTF-8; save the table as `CSV UTF-8`"):
        read_label_table(_write(tmp_path, _table(GOOD, "b.jpg,Embraér,,,,"), "latin-1"))


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no label table .*labels.csv; data.labels in params.yaml names it"):
        read_label_table(tmp_path / "labels.csv")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    rows = [f"{number}.jpg,A320,,7,," for number in range(25)]
    with pytest.raises(ValueError, match="and 15 more"):
        read_label_table(_write(tmp_path, _table(*rows)))


@pytest.mark.parametrize(
    ("heading", "message"),
    [
        ("Clarity", "column 'Clarity': is it 'clarity'?"),
        ("AirlineName", "column 'AirlineName': is it 'airlinename'?"),
        ("air-line name", "column 'air-line name': is it 'airlinename'?"),
        ("airline", "column 'airline': is it 'airlinename'?"),
        ("Registration No.", "column 'Registration No.': is it 'registration'?"),
        ("blok", "column 'blok': is it 'block'?"),
        ("block\u200b", "column 'block\\u200b', with U+200B ZERO WIDTH SPACE: is it 'block'?"),
        ("type_id", "column 'type_id': is it 'typeid'?"),
        ("X_min", "column 'X_min': is it 'xmin'?"),
        ("Split", "column 'Split': is it 'split'?"),
    ],
)
def test_a_heading_that_is_nearly_one_of_ours_is_not_taken_for_the_users_own(
    tmp_path: Path, heading: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_label_table(_write(tmp_path, _table("a.jpg,A320,1", header=f"filename,typename,{heading}")))


def test_all_headings_that_are_nearly_ours_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)'AirlineName'.*'Clarity'.*'Block'.*'Registration'"):
        read_label_table(_write(tmp_path, _table(header="filename,typename,AirlineName,Clarity,Block,Registration")))


@pytest.mark.parametrize("heading", ["photographer", "type", "airport", "date", "id", "quality", "品质"])
def test_a_heading_of_the_users_own_is_kept(tmp_path: Path, heading: str) -> None:
    text = _table("a.jpg,A320,Air,x", header=f"filename,typename,airlinename,{heading}")
    assert read_label_table(_write(tmp_path, text)).frame[heading].item() == "x"


@pytest.mark.parametrize(
    ("column", "one", "other", "named"),
    [
        ("typename", "737-800", "737\u2013800", "U+2013 EN DASH"),
        ("airlinename", "Delta", "Delta\u200b", "U+200B ZERO WIDTH SPACE"),
        ("airlinename", "Delta", "Del\u00adta", "U+00AD SOFT HYPHEN"),
        ("airlinename", "Air France", "Air\u00a0France", "U+00A0 NO-BREAK SPACE"),
        ("airlinename", "AirFrance", "Air\u3164France", "U+3164 HANGUL FILLER"),
        ("registration", "N010A", "N010A\u200b", "U+200B ZERO WIDTH SPACE"),
        ("registration", "B-1234", "\u0412-1234", "U+0412 CYRILLIC CAPITAL LETTER VE"),
        ("registration", "D-ABCD", "D-\u0391BCD", "U+0391 GREEK CAPITAL LETTER ALPHA"),
        ("registration", "B-1234", "B\u22121234", "U+2212 MINUS SIGN"),
        ("registration", "B-1234", "\uff22-1234", "U+FF22 FULLWIDTH LATIN CAPITAL LETTER B"),
    ],
)
def test_spellings_that_look_alike_are_one_name_and_the_odd_character_is_named(
    tmp_path: Path, column: str, one: str, other: str, named: str
) -> None:
    values = [{"filename": f"{n}.jpg", "typename": "A320"} | {column: name} for n, name in enumerate((one, other))]
    cells = [",".join(value.get(heading, "") for heading in HEADER.split(",")) for value in values]
    with pytest.raises(ValueError, match="look alike; write one of them everywhere") as stop:
        read_label_table(_write(tmp_path, _table(*cells)))
    assert f"(row 3, with {named})" in str(stop.value)


def test_names_that_only_resemble_each_other_are_several(tmp_path: Path) -> None:
    rows = ["a.jpg,737-800,Аэрофлот,,,B-1234", "b.jpg,737800,Aeroflot,,,B1234", "c.jpg,737-80O,Аэросвит,,,B-l234"]
    assert len(read_label_table(_write(tmp_path, _table(*rows))).types) == 3


def test_two_files_are_two_files_however_their_names_resemble(tmp_path: Path) -> None:
    names = [
        "DSC1 2.jpg",
        "DSC12.jpg",
        "dsc12.jpg",
        "DSC1\u20132.jpg",
        "DSC1-2.jpg",
        "Zu\u0308rich.jpg",
        "Z\u00fcrich.jpg",
    ]
    table = read_label_table(_write(tmp_path, _table(*(f"{name},A320" for name in names))))
    assert list(table.frame["filename"]) == names


WORDS_FOR_NOTHING = """
n.a. N/A na NaN None NULL nil unknown Unknown. unk - -- --- ? ??? … #N/A #VALUE! #REF! #NAME? #DIV/0! #NUM! #NULL! #NV
#WERT! #BEZUG! #VALEUR! #NOM? #¡VALOR! #¿NOMBRE? #SPILL! Err:502 ##### TBD t.b.d. t.b.a. k.A. n.d. s/d s.o.
未知 无 無 待定 不明 不详 未定 暂无
\uff08无\uff09 \uff4e\uff0f\uff41 なし 該当なし 未確認 unbekannt inconnu inconnue desconocido
""".split()  # noqa: SIM905


@pytest.mark.parametrize(
    "word", [*WORDS_FOR_NOTHING, "not available", "non renseigné", "keine Angabe", "sin datos", "\u200b"]
)
def test_words_for_nothing_are_no_names(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match="cannot be used") as stop:
        read_label_table(_write(tmp_path, _table(f"a.jpg,{word},{word},,,{word}")))
    typename, airlinename, registration = str(stop.value).splitlines()[1:]
    assert typename.endswith(f"typename {word!r}: every photo needs a type; fill it in or take the row out")
    assert f"airlinename {word!r}: leave the cell empty where it is not known" in airlinename
    assert f"registration {word!r}: leave the cell empty where it is not known" in registration


@pytest.mark.parametrize(
    "name", ["NAC", "KA", "Nauru", "Aucun-Air", "TBA", "Value Jet", "#7", "Air Nil", "空港航空", "Ørn"]
)
def test_names_that_only_begin_like_nothing_are_names(tmp_path: Path, name: str) -> None:
    assert read_label_table(_write(tmp_path, _table(f"a.jpg,A320,{name}"))).airlines == (name,)
