"""A page to look at: experiments, runs, logs, metrics, files; rendered here, without scripts from elsewhere."""
