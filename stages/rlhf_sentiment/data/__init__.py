"""From files of any shape to the tables that the other stages read.

files            find files, folders and hub data sets
formats          rows of one file
delimited        CSV and TSV
folders          one folder for each class
shapes           recognise the shape of rows
dialogue         prompts and responses in transcripts and messages
meanings         what labels and votes mean
faults           why a row is rejected
intake           keep, reject and count rows
sizes            how many rows each table gets
tables           records to tables
pairing          preference pairs from labelled texts
near_duplicates  find near-duplicates
text             clean, normalise, split and count words
prompts          files of prompts
synthetic        tables that the grammar writes
grammar          the grammar of the synthetic source
card             the dataset card
"""
