"""Data: from files of many shapes to the tables that the other stages read.

From files to rows:

files            find files, folders, globs and hub data sets
formats          read the rows of one file
json_objects     find the rows of a JSON file that is one object
delimited        read CSV and TSV
folders          read folders of texts, one folder for each class
splits           the split of a file or a text
sources          read each source that the settings name

From rows to records:

shapes           recognise the shape of rows
columns          find out which column is which
readers          read one row of each shape
dialogue         find prompts and responses in transcripts and messages
meanings         interpret labels, ratings and votes
faults           why a row cannot be used
intake           keep, reject and count rows

From records to tables:

tables           make the tables
selection        select the records of a table, and the prompts
sizes            settle the number of rows of each table
pairs            make and check preference pairs
matching         match positive and negative texts
leaks            drop held-out texts and their near-duplicates from training data
near_duplicates  find near-duplicates
synthetic        make the tables of the grammar
grammar          the grammar of the synthetic source

Shared:

text             clean, normalise, split and count words
chat             messages, and the transcripts that people read
prompts          read files of prompts
card             write the dataset card
"""
