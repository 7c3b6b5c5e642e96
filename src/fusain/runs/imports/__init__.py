"""From another tool's configuration to a settings file of Fusain: one file a tool, each a table of its keys.

A file enters; settings and an account leave, in which every key of the source has its place: nothing is silent.
"""
