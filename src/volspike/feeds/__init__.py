"""Market data feeds: venue codecs, the websocket session, the REST client and the simulated exchange."""
