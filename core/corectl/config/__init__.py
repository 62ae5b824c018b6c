"""Settings: what there is to set, how it is read, and where each value came from."""

from corectl.config.loading import config_path, load, split_host
from corectl.config.readers import clean
from corectl.config.settings import DEFAULT_PORT, FOREVER, Settings
from corectl.config.table import SETTINGS, Setting

__all__ = [
    "DEFAULT_PORT",
    "FOREVER",
    "SETTINGS",
    "Setting",
    "Settings",
    "clean",
    "config_path",
    "load",
    "split_host",
]
