"""Images and registries: push, pull, the cache for CI, and the proof of what an image is."""
