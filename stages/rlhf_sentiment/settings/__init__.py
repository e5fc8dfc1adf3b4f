"""One class of settings for each section of params.yaml, and the values of old settings (old, edit)."""
