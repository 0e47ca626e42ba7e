"""The first files of a project: what ``himl-container init`` writes."""
