"""A run's folder: its files, who may write to it, and how what is written survives a kill."""

from convrun.files.writing import explained, is_disk_full, sync_folder, system_error, write_whole
from convrun.run_folder.folder import RunFolder, State

__all__ = ["RunFolder", "State", "explained", "is_disk_full", "sync_folder", "system_error", "write_whole"]
