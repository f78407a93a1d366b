"""The bundle: a directory that holds a deployable network and says what it is, written whole or not at all.

model.onnx           the final ONNX: rewritten, with its casts or Q/DQ
engine.*             the backend's own file, where it has one
manifest.json        what it is, how it was made, and the SHA-256 of every file
verification.json    how it compares with the FP32 reference
scales.json          INT8 only
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BundleError
from edgeseg.files import sync

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: dict

    @property
    def verification(self) -> dict:
        return json.loads((self.path / "verification.json").read_text())

    @property
    def engine_bytes(self) -> int:
        """Size of what the backend loads, in bytes."""
        engine = self.manifest["engine"]
        names = {engine["file"], *engine["files"]}
        return sum(self.manifest["files"][name]["bytes"] for name in names)

    def report(self) -> dict:
        """The JSON document of `edgeseg build`."""
        manifest = self.manifest
        verification = self.verification
        return {
            "bundle": str(self.path),
            "model": manifest["model"]["name"],
            "weights": manifest["model"]["weights"],
            "backend": manifest["backend"]["backend"],
            "precision": manifest["precision"],
            "engine_file": manifest["engine"]["file"],
            "engine_bytes": self.engine_bytes,
            "params": manifest["model"]["params"],
            "gmacs": manifest["gmacs"],
            "height": manifest["preprocess"]["size"][0],
            "width": manifest["preprocess"]["size"][1],
            "num_classes": len(manifest["label_set"]["classes"]),
            "rewrites": manifest["rewrites"],
            "verification": verification,
            "notes": manifest["notes"],
        }


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and check every file against the manifest.

    Raises:
        BundleError: not a bundle, an unknown schema, a missing, altered or surplus file.
    """
    manifest = _read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{path} is incomplete: {name} is missing; rebuild it: {manifest['rebuild']}")
        found = sha256_of_file(file)
        if found != expected["sha256"]:
            raise BundleError(
                f"{file} was altered: its SHA-256 is {found[:12]}…, the manifest says {expected['sha256'][:12]}…; "
                f"it is not loaded. Rebuild it: {manifest['rebuild']}"
            )
    return Bundle(path, manifest)


def check_identity(bundle: Bundle, identity: dict) -> None:
    """Refuse a bundle that was made for another backend version, GPU or platform than the one at hand."""
    made_for = bundle.manifest["backend"]
    different = [key for key in made_for if made_for[key] != identity.get(key)]
    if different:
        theirs = ", ".join(f"{key} {made_for[key]}" for key in different)
        ours = ", ".join(f"{key} {identity.get(key)}" for key in different)
        raise BundleError(
            f"{bundle.path} was made for {theirs}; here is {ours}. "
            f"It was verified for that alone: install that, or rebuild it: {bundle.manifest['rebuild']}"
        )


class BundleWriter:
    """A staging directory beside the target; `commit` swaps it in, and leaving without a commit leaves no trace."""

    def __init__(self, staging: Path, target: Path):
        self.staging = staging
        self.target = target

    def commit(self, manifest: dict) -> Bundle:
        """Add the manifest, flush everything to disk, and put the directory in the target's place."""
        files = sorted(p for p in self.staging.rglob("*") if p.is_file())
        manifest = {
            "schema_version": SCHEMA_VERSION,
            **manifest,
            "files": {
                p.relative_to(self.staging).as_posix(): {"sha256": sha256_of_file(p), "bytes": p.stat().st_size}
                for p in files
            },
        }
        manifest["manifest_sha256"] = _manifest_digest(manifest)
        write_json(self.staging / MANIFEST, manifest)
        for file in [*files, self.staging / MANIFEST]:
            sync(file)
        sync(self.staging)
        self.staging.chmod(0o755)
        _swap(self.staging, self.target)
        sync(self.target.parent)
        return Bundle(self.target, manifest)


@contextlib.contextmanager
def writing_bundle(target: Path, *, same_recipe: dict | None = None, force: bool = False) -> Iterator[BundleWriter]:
    """Reserve `target` for one build.

    An existing bundle is replaced at the commit when it was made by the same recipe (a rebuild) or with `force`. A
    directory that is no bundle is never touched.

    Raises:
        BundleError: the place is taken, cannot be written, or another build is at work on it.
    """
    target = target.absolute()
    _check_target(target, same_recipe, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = (target.parent / f".{target.name}.lock").open("a")
    except OSError as error:
        raise BundleError(
            f"cannot write into {target.parent}: {error.strerror}; choose another place with -o"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BundleError(f"another build is writing {target}; wait for it, or choose another -o") from error
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            yield BundleWriter(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def write_json(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_manifest(path: Path) -> dict:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}; `edgeseg build -o DIR` makes one")
    try:
        manifest = json.loads(file.read_text())
        version = manifest["schema_version"]
        stated = manifest["manifest_sha256"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is not a manifest of edgeseg; rebuild the bundle") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file} has schema version {version}, this edgeseg reads {SCHEMA_VERSION}; rebuild the bundle"
        )
    if stated != _manifest_digest(manifest):
        raise BundleError(f"{file} was altered: its contents do not match its own SHA-256; rebuild the bundle")
    for name in manifest["files"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{file} names a file outside the bundle: {name}; it is not loaded")
    return manifest


def _manifest_digest(manifest: dict) -> str:
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _check_target(target: Path, same_recipe: dict | None, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise BundleError(f"{target} is a file; choose another place with -o")
    if not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise BundleError(f"{target} exists and is not a bundle, so it is left alone; choose another place with -o")
    if force:
        return
    try:
        existing = _read_manifest(target)["recipe"]
    except (BundleError, KeyError):
        existing = None
    if existing != same_recipe:
        raise BundleError(f"{target} holds another bundle; --force replaces it, -o chooses another place")


def _swap(staging: Path, target: Path) -> None:
    """Put `staging` where `target` is. The old one is set aside first and comes back if the second step fails."""
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = aside / "bundle"
    try:
        target.rename(old)
        staging.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
