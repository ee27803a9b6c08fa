import gzip
import io
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inferloop.core.errors import InvalidConfig, InvalidInput, NotFound
from inferloop.core.transform import FieldKind
from inferloop.data.datasets.dataset import Dataset

CHAT = 'text,intent,trust\nwhere is my card,card,1\n"two\nlines",refund,0.5\nWHERE  is my card,card,\nÄrger,refund,1\n'


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2), value).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat.csv"
    path.write_text(CHAT, encoding="utf-8")
    return path


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """A table beside a ZIP archive of the same name."""
    with zipfile.ZipFile(tmp_path / "signs.zip", "w") as archive:
        for index in range(6):
            archive.writestr(f"{index % 2}/{index}.png", png(index))
    rows = "".join(f"{index % 2}/{index}.png,{index % 2},{index // 2}\n" for index in range(6))
    (tmp_path / "signs.csv").write_text("file,label,track\n" + rows)
    return tmp_path / "signs.csv"


def test_a_csv_gives_samples_with_labels_and_weights(chat: Path):
    data = Dataset.load(chat, label="intent", weight="trust")
    assert (data.name, len(data), data.labels) == ("chat", 4, ("card", "refund"))
    assert [example.sample.fields["text"] for example in data][1] == "two\nlines"
    assert data.weights().tolist() == [1, 0.5, 1, 1]
    assert data.label_ids().tolist() == [0, 1, 0, 1]
    assert data[3].label == "refund"


def test_gzip_and_tabs_and_other_encodings_are_read(tmp_path: Path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(CHAT.encode()))
    (tmp_path / "b.tsv").write_bytes("text\tlabel\nÄrger\tx\n".encode("latin-1"))
    assert len(Dataset.load(tmp_path / "a.csv.gz", label="intent")) == 4
    assert Dataset.load(tmp_path / "b.tsv", encoding="latin-1")[0].sample.fields == {"text": "Ärger"}


