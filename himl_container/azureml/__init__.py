"""Azure Machine Learning: workspaces, submission, datasets, transfers, and hi-ml's functions for all of it."""
