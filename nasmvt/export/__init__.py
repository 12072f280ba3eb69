"""A finished model as one folder, and the way back from the folder to a module."""

from nasmvt.export.folder import save
from nasmvt.export.loading import LoadedModel, TaskModel, load

__all__ = ["LoadedModel", "TaskModel", "load", "save"]
