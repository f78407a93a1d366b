"""edgeseg inspect."""

from pathlib import Path

import typer

from edgeseg.cli.mixed_precision import print_precision, share_in_words
from edgeseg.cli.output import JSON_OPTION, human_bytes, print_json


def inspect(
    bundle: Path = typer.Argument(help="A bundle that `edgeseg build` made."),
    layers: bool = typer.Option(False, "--layers", help="The engine layer by layer, where the backend can tell."),
    json: bool = JSON_OPTION,
) -> None:
    """What is in a bundle: network, precision, rewrites, verification, files; every file is checked on the way."""
    from edgeseg.bundle import load_bundle

    loaded = load_bundle(bundle)
    document = dict(loaded.manifest) | {"verification": loaded.verification}
    if layers:
        document["layers"] = _layers(loaded)
    if json:
        print_json(document)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    manifest = loaded.manifest
    table.add_row("network", f"{manifest['model']['name']}, {manifest['model']['params'] / 1e6:.2f} M parameters")
    table.add_row("weights", manifest["model"]["weights"])
    table.add_row("classes", f"{len(manifest['label_set']['classes'])} ({manifest['label_set']['name']})")
    table.add_row("input", f"{manifest['input']['name']} {manifest['input']['shape']}")
    table.add_row("output", f"{manifest['output']['name']} {manifest['output']['shape']}")
    table.add_row("precision", manifest["precision"])
    table.add_row("backend", ", ".join(f"{k} {v}" if k != "backend" else v for k, v in manifest["backend"].items()))
    gmacs = manifest["gmacs"]
    table.add_row(
        "compute",
        f"{gmacs['published']:.2f} GMACs published, {gmacs['deployed']:.2f} deployed{share_in_words(manifest)}",
    )
    for rewrite in manifest["rewrites"]:
        saved = (rewrite["macs_before"] - rewrite["macs_after"]) / 1e9
        table.add_row("rewrite", f"{rewrite['name']}: {rewrite['applied']} times, {saved:.2f} GMACs saved")
    gate = loaded.verification
    table.add_row(
        "gate",
        f"{gate['label_agreement']:.2%} of pixels, agreement-mIoU {100 * gate['agreement_miou']:.2f} "
        f"on {gate['images']} images; computed with {gate['executed_with']}",
    )
    for name, file in manifest["files"].items():
        table.add_row("file", f"{name}  {human_bytes(file['bytes'])}  sha256 {file['sha256'][:16]}…")
    table.add_row("rebuild", manifest["rebuild"])
    for note in manifest["notes"]:
        table.add_row("note", note)
    for finding in gate.get("findings", ()):
        table.add_row(finding["severity"], finding["message"])
    console.print(table)
    print_precision(manifest)
    for layer in document.get("layers") or []:
        console.print("  ".join(str(value) for value in layer.values()), soft_wrap=True)


def _layers(bundle) -> list[dict] | None:
    """From the running engine where it can run here, else what its build log said."""
    from edgeseg.backends import BACKENDS
    from edgeseg.bundle import check_identity

    backend = BACKENDS[bundle.manifest["backend"]["backend"]]
    if not backend.probe().can_run:
        return bundle.manifest["engine"]["details"].get("layers")
    check_identity(bundle, backend.identity())
    with backend.open(bundle.path, bundle.manifest["engine"]["file"], bundle.manifest) as session:
        return session.layers()
