"""Methods that make a volume from thick-slice scans; each ends projected onto the measurement and published."""
