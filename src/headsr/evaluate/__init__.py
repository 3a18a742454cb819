"""How near a volume is to the truth and to its scan, and the tables, pictures and report that say so."""
