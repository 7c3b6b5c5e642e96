"""The machinery of settings: what a section is, how files and overrides become one, how faults are told.

It knows no particular setting. TOML and `--section.name value` enter, one frozen, checked object leaves.
"""
