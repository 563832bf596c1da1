"""The demo: one page that shows a session at work. Started by ``make demo``; read ``app.py``."""
