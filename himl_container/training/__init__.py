"""What training scripts use with PyTorch Lightning: loggers, progress, timers, recovery checkpoints."""
