"""Weights of the Hugging Face hub, and timm's, which are kept there; its own library caches the files."""

from __future__ import annotations

import contextlib
import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from convrun.errors import CheckpointError
from convrun.text.wording import first_line
from convrun.weights.download import downloaded

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

FILES = ("model.safetensors", "pytorch_model.bin")


def hub_file(repository: str, files: tuple[str, ...] = FILES) -> Path:
    """The weights of a repository `OWNER/NAME`: the first of these files it has.

    What is in the hub's cache on this machine is taken as it is, without asking whether it has changed.

    Raises:
        CheckpointError: there is no such repository or file, it is not open to this user, or the network fails.
    """
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    shown = f"hf:{repository}"
    elsewhere = f"or get {files[0]} elsewhere and give its path as init.from"
    with contextlib.suppress(errors.HFValidationError):  # told below
        for name in files:
            if isinstance(cached := try_to_load_from_cache(repository, name), str):
                return Path(cached)
    for name in files:
        try:
            return Path(hf_hub_download(repository, name, endpoint=os.environ.get("HF_ENDPOINT") or None))
        except errors.HFValidationError as error:
            raise CheckpointError(f"{shown} names no repository of the hub; write hf:OWNER/NAME") from error
        except errors.RepositoryNotFoundError as error:
            cure = "check the name; for a private or gated one, log in with `hf auth login`"
            raise CheckpointError(f"{shown}: the hub has no such repository that is open to you; {cure}") from error
        except errors.LocalEntryNotFoundError as error:
            # It is an EntryNotFoundError as well, but tells of the network: the file is not in the cache.
            reason = first_line(error.__cause__ or error)
            raise CheckpointError(
                f"{shown} is not in the hub's cache on this machine and cannot be fetched: {reason}; check the "
                f"network, https_proxy and HF_HUB_OFFLINE, {elsewhere}"
            ) from error
        except errors.EntryNotFoundError:
            continue
        except Exception as error:  # the hub's library passes on whatever its transport raises
            raise CheckpointError(f"{shown} cannot be fetched: {first_line(error)}; try again, {elsewhere}") from error
    raise CheckpointError(f"{shown} holds neither {' nor '.join(files)}; get its weights and give the path")


def timm_file(name: str, sha256: str | None = None) -> Path:
    """The file of timm's pretrained weights of a model: `convnext_tiny.fb_in22k`, or without a tag the default ones.

    Raises:
        CheckpointError: timm has no such weights, or they cannot be fetched.
    """
    config = timm_config(name)
    if config.hf_hub_id:
        return hub_file(config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else FILES)
    return downloaded(str(config.url), sha256)


def timm_config(name: str) -> PretrainedCfg:
    """What timm knows of these weights; raises CheckpointError if it has none of that name."""
    import timm

    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # the model is there, but not with these weights
        config = None
    if config is not None and (config.hf_hub_id or config.url):
        return config
    known = timm.list_pretrained()
    plain = name.partition(".")[0]
    nearest = difflib.get_close_matches(name, known, 3) or [n for n in known if n.startswith(f"{plain}.")][:3]
    cure = f"did you mean {' or '.join(f'timm:{n}' for n in nearest)}?" if nearest else "timm.list_pretrained() lists"
    raise CheckpointError(f"timm has no pretrained weights {name!r}; {cure}")
