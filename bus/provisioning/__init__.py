"""Write the certificates, ACLs and configurations of a whole site."""
