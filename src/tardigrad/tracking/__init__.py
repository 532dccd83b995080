"""Runs that other programs keep track of while they go on."""
