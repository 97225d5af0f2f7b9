"""Files of modalities: what is written comes back, and what is wrong is told."""

import numpy as np
import pytest

from pyseq.data.modalities import Modality, ModalityData, load_npz, save_npz, synthetic
from pyseq.errors import UserError


def test_every_kind_comes_back(tmp_path):
    data = synthetic(60, seed=0, missing=0.2, duplicates=1)
    save_npz(tmp_path / "kept.npz", data)
    again = load_npz(tmp_path / "kept.npz")
    assert again.name == "kept"
    assert again.class_names == data.class_names
    np.testing.assert_array_equal(again.label, data.label)
    np.testing.assert_array_equal(again.group, data.group)
    np.testing.assert_array_equal(again.present, data.present)
    assert again.names == data.names
    for mine, theirs in zip(again.modalities, data.modalities, strict=True):
        assert mine.kind == theirs.kind
        assert mine.vocabulary == theirs.vocabulary
        assert mine.values.dtype == theirs.values.dtype
        np.testing.assert_array_equal(mine.values, theirs.values)
    np.testing.assert_array_equal(again["graph"].adjacency, data["graph"].adjacency)
    np.testing.assert_array_equal(again["graph"].nodes, data["graph"].nodes)


def test_a_class_that_no_row_has_comes_back(tmp_path):
    data = ModalityData(
        name="x",
        modalities=(Modality("x", "vector", np.ones((4, 1), np.float32)),),
        label=np.array([0, 0, 2, 2]),
        class_names=("a", "b", "c"),
        group=None,
        present=np.ones((4, 1), bool),
    )
    save_npz(tmp_path / "x.npz", data)
    again = load_npz(tmp_path / "x.npz")
    assert again.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(again.label, data.label)


def written(tmp_path, **arrays):
    given = {"x": np.arange(8.0).reshape(4, 2), "label": np.array([0, 1, 0, 1])}
    path = tmp_path / "some.npz"
    arrays = {key.replace("__", "."): value for key, value in {**given, **arrays}.items()}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.ones((4, 2)), "vector"),
        (np.ones((4, 2), bool), "vector"),
        (np.ones((4, 2), np.float16), "vector"),
        (np.ones((4, 2, 3), np.float32), "sequence"),
        (np.ones((4, 2, 3), np.int16), "sequence"),
        (np.ones((4, 2), np.uint8), "tokens"),
        (np.ones((4, 2), ">i4"), "tokens"),
    ],
)
def test_kinds_follow_from_axes_and_dtype(tmp_path, values, kind):
    modality = load_npz(written(tmp_path, x=values))["x"]
    assert modality.kind == kind
    assert modality.vocabulary == (2 if kind == "tokens" else 0)
    np.testing.assert_array_equal(modality.values, np.ones(values.shape))


def test_a_graph_without_counts_has_all_its_nodes(tmp_path):
    path = written(tmp_path, x=np.ones((4, 3, 1)), x__adjacency=np.ones((4, 3, 3), np.int8))
    modality = load_npz(path)["x"]
    assert modality.kind == "graph"
    np.testing.assert_array_equal(modality.nodes, 3)
    np.testing.assert_array_equal(modality.adjacency, 1)


@pytest.mark.parametrize(
    ("label", "numbers", "names"),
    [
        (np.array([7, -1, 7, -1]), [1, 0, 1, 0], ("-1", "7")),
        (np.array([2.0, 1.0, 2.0, 1.0]), [1, 0, 1, 0], ("1", "2")),
        (np.array(["oak", "ash", "oak", "ash"]), [1, 0, 1, 0], ("ash", "oak")),
        (np.array([True, False, True, False]), [1, 0, 1, 0], ("False", "True")),
    ],
)
def test_labels_are_numbers_or_words(tmp_path, label, numbers, names):
    data = load_npz(written(tmp_path, label=label, group=label))
    np.testing.assert_array_equal(data.label, numbers)
    np.testing.assert_array_equal(data.group, numbers)
    assert data.class_names == names


