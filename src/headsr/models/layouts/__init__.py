"""The published networks whose weights can be imported, and how theirs become those of headsr's networks."""
