"""How a scan samples the head: the one forward model A that simulates, fits, projects and measures residuals."""
