"""How a stage runs, from the command line to complete outputs. No module imports another subpackage.

start        the first import of every script
command_line the command line, which is read before torch is imported
arithmetic   the variables that fix how numpy and torch compute
stage        the first and last line, the exit status
errors       errors that become one line
params       params.yaml, read and checked
yaml_files   the YAML of a file of settings
hints        the settings that a wrong name may mean
renamed      old keys, and the settings that they became
records      JSON lines, JSON and CSV on disk
inputs       required inputs, and files of users
outputs      outputs that are complete or absent
compression  compressed bytes that are the same on every system
environment  the libraries, the processor and the variables that a run depends on
elsewhere    machines for which no bytes are promised
locks        one process at a time
stopping     stop at a signal, or when dvc has ended
tracking     report a stage to trackers, such as TensorBoard
trackers     what each tracker needs, and where it writes
dvc_state    what DVC records: current writers, past runs, hashes
hub          the hub's answers, with a limit on waiting
progress     progress bars, lines in a log, and the live tables of training
messages     how messages quote values
"""
