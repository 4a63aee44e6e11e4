"""The simulated exchange: a seeded market behind a websocket server that speaks both Coinbase protocols."""
