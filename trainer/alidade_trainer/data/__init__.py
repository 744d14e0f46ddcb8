"""From records to tokens: tokenise, pack, deal."""
