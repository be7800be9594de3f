"""Names that systems and programs leave behind in people's folders: hidden ones, thumbnails, rubbish bins, drafts."""

from __future__ import annotations

import re

# macOS and Windows find these whatever their case; no data set has a class of such a name.
ANY_CASE = {
    *("__macosx", "icon\r", "desktop db", "desktop df", "network trash folder", "thevolumesettingsfolder"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information"),
}
# Of Linux, storage boxes and old Windows, and of Python. A class may well be called `recycler`.
THIS_CASE = {
    *("lost+found", "RECYCLER", "__pycache__", "@eaDir", "@tmp", "@sharebin", "@Recycle", "@Recently-Snapshot"),
    *("#recycle", "#snapshot"),
}
# Windows' repaired disks, and Safari's unfinished downloads: both are folders.
FOLDER = re.compile(r"FOUND\.\d{3}|.+\.(?:jpe?g|png|gif|webp|tiff?|bmp|avif|zip|tar|t?gz)\.download", re.IGNORECASE)
DRAFTS = (".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".aria2", ".tmp", "~")
# What Windows and storage boxes keep beside a file `x.jpg` shows as `x.jpg:Zone.Identifier` on other systems.
STREAM = re.compile(r".*(:Zone\.Identifier|@SynoEAStream|@SynoResource|:com\.dropbox\.\w+)", re.DOTALL)


def is_leftover(name: str, *, is_folder: bool = False) -> bool:
    """Whether systems and programs leave such a folder, or such a file, behind; hidden names are among them."""
    return bool(leftover_kind(name, is_folder=is_folder))


def leftover_kind(name: str, *, is_folder: bool = False) -> str:
    """What is counted together: `._*`, `.*`, `*.part`, or the name itself; empty if it is none of them."""
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return name if is_folder or name == ".DS_Store" else ".*"
    if name in THIS_CASE or name.lower() in ANY_CASE:
        return name
    if is_folder:
        return name if FOLDER.fullmatch(name) else ""
    if found := STREAM.fullmatch(name):
        return f"*{found[1]}"
    return next((f"*{ending}" for ending in DRAFTS if name.lower().endswith(ending)), "")
