"""Look at finished volumes in a browser: a server on the loopback, and a page that shows one or two of them."""

from headsr.view.server import ViewServer, serve

__all__ = ["ViewServer", "serve"]
