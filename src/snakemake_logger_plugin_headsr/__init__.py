"""Where Snakemake looks for its logger plugins: by this name of a package (profiles/default asks for it)."""

from headsr.run_output import RunOutput as LogHandler

__all__ = ["LogHandler"]
