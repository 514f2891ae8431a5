"""Who may see and do what: roles, accounts, sessions, and the audit trail."""
