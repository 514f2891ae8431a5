"""Write certificates, ACLs and configurations for all machines of a site."""
