"""Cryptography: tickets, verifiers, encrypted bodies, CSRF tokens and secrets."""
