"""The image: plan, layers, store, daemon, smoke test, rendered Dockerfile."""
