"""Network architectures: tensors in, tensors out. Nothing of headsr but its parts is imported here."""
