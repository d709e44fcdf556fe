"""Ways of executing the same model, each with proof that it was on."""
