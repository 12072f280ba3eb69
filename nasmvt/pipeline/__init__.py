"""The steps of the main job, each a function that reads from and writes to a run directory.

Above all other packages except the command line, which only parses, calls and prints.
"""
