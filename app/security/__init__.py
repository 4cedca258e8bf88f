"""Who may do what: visitor tokens, member sessions, API keys, origins."""
