"""Continuous fields: position in mm -> intensity. Their kinds, their files and their evaluation."""
