"""One command on the scans of one head: from NIfTI to NIfTI, in the scan's own contrast, units and box."""
