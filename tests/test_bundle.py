"""Bundles: written whole or not at all, refused when altered."""

import json
import os

import pytest

from edgeseg.bundle import check_identity, load_bundle, writing_bundle
from edgeseg.errors import BundleError

RECIPE = {"network": "net", "precision": "fp32", "backend": "onnxruntime"}


def manifest(recipe: dict = RECIPE) -> dict:
    return {
        "recipe": recipe,
        "rebuild": "edgeseg build --model net -o here",
        "backend": {"backend": "onnxruntime", "version": "1.2"},
    }


def make(target, content: bytes = b"weights", recipe: dict = RECIPE, force: bool = False):
    with writing_bundle(target, same_recipe=recipe, force=force) as writer:
        (writer.staging / "model.onnx").write_bytes(content)
        return writer.commit(manifest(recipe))


def hidden_files(folder) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_round_trip(tmp_path):
    made = make(tmp_path / "b")
    loaded = load_bundle(tmp_path / "b")
    assert loaded.manifest == made.manifest
    assert loaded.manifest["files"]["model.onnx"]["bytes"] == 7
    assert hidden_files(tmp_path) == []


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_an_altered_file_is_refused(tmp_path, name):
    make(tmp_path / "b")
    file = tmp_path / "b" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"altered|not a manifest"):
        load_bundle(tmp_path / "b")


def test_a_missing_file_names_itself_and_the_way_out(tmp_path):
    make(tmp_path / "b")
    (tmp_path / "b" / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model.onnx is missing; rebuild it: edgeseg build --model net"):
        load_bundle(tmp_path / "b")


def test_a_manifest_that_reaches_outside_is_refused(tmp_path):
    from edgeseg.bundle import _manifest_digest

    make(tmp_path / "b")
    file = tmp_path / "b" / "manifest.json"
    data = json.loads(file.read_text())
    data["files"]["../secret"] = {"sha256": "0", "bytes": 0}
    data["manifest_sha256"] = _manifest_digest(data)
    file.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="outside the bundle"):
        load_bundle(tmp_path / "b")


def test_another_schema_version_names_both(tmp_path):
    make(tmp_path / "b")
    file = tmp_path / "b" / "manifest.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(BundleError, match="version 99, this edgeseg reads 1"):
        load_bundle(tmp_path / "b")


def test_not_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        load_bundle(tmp_path)


def test_identity_names_both_sides(tmp_path):
    bundle = make(tmp_path / "b")
    check_identity(bundle, {"backend": "onnxruntime", "version": "1.2"})
    with pytest.raises(BundleError, match=r"made for version 1\.2; here is version 9\.9"):
        check_identity(bundle, {"backend": "onnxruntime", "version": "9.9"})


def test_a_failed_build_leaves_the_old_bundle_and_no_litter(tmp_path):
    make(tmp_path / "b", b"old")
    with pytest.raises(RuntimeError), writing_bundle(tmp_path / "b", same_recipe=RECIPE) as writer:
        (writer.staging / "model.onnx").write_bytes(b"new")
        raise RuntimeError
    assert (tmp_path / "b" / "model.onnx").read_bytes() == b"old"
    load_bundle(tmp_path / "b")
    assert hidden_files(tmp_path) == []


def test_ctrl_c_leaves_no_litter(tmp_path):
    with pytest.raises(KeyboardInterrupt), writing_bundle(tmp_path / "b") as writer:
        (writer.staging / "model.onnx").write_bytes(b"new")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_rebuild_replaces_and_another_recipe_does_not(tmp_path):
    make(tmp_path / "b", b"one")
    make(tmp_path / "b", b"two")
    assert (tmp_path / "b" / "model.onnx").read_bytes() == b"two"
    other = RECIPE | {"precision": "int8"}
    with pytest.raises(BundleError, match="holds another bundle; --force"):
        make(tmp_path / "b", b"three", other)
    make(tmp_path / "b", b"three", other, force=True)
    assert (tmp_path / "b" / "model.onnx").read_bytes() == b"three"


def test_a_folder_that_is_no_bundle_is_never_touched(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle, so it is left alone"):
        make(tmp_path / "b", force=True)
    assert (tmp_path / "b" / "thesis.tex").read_text() == "years of work"


def test_two_builds_into_one_place(tmp_path):
    with writing_bundle(tmp_path / "b") as first:
        with pytest.raises(BundleError, match="another build is writing"), writing_bundle(tmp_path / "b"):
            pass
        (first.staging / "model.onnx").write_bytes(b"first")
        first.commit(manifest())
    assert (tmp_path / "b" / "model.onnx").read_bytes() == b"first"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BundleError, match="cannot write into"):
        make(tmp_path / "b")


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "b").write_text("a file")
    with pytest.raises(BundleError, match="is a file"):
        make(tmp_path / "b")


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("a file")
    with pytest.raises(BundleError, match="cannot write into"):
        make(tmp_path / "f" / "b")
