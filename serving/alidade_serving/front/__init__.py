"""What every HTTP server of this distribution is made of: keys, bounds, errors, one line of log a request, an end."""
