"""Journeys: whole commands against real registries, as a user runs them."""
