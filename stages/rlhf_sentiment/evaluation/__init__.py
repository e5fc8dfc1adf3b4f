"""Evaluation of the contestants: judges, statistics, costs, plots and the report.

contestants  the models that are compared
samples      read and check the answers of the contestants
classifier   the n-gram judge
judges       the other judges
exam         labelled texts and preference pairs that measure the judges
panel        all judges of a run
costs        the cost of positivity
guards       warnings if this cost is too high
statistics   intervals and tests
measures     the figures of reports/evaluation.json
figures      those of them that are metrics, or in plots/
judged_answers  every answer with its opinions, in one file
plot_data    the tables in plots/
plots        the PNG plots
picture      their style, and the PNG file
report       the report in Markdown
compare      the answers of every contestant to your own prompts
"""
