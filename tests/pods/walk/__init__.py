"""Walk the path of deploy/kubeedge/README.md: run its commands on a laboratory."""
