"""How a stage runs, from the command line to whole outputs. No other room is imported here.

start        what every script imports first
stage        the command line, the first and last line, the exit status
errors       errors that become one line
params       params.yaml, read and checked
artifacts    inputs that must be there, outputs that are whole or absent
records      JSON lines, JSON and CSV on disk
inputs       the files that users bring
environment  what the bytes of a run depend on
locks        one process at a time
stopping     signals, and the death of dvc
progress     progress bars
messages     how messages quote values
"""
