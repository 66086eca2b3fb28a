"""The mathematics: tensors in, tensors out. Depends on torch alone."""
