"""A finished model as one folder, and loading it back."""

from nasmvt.export.folder import save as save
from nasmvt.export.loading import LoadedModel as LoadedModel
from nasmvt.export.loading import TaskModel as TaskModel
from nasmvt.export.loading import load as load
