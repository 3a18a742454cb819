"""Degradations: the fixed low-resolution test scans, and the blind high-order pipeline that training slices go through."""
