"""One class of settings for each section of params.yaml."""