def test_what_is_missing_may_be_nan(tmp_path):
    values = np.arange(8.0).reshape(4, 2)
    values[1] = np.nan
    path = written(tmp_path, x=values, x__present=np.array([1, 0, 1, 1]))
    data = load_npz(path)
    np.testing.assert_array_equal(data.present[:, 0], [True, False, True, True])
    np.testing.assert_array_equal(data["x"].values, [[0, 1], [0, 0], [4, 5], [6, 7]])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"label": None}, "has no labels; .* there are x$"),
        ({"label": np.array([0, 1, np.nan, 1])}, "label is nan at row 2; a whole number or a word"),
        ({"label": np.array([0, 1, 0.5, 1])}, r"label is 0\.5 at row 2"),
        ({"label": np.array(["a", "b", "", "b"])}, "label is missing at row 2"),
        ({"label": np.array([[0], [1], [0], [1]])}, r"label has shape \(4, 1\); \(N,\) fits"),
        ({"label": np.array([0, 0, 0, 1])}, "class 1 has one member; at least two fit"),
        ({"label": np.array([0, 0, 0, 0])}, "has 1 different labels; at least two classes fit"),
        ({"label": np.array([0, 1, 0])}, "class 1 has one member"),
        ({"label": np.array([0, 1, 0, 1, 1])}, "different lengths: x 4, label 5, present 5"),
        ({"y": np.ones((5, 2))}, "different lengths: x 4, y 5, label 4"),
        ({"group": np.array([1, 2])}, "different lengths: x 4, label 4, present 4, group 2"),
        ({"group": np.array([1, 2, np.inf, 1])}, "group is inf at row 2"),
        (
            {"x": np.array([[0, 1], [2, np.nan], [4, 5], [6, 7]])},
            "modality x holds nan at row 1, feature 1; finite numbers fit",
        ),
        ({"x": np.full((4, 2), 1e300)}, "modality x holds inf at row 0, feature 0"),
        ({"x": np.array([[0], [-1], [0], [0]])}, "row 1, step 0; .* floats$"),
        ({"x": np.ones(4)}, r"modality x is float64 of shape \(4,\); numbers of shape \(N, F\)"),
        ({"x": np.array(["a", "b", "c", "d"])}, "modality x is <U1 of shape"),
        ({"z__adjacency": np.ones((4, 2, 2))}, "holds z.adjacency, which belongs to no modality"),
        ({"x__colour": np.ones(4)}, "holds x.colour, which belongs to no modality"),
        ({"x__present": np.ones(3)}, r"x\.present has shape \(3,\); \(4,\) of False and True"),
        ({"x__present": np.array([1, 0, 2, 1])}, r"x\.present"),
        ({"x": np.ones((4, 2, 1)), "x__adjacency": np.ones((3, 2, 2))}, "x.adjacency has shape"),
        ({"x": np.ones((4, 2, 1)), "x__adjacency": np.array(1.0)}, r"x.adjacency has shape \(\)"),
        ({"x__nodes": np.ones(4, int)}, r"holds x\.nodes; it fits a graph"),
        (
            {"x": np.ones((4, 2, 1)), "x__adjacency": np.full((4, 2, 2), "a")},
            "x.adjacency is <U1; numbers fit",
        ),
        (
            {
                "x": np.ones((4, 2, 1)),
                "x__adjacency": np.ones((4, 2, 2)),
                "x__nodes": np.full(4, np.nan),
            },
            "x.nodes is float64; whole numbers fit",
        ),
        ({"x": np.ones((4, 2), int), "x__vocabulary": np.array([2])}, r"x.vocabulary is \[2\]"),
        ({"x": np.ones((4, 2), int), "x__vocabulary": np.array(1)}, "holds token 1 at row 0"),
        ({"x": np.ones((4, 2, 1)), "x__adjacency": np.ones((4, 2, 3))}, r"\(4, 2, 2\) and \(4,\)"),
        ({"x": np.full((4, 2), 10**12)}, "a vocabulary of 1000000000001; 1 to 1000000 fit; whole"),
        ({"x": np.full((4, 2), 2**63 - 1)}, "a vocabulary of 9223372036854775808; 1 to 1000000"),
        ({"x": np.full((4, 2), 2**64 - 1, np.uint64)}, "a vocabulary of 9223372036854775808;"),
        ({"class_names": np.array(["a"])}, r"has 1 class_names; labels 0\.\.0 fit"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path, arrays, words):
    with pytest.raises(UserError, match=words) as error:
        load_npz(written(tmp_path, **arrays))
    assert "\n" not in str(error.value)


def test_files_of_another_kind(tmp_path):
    text, single, objects = (tmp_path / name for name in ("a.npz", "b.npz", "c.npz"))
    text.write_text("not a zip")
    with single.open("wb") as file:
        np.save(file, np.ones(3))
    np.savez(objects, x=np.array([{}, {}], object), label=np.array([0, 1]))
    (tmp_path / "empty.npz").touch()
    whole = written(tmp_path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for path, words in (
        (text, "a.npz cannot be read"),
        (single, "b.npz holds one array; an .npz with names fits"),
        (objects, "c.npz cannot be read; .* without Python objects"),
        (tmp_path / "empty.npz", "empty.npz cannot be read"),
        (tmp_path / "cut.npz", "cut.npz cannot be read"),
        (tmp_path / "none.npz", "none.npz cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with pytest.raises(UserError, match=words):
            load_npz(path)


def test_a_modality_with_a_reserved_name_is_not_written(tmp_path):
    modality = Modality("group", "vector", np.ones((4, 1), np.float32))
    data = ModalityData(
        "x", (modality,), np.array([0, 1, 0, 1]), ("a", "b"), None, np.ones((4, 1), bool)
    )
    with pytest.raises(UserError, match="cannot be kept as group"):
        save_npz(tmp_path / "x.npz", data)
