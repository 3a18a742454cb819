"""From a scan as it was acquired to normalised intensities: bias field, registration, masks, intensity scale."""
