"""Jobs: queues of clusters, and containers that are laid out as AzureML lays them out."""
