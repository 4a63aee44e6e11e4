"""The simulated exchange: a seeded market behind a websocket server with both Coinbase protocols."""
