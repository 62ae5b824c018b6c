"""Models of several files: what they are called, and folders that have them under their own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles, check_file_name, folder_of


def files(folder: Path, **named: str) -> ModelFiles:
    """Files by their names in the model (`.` is written `_dot_`), each lying where its value says."""
    found = {}
    for name, place in named.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        found[name.replace("_dot_", ".")] = path
    return ModelFiles(weights=next(iter(found.values())), named=found)


def test_files_that_lie_together_are_used_where_they_are(tmp_path: Path) -> None:
    found = files(tmp_path, a_dot_json="a.json", b_dot_bin="b.bin")
    with folder_of(found) as folder:
        assert folder == tmp_path


def test_a_file_in_a_folder_of_its_own_counts_too(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.json").write_text("c")
    found = files(tmp_path, a_dot_json="a.json")
    both = ModelFiles(weights=found.weights, named={**found.named, "sub/c.json": tmp_path / "sub" / "c.json"})
    with folder_of(both) as folder:
        assert folder == tmp_path


def test_blobs_get_their_names_back_for_as_long_as_that_is_needed(tmp_path: Path) -> None:
    found = files(tmp_path, config_dot_json="blobs/1", w_dot_bin="blobs/2")
    with folder_of(found) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "w.bin"]
        assert (folder / "w.bin").read_text() == "w_dot_bin"
    assert not folder.exists()
    assert (tmp_path / "blobs" / "1").exists()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:\\x", "", "a\0b", "..\\x"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadModelFile, match="relative"):
        check_file_name(name)
    found = files(tmp_path, a_dot_json="blobs/1")
    bad = ModelFiles(weights=found.weights, named={**found.named, name: found.weights})
    with pytest.raises(BadModelFile), folder_of(bad):
        pass


def test_reading_says_what_is_missing(tmp_path: Path) -> None:
    found = files(tmp_path, a_dot_json="a.json")
    assert found.read("a.json", 100) == b"a_dot_json"
    with pytest.raises(BadModelFile, match=r"no file b\.json"):
        found.read("b.json", 100)
    with pytest.raises(BadModelFile, match="larger than 2"):
        found.read("a.json", 2)
    (tmp_path / "a.json").unlink()
    with pytest.raises(BadModelFile, match=r"a\.json cannot be read"):
        found.read("a.json", 100)


def test_files_can_be_replaced_in_a_folder_of_links(tmp_path: Path) -> None:
    found = files(tmp_path, config_dot_json="config.json", w_dot_bin="w.bin")
    with folder_of(found, instead={"config.json": b"checked", "sub/more.json": b"{}"}) as folder:
        assert folder != tmp_path
        assert (folder / "config.json").read_bytes() == b"checked"
        assert (folder / "sub" / "more.json").read_bytes() == b"{}"
        assert (folder / "w.bin").read_text() == "w_dot_bin"
    assert (tmp_path / "config.json").read_text() == "config_dot_json"
    with pytest.raises(BadModelFile), folder_of(found, instead={"../x": b""}):
        pass
