"""Finds, checks and keeps the plugins, and keeps what they do wrong from harming anything else."""

from corectl.plugins.entry import GROUP
from corectl.plugins.host import PluginHost
from corectl.plugins.info import PluginInfo

__all__ = ["GROUP", "PluginHost", "PluginInfo"]
