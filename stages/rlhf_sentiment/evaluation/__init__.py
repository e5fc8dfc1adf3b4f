"""Did it work, how certain is that, and what did it cost?

contestants  the models that are compared
samples      the answers of the contestants, read back and checked
classifier   the n-gram judge
judges       the other judges
exam         labelled texts and preference pairs that measure the judges
panel        all judges of a run
costs        what positivity cost
guards       warnings where the cost was too high
statistics   intervals and tests
measures     the numbers of metrics/evaluation.json
plot_data    the tables in plots/
plots        the PNG plots
report       the report in Markdown
compare      the answers of every contestant to your own prompts
"""
