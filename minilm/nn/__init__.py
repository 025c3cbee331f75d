"""Layers, losses and the Module they are made of, under PyTorch's names."""
