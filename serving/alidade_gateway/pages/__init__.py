"""Pages for people: a chat with what is served, and an arena where two models are compared blindly."""
