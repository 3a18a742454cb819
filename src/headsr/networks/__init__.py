"""Network architectures: tensors in, tensors out. Only torch is imported here."""
