"""Did it work, how sure is that, and what did it cost?

contestants  the models that are compared
classifier   the n-gram judge
judges       the other judges
statistics   intervals and tests
costs        what positivity cost
figures      the PNG plots
report       the report in Markdown
compare      the answers of every model to your prompts
"""
