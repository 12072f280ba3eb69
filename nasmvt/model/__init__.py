"""The multi-task model: plain task networks of one arch with tied shared tensors."""

from nasmvt.model.multi_task import MultiTaskModel as MultiTaskModel
