"""Looks at the machine that Fusain runs on: what is there, what is missing, and what to do about it.

Nothing enters but the folder of the runs; findings leave. One file an area; torch is loaded by `device` only.
"""
