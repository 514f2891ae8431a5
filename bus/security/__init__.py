"""Who may do what: certificates, broker ACLs and signed releases."""
