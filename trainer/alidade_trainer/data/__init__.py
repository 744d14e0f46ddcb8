"""From files of records to tokens: read, recognise, tokenise, pack."""
