"""What `run.py ssl ...` does: runs, scores, pictures, tables, and the published table as a list of commands."""
