"""How a stage runs, from the command line to whole outputs. This room imports no other room.

start        the first import of every script
stage        the command line, the first and last line, the exit status
errors       errors that become one line
params       params.yaml, read and checked
records      JSON lines, JSON and CSV on disk
inputs       inputs that must be there, and the files that users bring
outputs      outputs that are whole or absent
environment  the libraries, the processor and the variables that a run depends on
locks        one process at a time
stopping     signals, and the death of dvc
tracking     report a stage to trackers, such as TensorBoard
trackers     what each tracker needs, and where it writes
dvc_state    what DVC says: who writes an output, what was recorded, hashes
progress     progress bars
messages     how messages quote values
"""
