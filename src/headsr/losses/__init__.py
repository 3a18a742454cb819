"""Differences between a predicted and a true image. Only torch is imported here."""
