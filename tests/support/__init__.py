"""Fakes, pictures, crafted weights and galleries, and processes for the tests."""
