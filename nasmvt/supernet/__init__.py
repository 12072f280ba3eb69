"""The weight store and what it lends: slices, by role and score, bound to plain networks."""

from nasmvt.supernet.config import InitialConfig as InitialConfig
from nasmvt.supernet.config import SupernetConfig as SupernetConfig
from nasmvt.supernet.supernet import Supernet as Supernet