@pytest.mark.parametrize(
    ("content", "columns", "says", "hint"),
    [
        (CHAT, {"label": "lable"}, "has no column 'lable'", "known: text, intent, trust"),
        (CHAT, {"label": "intent", "text": "txt"}, "has no column 'txt'", "known: text, intent, trust"),
        (CHAT, {"label": "intent", "group": ["x"]}, "has no column 'x'", "known: text, intent, trust"),
        ("text;label\na;b\n", {}, "has no column|say which column", "semicolon|known: text;label"),
        ("text;label\na;b\n", {"text": "text"}, "has no column 'text'", "is the delimiter a semicolon"),
        ('text,label\n"a b",b\n', {"delimiter": ";", "text": "text"}, "line 2", "is the delimiter a comma"),
        ("text,label\na\n", {}, "line 2 has 1 cells, there are 2 columns", ""),
        ("text,label\na,\n", {}, "line 2: no label in column 'label'", ""),
        ("text,text\na,b\n", {}, "has two columns named 'text'", ""),
        ("text,label\n", {}, "has no rows", ""),
        ("", {}, "is empty", ""),
        ('text,label\n"a,b\n', {}, "unexpected end of data", ""),
        ("f1,f2,label\n1,x,a\n", {"numbers": ["f*"]}, "line 2: a cell must be a number", ""),
        ("f1,label\n1,a\n", {"numbers": ["g*"]}, r"has no column like 'g\*'", "known: f1, label"),
        ("file,label\nx.png,a\n", {}, "say which column is what", "known: file, label"),
        ("text,label,t\nx,a,soon\n", {"time": "t"}, "line 2, column 't' is neither ISO 8601 nor a number", ""),
        ("text,label,w\nx,a,-1\n", {"weight": "w"}, "the weight is -1.0", ""),
    ],
)
def test_a_table_that_does_not_fit_says_what_and_where(tmp_path: Path, content, columns, says, hint):
    (tmp_path / "x.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=says) as caught:
        Dataset.load(tmp_path / "x.csv", **columns)
    assert any(part in caught.value.hint for part in hint.split("|"))


def test_a_wrong_encoding_names_the_line_and_the_way_out(tmp_path: Path):
    (tmp_path / "x.csv").write_bytes(b"text,label\nok,a\n\xc4rger,b\n")
    with pytest.raises(InvalidInput, match=r"is not utf-8: line 3, byte 16") as caught:
        Dataset.load(tmp_path / "x.csv")
    assert "latin-1" in caught.value.hint


def test_what_is_not_there_or_not_read_is_named(tmp_path: Path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.zip").write_bytes(b"<html>")
    (tmp_path / "bad.csv.gz").write_bytes(b"plain")
    (tmp_path / "bad.npz").write_bytes(b"plain")
    with pytest.raises(NotFound, match="no data set at"):
        Dataset.load(tmp_path / "gone.csv")
    with pytest.raises(InvalidInput, match="a format that is not read"):
        Dataset.load(tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match="is no ZIP archive, or a damaged one: HTML text"):
        Dataset.load(tmp_path / "bad.zip")
    with pytest.raises(InvalidInput, match="is damaged or no gzip file: text, 5 bytes"):
        Dataset.load(tmp_path / "bad.csv.gz")
    with pytest.raises(InvalidInput, match="is no NPZ file"):
        Dataset.load(tmp_path / "bad.npz")


def test_an_unknown_option_is_a_problem_of_the_config(chat: Path):
    with pytest.raises(InvalidConfig, match="data set: lable: is not a known key; did you mean 'label'"):
        Dataset.load(chat, lable="intent")


def test_images_are_read_from_the_archive_beside_the_table(signs: Path):
    data = Dataset.load(signs, image="file", group=["label", "track"])
    assert data.fields == {"image": FieldKind.IMAGE}
    assert data[3].sample.fields["image"] == data[3].sample.raw == png(3)
    assert data[3].group == "1|1"
    assert sorted(path.name for path in signs.parent.iterdir() if "inferloop" not in path.name) == ["signs.csv", "signs.zip"]


def test_an_archive_is_read_from_many_threads_and_after_pickling(signs: Path):
    data = pickle.loads(pickle.dumps(Dataset.load(signs, image="file")))
    failed: list[bool] = []

    def read() -> None:
        failed.extend(data[index].sample.raw != png(index) for _ in range(20) for index in range(6))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [False] * 480


def test_a_file_that_the_archive_lacks_is_named_when_it_is_read(signs: Path):
    signs.write_text("file,label\nnope.png,a\n")
    with pytest.raises(NotFound, match=r"no file 'nope\.png' in .*signs\.zip"):
        Dataset.load(signs, image="file")[0]


def test_a_file_name_cannot_leave_the_folder(tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text("file,label\n../secret,a\n")
    with pytest.raises(InvalidInput, match=r"the file '\.\./secret' is outside of"):
        Dataset.load(tmp_path / "data" / "x.csv", image="file")[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_folder_a_class_is_a_data_set_also_in_an_archive(tmp_path: Path, packed: bool, top: str):
    names = {f"{top}{label}/{index}.png": png(index) for label in ("cat", "dog") for index in range(2)}
    path = tmp_path / ("pets.zip" if packed else "pets")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            for name, body in names.items():
                archive.writestr(name, body)
    else:
        for name, body in names.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(body)
    data = Dataset.load(path)
    assert [row.label for row in data.rows] == ["cat", "cat", "dog", "dog"]
    assert data[3].sample.fields == {"image": png(1)}


def test_a_folder_of_mixed_or_no_files_is_refused(tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InvalidInput, match="has no images"):
        Dataset.load(tmp_path)
    (tmp_path / "a" / "1.png").write_bytes(png(1))
    (tmp_path / "a" / "1.txt").write_text("x")
    with pytest.raises(InvalidInput, match="images, recordings and texts together"):
        Dataset.load(tmp_path)


def test_jsonl_takes_keys_and_paths(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"m": {"text": "hi"}, "y": 1, "x": [1, 2]}\n\n{"m": {"text": "ho"}, "y": 10, "x": [3, 4]}\n')
    data = Dataset.load(path, text="$.m.text", signal="x", label="y")
    assert data.labels == ("1", "10")
    assert data[1].sample.fields["text"] == "ho"
    assert data[1].sample.fields["signal"].tolist() == [3, 4]
    with pytest.raises(InvalidInput, match=r"line 1 has no key 'label'") as caught:
        Dataset.load(path, text="$.m.text")
    assert caught.value.hint == "known: m, y, x"


def test_a_line_that_is_no_json_is_named(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n{"text"\n')
    with pytest.raises(InvalidInput, match="line 2: no JSON"):
        Dataset.load(path)


def test_npz_takes_arrays_by_name_and_never_unpickles(tmp_path: Path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    np.savez(tmp_path / "x.npz", x=pixels, y=np.array([2, 0, 10]))
    data = Dataset.load(tmp_path / "x.npz", image="x", label="y")
    assert data.labels == ("0", "2", "10")
    np.testing.assert_array_equal(data[1].sample.fields["image"], pixels[1])
    with pytest.raises(InvalidInput, match="has no array 'z'"):
        Dataset.load(tmp_path / "x.npz", image="z", label="y")
    np.savez(tmp_path / "bad.npz", x=pixels, y=np.array([{}, {}, {}], dtype=object))
    with pytest.raises(InvalidInput, match="holds Python objects"):
        Dataset.load(tmp_path / "bad.npz", image="x", label="y")


def test_numbers_of_many_columns_are_one_array_and_missing_ones_are_nan(tmp_path: Path):
    (tmp_path / "x.csv").write_text("f1,f2,gas\n1,2.5,a\nNA,,b\n")
    data = Dataset.load(tmp_path / "x.csv", numbers=["f*"], label="gas")
    np.testing.assert_array_equal(data.values("numbers"), [[1, 2.5], [np.nan, np.nan]])


def test_a_table_without_a_header_has_numbered_columns(tmp_path: Path):
    (tmp_path / "x.csv").write_text("1,2,a\n3,4,b\n")
    data = Dataset.load(tmp_path / "x.csv", header=False, numbers=["0", "1"], label="2")
    assert data.labels == ("a", "b")
    assert data.values("numbers")[1].tolist() == [3, 4]


def test_the_digest_follows_content_label_and_order_only(chat: Path, signs: Path):
    data = Dataset.load(chat, label="intent")
    again = Dataset.load({"path": chat, "label": "intent", "name": "other"})
    assert data.digest == again.digest
    relabeled = Dataset.load(chat, label="text")
    assert len({data.digest, data.select([1, 0, 2, 3]).digest, data.select([0, 1, 2]).digest, relabeled.digest}) == 4
    before = Dataset.load(signs, image="file").digest
    with zipfile.ZipFile(signs.with_suffix(".zip"), "w") as archive:
        for index in range(6):
            archive.writestr(f"{index % 2}/{index}.png", png(index + 1))
    assert Dataset.load(signs, image="file").digest != before


def test_repeated_inputs_are_dropped_whatever_their_case_and_spaces(chat: Path):
    data = Dataset.load(chat, label="intent").dedupe()
    assert [row.values[0] for row in data.rows] == ["where is my card", "two\nlines", "Ärger"]
    assert data.lineage()["deduplicated"] == 1


def test_what_another_set_has_can_be_left_out(chat: Path):
    data = Dataset.load(chat, label="intent")
    assert len(data.without(data.select([0]))) == 2


def test_labels_can_be_dropped_and_must_be_known(chat: Path):
    assert len(Dataset.load(chat, label="intent", drop_labels=["card"])) == 2
    with pytest.raises(InvalidInput, match="has rows with the label 'refund', which is not known"):
        Dataset.load(chat, label="intent").label_ids(["card"])


def test_a_data_set_can_be_made_of_values():
    data = Dataset.of("x", {"text": ["a", "b"]}, ["p", "q"], kinds={"text": FieldKind.TEXT}, groups=["g", "h"])
    assert data[1].group == "h"
    assert data.grouped_by == ("groups",)
    with pytest.raises(InvalidInput, match="has 2 labels and 1 of text"):
        Dataset.of("x", {"text": ["a"]}, ["p", "q"], kinds={"text": FieldKind.TEXT})


def test_an_unknown_field_names_the_known_ones(chat: Path):
    with pytest.raises(InvalidInput, match="has no field 'x'"):
        Dataset.load(chat, label="intent").values("x")
