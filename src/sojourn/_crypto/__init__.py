"""Cryptography: tickets, verifiers, encryption of bodies, CSRF tokens and secrets."""
