"""Checkpoints by name from the Hugging Face Hub; the one place that may use the network."""

from __future__ import annotations

from pathlib import Path

from edgeseg.errors import CheckpointError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in order of preference


def download_from_hub(name: str) -> Path:
    """The local path of the weights of ``ORG/NAME`` or ``ORG/NAME@REVISION``, its config.json beside it.

    What huggingface_hub has already in its cache is not fetched again, and serves without a network.

    Raises:
        CheckpointError: for a name that does not exist, without a network, or without huggingface_hub.
    """
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise CheckpointError(f"hf:{name} is no name on the Hub; wanted hf:ORG/NAME, such as hf:nvidia/mit-b0")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f"hf:{name} needs huggingface_hub, which is not installed; pip install huggingface_hub, "
            "or download the folder elsewhere and give its path"
        ) from error

    def fetch(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except EntryNotFoundError as error:  # not there, or not in the cache and the Hub out of reach
            absent.append(error)
            return None
        except (OSError, ValueError) as error:  # the hub's own errors are of these two kinds
            raise CheckpointError(_unreachable(name, error)) from error

    absent: list[Exception] = []
    for file in WEIGHT_FILES:
        if path := fetch(file):
            fetch("config.json")
            return path
    raise CheckpointError(_unreachable(name, absent[-1])) from absent[-1]


def _unreachable(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"hf:{name} cannot be fetched ({type(error).__name__}: {reason}); check the name and the network, "
        f"or download {' or '.join(WEIGHT_FILES)} with its config.json elsewhere and give that folder's path"
    )
