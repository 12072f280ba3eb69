"""The steps of the main job, each a function from a run directory to what it leaves there.

Above all other rooms and below the command line, which only parses, calls and prints.
"""
