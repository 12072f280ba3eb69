"""Drafting the space of a network that nobody wrote a family for: what may vary is found by tracing it."""

from nasmvt.drafting.draft import Drafted as Drafted
from nasmvt.drafting.draft import draft as draft
