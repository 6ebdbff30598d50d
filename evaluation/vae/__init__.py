"""Scores, tasks, tables and pictures of VAEs."""
