"""What `serve` would do on hardware that is not here: SGLang asks for a card, and is answered as
that card would."""
