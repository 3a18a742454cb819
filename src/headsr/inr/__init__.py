"""Implicit neural representations: one continuous field per head, fitted to its scans."""
